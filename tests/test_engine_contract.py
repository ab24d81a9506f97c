"""What training needs of an engine that samples: the local one, servers of r1kit over HTTP, and vLLM where it is."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("uvicorn", reason="the server needs its extra: pip install 'r1kit[web]'")

from r1kit.chat import ChatFormat  # noqa: E402
from r1kit.engines import PolicyEngine, PromptError  # noqa: E402
from r1kit.engines.local import LocalEngine  # noqa: E402
from r1kit.engines.opening import open_pool  # noqa: E402
from r1kit.engines.remote.pool_settings import ServerPoolSettings  # noqa: E402
from r1kit.models.load import Policy, fresh_llama, load, named_weights  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.types import Completion, Prompt, SamplingParams  # noqa: E402
from serving import served  # noqa: E402

torch.set_num_threads(1)
QUESTIONS = ("1+2=", "tom has 3 apples", "a", "count the 7s")
START_S = 300.0  # for vLLM to load and compile


@dataclass
class Sampler:
    """An engine, the policy whose weights it has, and how far its log-probs may be from a plain forward pass."""

    engine: PolicyEngine
    policy: Policy
    tolerance: float

    def prompts(self, texts: tuple[str, ...] = QUESTIONS) -> list[Prompt]:
        encode = self.policy.tokenizer.encode
        return [Prompt(problem_id=t, messages=(), token_ids=tuple(encode(t, add_special_tokens=False))) for t in texts]

    def sample(self, **params: Any) -> list[list[Completion]]:
        return self.engine.generate(self.prompts(), SamplingParams(**params))

    def gap(self, prompt: Prompt, completion: Completion, temperature: float = 1.0) -> float:
        """The mean distance of a completion's log-probs from those of one forward pass of the policy."""
        ids = torch.tensor([[*prompt.token_ids, *completion.token_ids]])
        self.policy.model.set_attn_implementation("eager")
        with torch.no_grad():
            logits = self.policy.model(ids).logits[0, len(prompt.token_ids) - 1 : -1].float() / temperature
        own = logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        return float((own - torch.tensor(completion.logprobs)).abs().mean())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved Llama with heads of 64, which vLLM's kernels take."""
    folder, tokenizer = tmp_path_factory.mktemp("served") / "model", make()
    llama = fresh_llama(tokenizer, layers=2, width=128, heads=2, context=256, seed=0)
    Policy(llama, tokenizer, (tokenizer.eos_token_id,)).save(folder)
    return folder


@pytest.fixture(scope="module", params=["local", "two servers of r1kit", "vllm"])
def tested(request: Any, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampler]:
    folder = tmp_path_factory.mktemp("stage")
    with ExitStack() as stack:
        if request.param == "local":
            policy = load(str(model), device="cpu")
            yield Sampler(LocalEngine(policy), load(str(model), device="cpu"), 1e-4)
            return
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if request.param == "vllm":
            urls, tolerance = (stack.enter_context(vllm(model, folder)),), 0.05
        else:
            patch.setenv("R1KIT_API_KEY", "secret")
            engines = [LocalEngine(load(str(model), device="cpu")) for _ in range(2)]
            plain = ChatFormat(template="plain")
            started = [stack.enter_context(served(each, plain, key="secret", weights=folder)) for each in engines]
            urls, tolerance = tuple(each.url.removesuffix("/v1") for each in started), 1e-4
        policy = load(str(model), device="cpu")
        pool = stack.enter_context(open_pool(ServerPoolSettings(urls=urls), policy, folder))
        yield Sampler(pool, policy, tolerance)


class vllm:
    """A real server of vLLM on a GPU, started by its own command line as docs/guides/engines.md says."""

    def __init__(self, model: Path, weights: Path) -> None:
        if find_spec("vllm") is None:
            pytest.skip("vLLM is not installed: pip install 'r1kit[vllm]'")
        if not torch.cuda.is_available():
            pytest.skip("vLLM is tested on a GPU: its CPU kernels repack weights, which then cannot be replaced")
        self.model, self.weights = model, weights

    def __enter__(self) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = shutil.which("vllm", path=Path(sys.executable).parent) or "vllm"
        options = ["--worker-extension-cls", "r1kit.engines.remote.vllm_worker.WeightsFromDisk"]
        options += ["--logprobs-mode", "processed_logprobs", "--gpu-memory-utilization", "0.3"]
        environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "R1KIT_WEIGHTS_FROM": str(self.weights)}
        self.process = subprocess.Popen(
            [command, "serve", str(self.model), "--port", str(port), *options], env=environment
        )
        url, give_up = f"http://127.0.0.1:{port}", time.monotonic() + START_S
        while time.monotonic() < give_up:
            assert self.process.poll() is None, "vLLM ended while it started: its output says why"
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                return url
            except OSError:
                time.sleep(1)
        self.process.kill()
        raise AssertionError(f"vLLM did not start within {START_S:g} s")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)


