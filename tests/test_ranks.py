"""Several ranks (gloo, CPU) train as one process does, and end with one clear message."""

from __future__ import annotations

import multiprocessing
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from safetensors.torch import load_file
from transformers import Lfm2Config, Lfm2ForCausalLM, LlamaConfig, LlamaForCausalLM

import failing_ranks
from failing_ranks import MARK, FailingSettings, failing, serve_second_part
from r1kit import ranks
from r1kit.commands.replay_command import replay
from r1kit.data.jsonl import read_rows
from r1kit.models.load import load
from r1kit.models.plain import PlainPath
from r1kit.models.recurrent import fork_states
from r1kit.models.shared_rows import require_shared_rows
from r1kit.pipeline import Context, External, Recipe, Stage, execute
from r1kit.pipeline.agent import Part
from r1kit.pipeline.launcher import TIME_LIMIT, run_on_ranks, time_limit
from r1kit.pipeline.other_nodes import Summons
from r1kit.pipeline.progress import Display
from r1kit.pipeline.sharing import ABOVE_CORES, require_devices
from r1kit.ranks import RankError
from r1kit.settings import SettingsError
from r1kit.stages.pretrain import PretrainSettings
from r1kit.stages.rl import RL, RLSettings
from r1kit.store import StoreError, read_json
from r1kit.train.learner import Learner, OptimizerSettings
from shared_rows import rows

SECONDS = 60.0
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # the processes of the ranks get the same path

from _rank_stages import KINDS, RankStagesSettings, largest_difference, metrics, train  # noqa: E402


@pytest.mark.parametrize("sizes", [[], [5], [1, 1, 1], [9, 1, 1, 1], [1, 1, 1, 9], [0, 0], [3, 0, 2, 0]])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_shares_of_all_ranks_are_the_items_in_order(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], count: int
) -> None:
    items, shares = list(enumerate(sizes)), []
    for rank in range(count):
        monkeypatch.setattr(ranks, "_member", ranks._Member(rank, count, None))
        shares.append(ranks.share(items, lambda item: item[1]))
    assert list(chain.from_iterable(shares)) == items
    sums = [sum(size for _, size in share) for share in shares]
    assert max(sums) <= sum(sizes) / count + max(sizes, default=0)


@pytest.mark.slow
def test_two_ranks_train_as_one_process_and_one_process_continues_what_they_began(tmp_path: Path) -> None:
    """Uneven numbers of rows, so that some ranks run empty batches; all kinds in one set of ranks, to start it once.

    Once each rank has rows of its own, and once both share each row. After the first step, the checkpoint of the former
    is continued by two ranks that keep the weights whole, and that of the latter by one process.
    """
    kinds = tuple(KINDS)
    settings = RankStagesSettings(kinds=kinds, steps=3, checkpoint_every=1)
    alone, together = train(tmp_path, settings, 1), train(tmp_path, settings, 2)
    shared = train(tmp_path, settings.replace(sequence_devices=2), 2, runs="shared")
    for name in kinds:
        for ranks_run in (together, shared):
            difference, where = largest_difference(metrics(alone, name), metrics(ranks_run, name))
            assert difference < 1e-4, f"{name}: {where}"
            files = [{path.name for path in (each / name).iterdir()} for each in (alone, ranks_run)]
            assert files[0] - {"preflight.json"} == files[1]  # stages on several devices make no checks before step 1
    continued = {"one": (shared, settings, 1), "whole": (together, settings.replace(shard=False), 2)}
    for runs, (begun, changed, devices) in continued.items():  # as if ranks had been stopped after a checkpoint
        resumed = tmp_path / runs / "ranks" / begun.name
        shutil.copytree(begun, resumed)
        (resumed / "manifest.json").unlink()
        for name in kinds:
            first, *later = sorted((resumed / name / "checkpoints").iterdir())
            assert (first / "shards").is_dir()
            for folder in (*later, resumed / name / "model"):
                shutil.rmtree(folder)
        train(tmp_path, changed, devices, runs=runs)
        for name in kinds:
            difference, where = largest_difference(metrics(alone, name), metrics(resumed, name))
            assert difference < 1e-4, f"{runs}, {name}: {where}"
            written = sorted((resumed / name / "checkpoints").iterdir())[-1]
            assert (written / "policy.safetensors").is_file() and not (written / "shards").exists()


