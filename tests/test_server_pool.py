"""Servers that take weights: what they refuse, what a swallowed update looks like, and training that samples there."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("uvicorn", reason="the server needs its extra: pip install 'r1kit[web]'")

from safetensors.torch import load_file  # noqa: E402

from r1kit import serve  # noqa: E402
from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.data.jsonl import read_rows  # noqa: E402
from r1kit.engines import EngineError  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.engines.opening import open_pool  # noqa: E402
from r1kit.engines.remote.claim import START  # noqa: E402
from r1kit.engines.remote.pool import ServerPool, check_loaded  # noqa: E402
from r1kit.engines.remote.pool_settings import ServerPoolSettings  # noqa: E402
from r1kit.engines.remote.server import Facts, ServerLost  # noqa: E402
from r1kit.engines.remote.vllm_worker import WeightsFromDisk  # noqa: E402
from r1kit.models import handover  # noqa: E402
from r1kit.models.fingerprint import fingerprint  # noqa: E402
from r1kit.models.load import Policy, load, named_weights  # noqa: E402
from r1kit.pipeline import Context  # noqa: E402
from r1kit.settings import SettingsError  # noqa: E402
from r1kit.stages.rl import RL, RLSettings  # noqa: E402
from r1kit.store import read_json  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS  # noqa: E402
from r1kit.train.rl.loop_settings import LoopSettings  # noqa: E402
from r1kit.types import Prompt, SamplingParams  # noqa: E402
from serving import PATIENCE_S, Gate, Served, served  # noqa: E402

torch.set_num_threads(1)
KEY = "secret"
PoolOf = Callable[..., ServerPool]
PLAIN = ChatFormat(template="plain")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1KIT_API_KEY", KEY)


@pytest.fixture
def policy(tiny_policy_folder: Path) -> Policy:
    return load(str(tiny_policy_folder), device="cpu")


@pytest.fixture
def server(tiny_policy_folder: Path, tmp_path: Path) -> Iterator[Served]:
    with served(LocalEngine(load(str(tiny_policy_folder), device="cpu")), PLAIN, key=KEY, weights=tmp_path) as running:
        yield running


def base(served: Served) -> str:
    return served.url.removesuffix("/v1")


@pytest.fixture
def pool_of() -> Iterator[PoolOf]:
    """Opens pools of servers for a policy, until the test ends."""
    with ExitStack() as stack:

        def opened(policy: Policy, folder: Path, *servers: Served) -> ServerPool:
            settings = ServerPoolSettings(urls=tuple(map(base, servers)))
            return stack.enter_context(open_pool(settings, policy, folder, lambda line: None))

        yield opened


def ask(served: Served, path: str, body: Any = None, key: str = KEY) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(base(served) + path, data=None if body is None else json.dumps(body).encode())
    request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def prompts(policy: Policy, *texts: str) -> list[Prompt]:
    return [Prompt(problem_id=t, messages=(), token_ids=tuple(policy.tokenizer.encode(t))) for t in texts]


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up


def moved(policy: Policy, by: float = 0.5) -> Policy:
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1 + by)
    return policy


def test_a_handover_holds_each_weight_once_and_its_checksum_is_that_of_its_bits(policy: Policy, tmp_path: Path) -> None:
    weights = dict(named_weights(policy.model))
    written = handover.write(tmp_path / "all", weights, torch.float32)
    assert len(written.tensors) < len(weights), "the head is tied to the embeddings"
    again = handover.Handover.read(tmp_path / "all")
    assert again == written and handover.checksum(again.load()) == written.checksum
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.load())
    rounded = handover.write(tmp_path / "bf16", weights, torch.bfloat16)
    kinds = {(len(each["shape"]), each["dtype"]) for each in rounded.tensors.values()}
    assert kinds == {(1, "float32"), (2, "bfloat16")} and rounded.checksum != written.checksum


def test_the_draws_do_not_depend_on_the_number_of_servers(
    policy: Policy, server: Served, tiny_policy_folder: Path, tmp_path: Path, pool_of: PoolOf
) -> None:
    params, asked = SamplingParams(n=3, max_tokens=8, seed=3), prompts(policy, *"abcdefgh")
    alone = pool_of(policy, tmp_path / "one", server).generate(asked, params)
    other = LocalEngine(load(str(tiny_policy_folder), device="cpu"))
    with served(other, PLAIN, key=KEY, weights=tmp_path) as second:
        lines: list[str] = []
        pool = pool_of(policy, tmp_path / "two", server, second)
        pool.say, pool.concurrency = lines.append, 1
        together = pool.generate(asked, params)
        assert second.service.batch.finished and server.service.batch.finished > 24
    ids = [[[each.token_ids for each in group] for group in groups] for groups in (alone, together)]
    assert ids[0] == ids[1]
    assert pool.generate(asked, params) == together and "1 of 2 servers are left" in lines[0]
    pool.load_weights(named_weights(policy.model), version=1)  # the lost one is asked again, and stays lost
    assert {each.policy_version for group in pool.generate(asked, params) for each in group} == {1}
    assert len(lines) == 1


def test_a_second_rollout_without_any_server_is_refused_and_does_not_wait(
    policy: Policy, tiny_policy_folder: Path, tmp_path: Path, pool_of: PoolOf
) -> None:
    params, asked = SamplingParams(n=2, max_tokens=4, seed=3), prompts(policy, "a")
    with served(LocalEngine(load(str(tiny_policy_folder), device="cpu")), PLAIN, key=KEY, weights=tmp_path) as only:
        pool = pool_of(policy, tmp_path / "pool", only)
        pool.say = lambda line: None
        pool.generate(asked, params)
    (server,) = pool.servers
    with pytest.raises(ServerLost):
        server.claim(pool.folder)
    pool._require_version(server)  # as at the end of a rollout
    with pytest.raises(EngineError, match=r"no server of servers\.urls answers any more"):
        pool.generate(asked, params)


def test_a_swallowed_update_is_caught_at_once(
    policy: Policy, server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool_of: PoolOf
) -> None:
    pool = pool_of(policy, tmp_path, server)
    monkeypatch.setattr(LocalEngine, "load_weights", lambda engine, tensors, version: None)
    with pytest.raises(EngineError, match="did not take the weights of this step: its model has other weights"):
        pool.load_weights(named_weights(moved(policy).model), version=1)
    assert not list((tmp_path / "handover").glob("*/")), "a hand-over is removed, however it ends"


def test_a_server_takes_the_weights_of_one_run_at_a_time(
    policy: Policy, server: Served, tmp_path: Path, pool_of: PoolOf
) -> None:
    """Another process holds the lock of a run that has claimed the server; then it is killed."""
    script = (
        "import pathlib, sys; from r1kit.pipeline.guards import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    rival = tmp_path / "rival"
    rival.mkdir()
    command, pipe = [sys.executable, "-c", script, str(rival)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"\n"
        claim = {"method": "r1kit_claim", "kwargs": {"folder": str(rival)}}
        assert ask(server, "/collective_rpc", claim) == (200, {"results": [{"version": START}]})
        message = rf"409: process {holder.pid} on .* is working in {rival}: .*give each run servers of its own"
        with pytest.raises(EngineError, match=message):
            pool_of(policy, tmp_path, server)
        holder.kill()
    pool = pool_of(policy, tmp_path, server)
    rollout = pool.generate(prompts(policy, "a"), SamplingParams(max_tokens=3))
    other = pool_of(policy, tmp_path / "other", server)  # of this process, whose own locks the server does not see
    other.load_weights(named_weights(moved(policy).model), version=7)
    assert other.generate(prompts(policy, "a"), SamplingParams(max_tokens=3)) != rollout
    with pytest.raises(EngineError, match=r"has weights '7-\w+-\w+' and was given '0-.*another client replaced them"):
        pool.generate(prompts(policy, "a"), SamplingParams(max_tokens=3))


def test_a_server_that_was_started_again_otherwise_is_refused(
    policy: Policy, server: Served, tmp_path: Path, pool_of: PoolOf
) -> None:
    pool = pool_of(policy, tmp_path, server)
    assert server.service.weights is not None
    server.service.weights.version = START  # as after a start
    pool.load_weights(named_weights(policy.model), version=1)
    pool.facts = [replace(facts, logprobs="raw_logprobs") for facts in pool.facts]  # it was another one before
    server.service.weights.version = START
    with pytest.raises(EngineError, match=r"since it was started again, and was .*raw_logprobs"):
        pool.load_weights(named_weights(policy.model), version=2)


def test_a_client_that_leaves_during_its_pause_leaves_no_pause(
    policy: Policy, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch.setattr)
    body = {"prompt": list(prompts(policy, "a")[0].token_ids), "max_tokens": 2}
    running = threading.Thread(target=ask, args=(server, "/v1/completions", body))
    running.start()  # the gate holds it at its first token

    assert gate.reached.wait(PATIENCE_S)
    host, port = base(server).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /pause?mode=wait HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
        client.sendall(f"{head}Content-Length: 0\r\n\r\n".encode())
        until(lambda: ask(server, "/is_paused")[1]["is_paused"])
    until(lambda: not ask(server, "/is_paused")[1]["is_paused"])
    gate.open()
    running.join(PATIENCE_S)


def test_a_server_reads_whole_weights_of_its_own_model_from_its_folder_only(
    policy: Policy, server: Served, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    weights = dict(named_weights(policy.model))
    before = fingerprint(server.engine.policy.model.state_dict())

    def loaded(folder: Path, **changes: Any) -> tuple[int, str]:
        handover.write(folder, {**weights, **changes}, torch.float32)
        return refused(folder)

    def refused(folder: Path) -> tuple[int, str]:
        status, body = ask(
            server, "/collective_rpc", {"method": "r1kit_load_weights", "kwargs": {"folder": str(folder)}}
        )
        return status, str(body.get("error", {}).get("message"))

    status, message = loaded(tmp_path / "early")
    assert status == 403 and "is not of the run that has claimed this server" in message
    claim = {"method": "r1kit_claim", "kwargs": {"folder": str(tmp_path)}}
    assert ask(server, "/collective_rpc", claim)[1] == {"results": [{"version": START}]}
    status, message = refused(tmp_path / "early")
    assert status == 409 and "POST /pause?mode=wait before" in message
    assert ask(server, "/pause?mode=abort", {})[0] == 400
    assert ask(server, "/pause?mode=wait", {})[0] == 200
    outside = tmp_path_factory.mktemp("outside")
    status, message = loaded(outside / "all")
    assert status == 403 and "is not below" in message
    (tmp_path / "link").symlink_to(outside / "all")
    assert refused(tmp_path / "link")[0] == 403
    assert "handover.json" in refused(tmp_path / "nothing")[1]
    assert refused(tmp_path / "a\0b")[0] == 400
    name = next(name for name in weights if "q_proj" in name)
    assert "is not one of the model" in loaded(tmp_path / "more", extra=torch.zeros(2, 2))[1]
    assert "and the model's is" in loaded(tmp_path / "shape", **{name: torch.zeros(2, 2)})[1]
    assert "and the model's is" in loaded(tmp_path / "type", **{name: torch.zeros(weights[name].shape, dtype=int)})[1]
    handover.write(tmp_path / "damaged", weights, torch.float32)
    file = next((tmp_path / "damaged").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-4] + b"\1\2\3\4")
    assert "hashes differ from" in refused(tmp_path / "damaged")[1]
    assert fingerprint(server.engine.policy.model.state_dict()) == before, "a refused hand-over changes nothing"
    assert ask(server, "/collective_rpc", {"method": "r1kit_facts"}, key="wrong")[0] == 401
    assert ask(server, "/collective_rpc", {"method": "shutdown"})[0] == 400


def test_what_has_begun_ends_by_the_old_weights_and_what_comes_later_waits(
    policy: Policy, server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool_of: PoolOf
) -> None:
    pool = pool_of(policy, tmp_path, server)
    ids = prompts(policy, "a")[0].token_ids
    body = {"prompt": list(ids), "max_tokens": 6, "temperature": 0, "return_token_ids": True}
    gate, answers = Gate(monkeypatch.setattr), dict[str, dict[str, Any]]()

    def complete(name: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.update({name: ask(server, "/v1/completions", body)[1]}))
        thread.start()
        return thread

    early = complete("early")  # the gate holds it at its first token
    assert gate.reached.wait(PATIENCE_S)
    update = threading.Thread(target=pool.load_weights, args=(named_weights(moved(policy).model), 1))
    update.start()
    until(lambda: ask(server, "/is_paused")[1]["is_paused"])
    late = complete("late")
    until(lambda: server.service.num_open == 3)  # the pause, and both completions
    gate.open()
    for thread in (early, update, late):
        thread.join(PATIENCE_S)
    assert answers["early"]["weight_version"].startswith("0-") and answers["late"]["weight_version"].startswith("1-")
    engine = LocalEngine(policy)
    [[expected]] = engine.generate(prompts(policy, "a"), SamplingParams(max_tokens=6, temperature=0.0))
    assert tuple(answers["late"]["choices"][0]["token_ids"]) == expected.token_ids
    assert answers["early"]["choices"] != answers["late"]["choices"]


def test_the_routes_are_off_without_a_folder_and_want_a_key(policy: Policy, tmp_path: Path, pool_of: PoolOf) -> None:
    with served(LocalEngine(policy), PLAIN) as plain:
        assert ask(plain, "/collective_rpc", {"method": "r1kit_facts"})[0] == 404
        with pytest.raises(EngineError, match=r"r1kit serve with --weights-from"):
            pool_of(policy, tmp_path, plain)
    with pytest.raises(ValueError, match=r"--weights-from lets clients replace the model's weights: set R1KIT_API_KEY"):
        serve.serve("tiny", weights_from=tmp_path)
    nobody = open_pool(ServerPoolSettings(urls=("http://127.0.0.1:1",)), policy, tmp_path)
    with pytest.raises(EngineError, match="take its address out of servers"), nobody:
        pass


class _Worker(WeightsFromDisk):
    """What the extension uses of a vLLM worker, over a model of transformers."""

    def __init__(self, policy: Policy, *, takes: bool = True) -> None:
        self.policy, self.takes, self.model_runner = policy, takes, self

    def get_model(self) -> Any:
        return self.policy.model

    def reload_weights(self, weights_iterator: Any) -> None:  # type: ignore[override]
        for name, tensor in weights_iterator:
            if self.takes:
                self.policy.model.state_dict()[name].copy_(tensor)


def test_vllms_worker_reads_from_its_folder_and_says_what_it_holds(
    policy: Policy, tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = Facts("vllm", "float32", 256, "processed_logprobs", 1, holds_checkpoint=False)
    worker = _Worker(load(str(tiny_policy_folder), device="cpu"))
    written = handover.write(tmp_path / "new", dict(named_weights(moved(policy).model)), torch.float32)
    folder = str(written.folder)
    assert "R1KIT_WEIGHTS_FROM=FOLDER" in worker.r1kit_claim(str(tmp_path))["error"]
    monkeypatch.setenv("R1KIT_WEIGHTS_FROM", str(tmp_path))
    assert "is not below" in worker.r1kit_claim(str(tmp_path.parent))["error"]
    assert worker.r1kit_claim(str(tmp_path / "other")) == {"version": START}
    assert "is not of the run that has claimed" in worker.r1kit_load_weights(folder)["error"]
    assert worker.r1kit_claim(str(tmp_path)) == {"version": START}
    answer = worker.r1kit_load_weights(folder)
    assert worker.r1kit_claim(str(tmp_path)) == {"version": written.name}
    assert answer["read"] == written.checksum and answer["held"] != answer["before"]
    assert answer["held"] == fingerprint(policy.model.state_dict())
    check_loaded("it", facts, written, "3-old-weights", [answer])
    again = worker.r1kit_load_weights(folder)  # the same weights once more
    check_loaded("it", facts, written, written.name, [again])
    deaf = _Worker(load(str(tiny_policy_folder), device="cpu"), takes=False)
    assert "call r1kit_claim first" in deaf.r1kit_load_weights(folder)["error"]
    deaf.r1kit_claim(str(tmp_path))
    with pytest.raises(EngineError, match="its model still has the old weights"):
        check_loaded("it", facts, written, "3-old-weights", [deaf.r1kit_load_weights(folder)])
    with pytest.raises(EngineError, match="it read others than were written"):
        check_loaded("it", facts, written, START, [{**answer, "read": "other"}])


def test_vllm_gets_the_embeddings_and_not_the_head_that_is_tied_to_them(
    policy: Policy, server: Served, tmp_path: Path, pool_of: PoolOf
) -> None:
    pool = pool_of(policy, tmp_path, server)
    pool.facts = [replace(pool.facts[0], holds_checkpoint=False)]
    names = pool._checkpoint_tensors(dict(named_weights(policy.model))).keys()
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names
    saved = tmp_path / "saved"
    policy.save(saved)
    assert names == load_file(saved / "model.safetensors").keys()


def test_another_sampler_is_corrected_unless_that_is_off() -> None:
    servers = {"servers": {"urls": "http://localhost:8000"}}
    settings = {"tasks": "tiny/sums", "rewards": "accuracy"}
    plain = RLSettings.parse(settings)
    assert plain.corrected is plain and not plain.recompute_old_logprobs
    elsewhere = RLSettings.parse(settings | servers)
    assert elsewhere.corrected.recompute_old_logprobs and elsewhere.corrected.algorithm.truncated_importance == 2.0
    icepop = RLSettings.parse(settings | servers | {"algorithm": "icepop"})
    assert icepop.corrected.algorithm == PRESETS["icepop"]
    off = RLSettings.parse(settings | servers | {"correction": "off"})
    assert off.corrected is off
    with pytest.raises(SettingsError, match=r"correction=auto sets it: recompute_old_logprobs works with epochs = 1"):
        RLSettings.parse(settings | servers | {"epochs": 2})
    with pytest.raises(SettingsError, match="is not a server's address"):
        RLSettings.parse(settings | {"servers": {"urls": "localhost:8000/v1"}})
    assert LoopSettings().corrected == LoopSettings()


def test_rl_samples_on_servers_and_its_checks_pass(server: Served, tiny_policy_folder: Path, tmp_path: Path) -> None:
    settings = {
        "tasks": {"name": "tiny/sums", "limit": 8},
        "rewards": "random",
        "servers": {"urls": base(server)},
        "optimizer": {"learning_rate": 0.01},
        "algorithm": {"baseline": "none"},  # any reward is a gradient
        **{"steps": 2, "prompts_per_step": 2, "group_size": 2, "max_tokens": 6},
        "chat": {"template": "plain"},
    }
    stage = tmp_path / "rl"
    stage.mkdir()
    context = Context(
        stage="rl", settings=RLSettings.parse(settings), folder=stage, paths={"model": tiny_policy_folder}
    )
    RL.run(context)
    rows = [row for row in read_rows(stage / "metrics.jsonl") if row["step"]]
    assert max(row["sampler/logprob_gap_mean"] for row in rows) < 1e-4
    assert [row["sampler/importance_mean"] for row in rows] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert rows[-1]["optim/grad_norm"] > 0
    lines = {line["check"]: line["verdict"] for line in read_json(stage / "preflight.json")}
    assert lines["weights reach the sampler"] == lines["sampler-trainer gap"] == "ok"
    assert server.service.weights is not None and server.service.weights.version.startswith("1-")
    assert not list((stage / "handover").glob("*/"))