def test_each_prompt_gets_its_completions_with_their_log_probs_in_order(tested: Sampler) -> None:
    for temperature in (1.0, 0.7):
        groups = tested.sample(n=3, max_tokens=12, temperature=temperature, seed=5)
        assert [len(group) for group in groups] == [3] * len(QUESTIONS)
        for prompt, group in zip(tested.prompts(), groups, strict=True):
            for completion in group:
                assert len(completion.token_ids) == len(completion.logprobs) <= 12
                assert tested.gap(prompt, completion, temperature) < tested.tolerance


def test_seed_problem_and_sample_decide_the_completion(tested: Sampler) -> None:
    first, second = (tested.sample(n=2, max_tokens=10, seed=3) for _ in range(2))
    other = tested.sample(n=2, max_tokens=10, seed=4)
    ids = [[[each.token_ids for each in group] for group in groups] for groups in (first, second, other)]
    if tested.tolerance < 0.01:  # on a GPU, another batch may round otherwise
        assert ids[0] == ids[1]
    assert ids[0] != ids[2]
    assert all(group[0] != group[1] for group in ids[0])
    twice = tested.engine.generate(tested.prompts(QUESTIONS[:1] * 2), SamplingParams(max_tokens=10))
    assert twice[0][0].token_ids != twice[1][0].token_ids


def test_completions_end_at_the_policys_end_or_at_max_tokens(tested: Sampler) -> None:
    ends = set(tested.policy.end_ids)
    reasons = set()
    for group in tested.sample(n=24, max_tokens=40, temperature=1.6, seed=1):
        for completion in group:
            assert ends.isdisjoint(completion.token_ids[:-1])
            assert (completion.finish_reason == "stop") == (completion.token_ids[-1] in ends)
            assert completion.finish_reason == "stop" or len(completion.token_ids) == 40
            shown = completion.token_ids[:-1] if completion.finish_reason == "stop" else completion.token_ids
            assert completion.text == tested.policy.tokenizer.decode(shown, skip_special_tokens=False)
            reasons.add(completion.finish_reason)
    assert reasons == {"stop", "length"}


def test_a_stop_string_ends_the_text_before_it(tested: Sampler) -> None:
    whole = tested.sample(n=4, max_tokens=16, seed=8)
    letter = next(each.text[3] for group in whole for each in group if len(each.text) > 3)
    stopped = tested.sample(n=4, max_tokens=16, seed=8, stop=(letter,))
    texts = [each.text for group in stopped for each in group]
    assert all(letter not in text for text in texts)
    for text, full in zip(texts, (each.text for group in whole for each in group), strict=True):
        if tested.tolerance < 0.01:
            assert text == full.partition(letter)[0]


def test_what_cannot_fit_is_refused_before_any_work(tested: Sampler) -> None:
    with pytest.raises(PromptError, match=r"max_tokens|context"):
        tested.sample(max_tokens=tested.engine.context)
    with pytest.raises(PromptError, match="empty"):
        tested.engine.generate([Prompt(problem_id="none", messages=(), token_ids=())], SamplingParams(max_tokens=3))


def test_new_weights_are_sampled_from_and_named(tested: Sampler) -> None:
    policy, before = tested.policy, tested.sample(n=2, max_tokens=12, seed=2)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)) * 0.2)
    old = [tested.gap(p, each) for p, group in zip(tested.prompts(), before, strict=True) for each in group]
    tested.engine.load_weights(named_weights(policy.model), version=41)
    after = tested.sample(n=2, max_tokens=12, seed=2)
    new = [tested.gap(p, each) for p, group in zip(tested.prompts(), after, strict=True) for each in group]
    assert {each.policy_version for group in after for each in group} == {41}
    assert {each.policy_version for group in before for each in group} == {0}
    assert max(new) < tested.tolerance < 0.1 < sum(old) / len(old)


def test_weights_of_another_model_are_refused(tested: Sampler) -> None:
    weights = dict(named_weights(tested.policy.model))
    with pytest.raises(ValueError, match="nowhere"):
        tested.engine.load_weights([*weights.items(), ("nowhere", torch.zeros(2))], version=42)