def test_two_ranks_that_share_each_row_compute_the_gradients_of_one_process(tmp_path: Path) -> None:
    """For every kind of loss, shared prompts, rows of odd length, key heads for all ranks, experts, windows, sinks."""
    alone, shared = execute(rows(1), tmp_path / "one"), execute(rows(2), tmp_path / "two", devices=2)
    gradients = [load_file(folder / "gradients.safetensors") for folder in (alone, shared)]
    for name, ours in gradients[0].items():
        difference = float((gradients[1][name] - ours).abs().max() / ours.abs().max())
        assert difference < 5e-6, f"{name}: {difference:.1e} of the value"
    ours, theirs = (read_json(folder / "manifest.json")["metrics"] for folder in (alone, shared))
    assert theirs == pytest.approx(ours, rel=1e-5, abs=1e-6)


def test_rows_that_ranks_cannot_share_are_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_policy_folder: Path
) -> None:
    heads = load(str(tiny_policy_folder), device="cpu").model.config.num_attention_heads
    recipe = small_rl(tiny_policy_folder, "dying_reward", sequence_devices=3)
    with pytest.raises(SettingsError, match="sequence_devices is 3, and 2 devices are not groups of so many: give a"):
        execute(recipe, tmp_path, devices=2)
    monkeypatch.setenv(ABOVE_CORES, "1")
    with pytest.raises(ValueError, match=f"sequence_devices is 3, and llama has {heads} attention heads, .* a divisor"):
        execute(recipe, tmp_path, devices=3)
    with pytest.raises(SettingsError, match="cannot share 4 heads: give a divisor of 4"):
        PretrainSettings.parse({"heads": 4, "sequence_devices": 3})
    assert not list(tmp_path.rglob("stage.json"))
    monkeypatch.setattr(ranks, "_member", ranks._Member(0, 2, row_size=2))
    llama = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    plain = LlamaForCausalLM(LlamaConfig(**llama, num_attention_heads=2))
    require_shared_rows(plain)
    plain.plain_path = PlainPath("its rows leak")
    by_length = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    stretched = LlamaConfig(**llama, num_attention_heads=2, rope_parameters=by_length)
    recurrent = Lfm2ForCausalLM(Lfm2Config(**llama, num_attention_heads=2, num_key_value_heads=2, layer_types=["conv"]))
    fork_states(recurrent)
    for model, reason in (
        (plain, "packed rows do not compute it, its rows leak"),
        (LlamaForCausalLM(stretched), "its rotations change with the longest position"),
        (recurrent, "a layer with a state reads each sequence token by token"),
    ):
        with pytest.raises(ValueError, match=f"{reason}.*: set sequence_devices to 1"):
            require_shared_rows(model)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("kill", RankError, "rank 1 of 2 was killed by SIGKILL, as the system does when memory runs out"),
        ("raise", ValueError, "^the data is bad\nin stage failing"),
        pytest.param("exit", RuntimeError, "^SystemExit: no more", marks=pytest.mark.slow),
        pytest.param("full", StoreError, r"cannot write .*/step-000001: .* MB free there", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_fails_ends_all_with_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str, error: type[Exception], message: str
) -> None:
    monkeypatch.setenv(TIME_LIMIT, "3")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(error, match=message):
        execute(failing(how), tmp_path, devices=2)
    (folder,) = (tmp_path / "ranks").glob("failing-*")
    processes = [int(path.read_text()) for path in folder.glob("process-*")]
    assert len(processes) == 2 and not any(map(is_running, processes))
    progress = read_json(folder / "progress.json")
    assert (progress["state"], progress["done"], progress["total"]) == ("failed", 1, 4)
    assert not list(tmp_path.glob("torchelastic_*"))


class ManyCallers(Display):
    """Starts the agent of the second part once three strangers have called the first one."""

    def summon(self, summons: Summons) -> None:
        self.strangers = [socket.create_connection(summons.address) for _ in range(3)]  # the first two say nothing
        self.strangers[1].shutdown(socket.SHUT_WR)
        self.strangers[2].sendall(b"GET / HTTP/1.1\r\n\r\n")
        self.agent = multiprocessing.get_context("spawn").Process(target=serve_second_part, args=(summons,))
        self.agent.start()


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="no IPv6")
def test_two_agents_meet_over_ipv6_although_strangers_call_and_a_rank_that_hangs_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TIME_LIMIT, "3")
    display = ManyCallers(sys.stderr)
    context = Context(stage="failing", settings=FailingSettings(how="hang"), folder=tmp_path, devices=2)
    parts = (Part(1, "here", "::1"), Part(1, "there", "::1"))
    message = rf"no answer for 3 s from rank 1 of 2 on there \(log: {tmp_path / 'rank-1.log'}\): it hangs"
    with pytest.raises(RankError, match=message):
        run_on_ranks(failing_ranks.run, context, "failing", display, parts)
    assert "failing: all are here" in capsys.readouterr().err
    processes = [int(path.read_text()) for path in tmp_path.glob("process-*")]
    assert len(processes) == 2 and not any(map(is_running, processes))
    display.agent.join(SECONDS)
    assert display.agent.exitcode == 0
    for stranger in display.strangers:
        stranger.close()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for processes that are not its children")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_rank_outlives_the_process_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, failing_ranks.__file__, str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        said = list(iter(lambda: run.stderr.readline(), "[1/1] failing: all are here\n"))  # type: ignore[union-attr]
        assert said[-1:] and "" not in said, said
        files = tmp_path.rglob("process-*")
        waits = [os.pidfd_open(int(file.read_text())) for file in files]
        run.send_signal(number)
        for wait in waits:
            assert select.select([wait], [], [], SECONDS)[0], "the rank has ended"
            os.close(wait)


def small_rl(policy: Path, reward: str, **changes: Any) -> Recipe:
    settings = {
        "tasks": [{"name": "tiny/sums", "split": "train", "limit": 8}],
        "rewards": [f"failing_ranks:{reward}"],
        "steps": 2,
        "prompts_per_step": 3,
        "group_size": 2,
        "max_tokens": 8,
        "checkpoint_every": 1,
        "optimizer": {"learning_rate": 1e-3},
        "device": "cpu",
    }
    return Recipe("ranks", (Stage("rl", RL, RLSettings.parse(settings | changes), {"model": External(policy)}),))


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"shard": False, "lora_rank": 4}])
def test_a_run_whose_rank_was_killed_continues_to_the_same_result(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_policy_folder: Path, changes: dict[str, Any]
) -> None:
    """With shards, and with whole weights and adapters."""
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    recipe = small_rl(tiny_policy_folder, "dying_reward", **changes)

    def rows(folder: Path) -> list[dict[str, Any]]:
        keys = ("step", "reward/mean", "optim/loss", "optim/grad_norm", "completion/length_mean")
        return [{key: row[key] for key in keys} for row in read_rows(folder / "metrics.jsonl")]

    with pytest.raises(RankError, match="was killed by SIGKILL"):
        execute(recipe, tmp_path / "killed", devices=2)
    killed = execute(recipe, tmp_path / "killed", devices=2)
    alone = execute(recipe, tmp_path / "alone")
    for ours, theirs in zip(rows(alone), rows(killed), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)
    again = replay(killed, 2, say=lambda line: None)
    assert again["ok"] and again["from"] == 1, again["text"]


def test_an_error_of_one_rank_is_raised_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "gather", lambda own: [own, "the file is damaged"])
    with pytest.raises(StoreError, match="the file is damaged"), ranks.alike(StoreError):
        pass
    with pytest.raises(StoreError, match="my own"), ranks.alike(StoreError):
        raise StoreError("my own")
    with pytest.raises(TypeError), ranks.alike(StoreError):
        raise TypeError


def test_whole_weights_that_differ_between_ranks_are_refused(
    monkeypatch: pytest.MonkeyPatch, tiny_policy_folder: Path
) -> None:
    model = load(str(tiny_policy_folder), device="cpu").model
    monkeypatch.setattr(ranks, "_member", ranks._Member(0, 2))
    monkeypatch.setattr(ranks, "gather", lambda own: [own, own])
    learner = Learner(model, OptimizerSettings(), steps=1, shard=False)
    monkeypatch.setattr(ranks, "gather", lambda own: [own, "another"])
    monkeypatch.setattr("r1kit.train.learner.sum_gradients", lambda parameters: None)
    with pytest.raises(RuntimeError, match=r"different weights after update 1 .*another.*: set shard to true"):
        learner.step()


@pytest.mark.slow
def test_an_alarm_rolls_back_all_ranks(tmp_path: Path, tiny_policy_folder: Path) -> None:
    recipe = small_rl(tiny_policy_folder, "unhealthy_reward", steps=5, checkpoint_every=2, alarm="roll-back")
    folder = execute(recipe, tmp_path, devices=2)
    assert read_json(folder / "manifest.json")["metrics"]["rolled_back_to"] == 2
    (checkpoint,) = (folder / "checkpoints").iterdir()
    assert checkpoint.name == "step-000002"
    learner = Learner(load(str(tiny_policy_folder), device="cpu").model, OptimizerSettings(), steps=1)
    learner.load(checkpoint)
    saved = load(str(folder / "model"), device="cpu").model.state_dict()
    assert all(torch.equal(saved[name], weight) for name, weight in learner.model.state_dict().items())


def test_what_several_devices_cannot_share_is_refused_before_any_work(tmp_path: Path, tiny_policy_folder: Path) -> None:
    settings = RLSettings.parse({"tasks": ["tiny/sums"], "rewards": ["accuracy"], "lora_rank": 4, "device": "cpu"})
    recipe = Recipe("ranks", (Stage("rl", RL, settings, {"model": External(tiny_policy_folder)}),))
    with pytest.raises(ValueError, match="cannot run on 2 devices, because of lora_rank"):
        execute(recipe, tmp_path, devices=2)
    with pytest.raises(SettingsError, match=r"devices is 200, and without GPUs .* there are \d+: give at most --dev"):
        execute(failing("raise"), tmp_path, devices=200)
    assert not list(tmp_path.rglob("stage.json"))


def test_more_devices_than_there_are_are_refused_unless_cores_may_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = failing("raise").stages
    monkeypatch.setattr("r1kit.pipeline.sharing.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    require_devices(stages, 2)
    with pytest.raises(SettingsError, match=r"devices is 3, .* there are 2: give at most --devices 2; R1KIT_RANKS"):
        require_devices(stages, 3)
    monkeypatch.setenv("R1KIT_RANKS_ABOVE_CORES", "1")
    require_devices(stages, 3)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    require_devices(stages, 4)
    with pytest.raises(SettingsError, match="devices is 5, and there are 4 GPUs here: give at most --devices 4"):
        require_devices(stages, 5)
    require_devices([replace(stages[0], kind=replace(stages[0].kind, shards=False))], 5)


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "1e9"])
def test_a_time_limit_that_is_no_number_of_seconds_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIME_LIMIT, text)
    with pytest.raises(SettingsError, match=f"R1KIT_RANK_TIMEOUT_S is '{text}': give seconds"):
        time_limit()


STORES = """
import gc
from torch.distributed import TCPStore
from r1kit.pipeline.launcher import shared_store
ports = []
for _ in range(40):
    store = shared_store("127.0.0.1")
    ports.append(store.port)
    TCPStore("127.0.0.1", store.port, is_master=True, wait_for_workers=False, multi_tenant=True)
    del store
    gc.collect()
assert len(set(ports)) < len(ports), "no port came again: the test shows nothing"
"""


def test_a_port_that_an_earlier_stage_had_can_come_again() -> None:
    few = "ip link set lo up && echo 40000 40060 > /proc/sys/net/ipv4/ip_local_port_range"
    alone = ("unshare", "-rn", "sh", "-c")
    try:
        subprocess.run([*alone, few], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network of its own can be made here: {error}")
    subprocess.run([*alone, f'{few} && exec "$0" -c "$1"', sys.executable, STORES], check=True, timeout=60)
