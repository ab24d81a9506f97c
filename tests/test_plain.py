"""The plain path: the model's own code gives the numbers of sequences alone, in training and in generation."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from conftest import deepseek, llama, small  # noqa: E402
from r1kit.engines.local import LocalEngine, decoders  # noqa: E402
from r1kit.models import attention, compute  # noqa: E402
from r1kit.models.batch import Totals  # noqa: E402
from r1kit.models.known import ModelError  # noqa: E402
from r1kit.models.load import Policy, place  # noqa: E402
from r1kit.models.plain import PlainPath  # noqa: E402
from r1kit.models.policy_net import hidden_states  # noqa: E402
from r1kit.models.preflight import checked_plain_path  # noqa: E402
from r1kit.tiny.tokenizer import make  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS  # noqa: E402
from r1kit.train.packing import pack  # noqa: E402
from r1kit.types import Prompt, Sample, SamplingParams  # noqa: E402

torch.set_num_threads(1)
attention.register()

TOKENIZER = make()
BASE = small()
MAMBA: dict[str, Any] = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
DELTA: dict[str, Any] = {
    "head_dim": 8,
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "qwen3-next": lambda: transformers.Qwen3NextConfig(
        **BASE,
        **DELTA,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
    "qwen3.5": lambda: transformers.Qwen3_5TextConfig(**BASE, **DELTA),
    "lfm2": lambda: transformers.Lfm2Config(**BASE, layer_types=["conv", "full_attention"]),
    "falcon-h1": lambda: transformers.FalconH1Config(**BASE, **MAMBA, mamba_d_ssm=64),
    "granite-4-h": lambda: transformers.GraniteMoeHybridConfig(
        **BASE,
        **MAMBA,
        layer_types=["mamba", "attention"],
        num_local_experts=4,
        num_experts_per_tok=2,
        shared_intermediate_size=16,
    ),
    "mamba2": lambda: transformers.Mamba2Config(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        num_hidden_layers=2,
        num_heads=4,
        head_dim=16,
        state_size=8,
        n_groups=1,
    ),
    "gemma2": lambda: transformers.Gemma2Config(**BASE, head_dim=8, sliding_window=8),
    "gemma3": lambda: transformers.Gemma3TextConfig(**BASE, head_dim=8, sliding_window=8),
    "gpt-oss": lambda: transformers.GptOssConfig(
        **BASE, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "roberta": lambda: transformers.RobertaConfig(**BASE, is_decoder=True),  # its positions depend on padding tokens
    "bloom": lambda: transformers.BloomConfig(vocab_size=len(TOKENIZER), hidden_size=32, n_layer=2, n_head=4),
}


def build(name: str) -> Any:
    """A model with weights as large as those of a trained one, on the plain path even if packed rows compute it."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[name]()).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    with torch.no_grad():
        model.plain_path = checked_plain_path(model, name, "of the test")
    return model


def groups() -> list[Sample]:
    """Three groups whose completions differ in length, with an advantage for each token."""
    rng = random.Random(0)
    samples = []
    for size, prompt in ((3, 7), (3, 12), (1, 5)):
        shared = [rng.randrange(3, len(TOKENIZER)) for _ in range(prompt)]
        for _ in range(size):
            own = [rng.randrange(3, len(TOKENIZER)) for _ in range(rng.randrange(1, 14))]
            mask = [False] * prompt + [True] * len(own)
            advantages = [rng.gauss(0, 1) if trained else 0.0 for trained in mask]
            samples.append(Sample(token_ids=[*shared, *own], loss_mask=mask, advantages=advantages))
    return samples


def logprobs_alone(model: Any, sample: Sample) -> Any:
    """Log-probs of a sample's trained tokens from one pass of the model's own code over the sample alone."""
    ids = torch.tensor(sample.token_ids)
    logprobs = model(ids[None], use_cache=False).logits[0, :-1].float().log_softmax(-1)
    return logprobs.gather(1, ids[1:, None])[:, 0][torch.tensor(sample.loss_mask[1:])]


def logprobs_of(model: Any, samples: list[Sample]) -> list[Any]:
    """Log-probs of each sample's trained tokens as the learner computes them."""
    learner = Learner(model, OptimizerSettings(), steps=1)
    by_sample = {}
    for batch in pack(samples, 60, model):
        parts = learner.logprobs(batch).split(list(batch.targets.lengths))
        by_sample |= dict(zip(batch.order, parts, strict=True))
    return [by_sample[index] for index in range(len(samples))]


def gradients(model: Any, samples: list[Sample], packed_for: Any = None) -> tuple[dict[str, float], dict[str, Any]]:
    """The metrics of a GRPO update and its gradients, from batches that share prompts unless they are for a model."""
    learner = Learner(model, OptimizerSettings(), steps=1)
    metrics = learner.forward_backward(pack(samples, 60, packed_for), grpo(PRESETS["grpo"]), Totals.of(samples))
    return metrics, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_log_probs_and_gradients_are_those_of_samples_alone(name: str) -> None:
    model, samples = build(name), groups()
    expected = [logprobs_alone(model, sample) for sample in samples]
    for ours, theirs in zip(logprobs_of(model, samples), expected, strict=True):
        assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-4)
    # on-policy, the gradient of GRPO is that of advantage times log-prob, a mean over tokens and then over samples
    total = sum(
        (logprobs * torch.tensor(sample.advantages)[torch.tensor(sample.loss_mask)]).mean()
        for logprobs, sample in zip(expected, samples, strict=True)
    )
    (-total / len(samples)).backward()
    alone = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    old = [[0.0] * (len(s.token_ids) - len(x)) + x.tolist() for s, x in zip(samples, expected, strict=True)]
    on_policy = [
        Sample(token_ids=s.token_ids, loss_mask=s.loss_mask, advantages=s.advantages, logprobs=x)
        for s, x in zip(samples, old, strict=True)
    ]
    _, ours = gradients(model, on_policy, packed_for=model)
    norm = torch.stack([g.norm() for g in alone.values()]).norm()
    gap = torch.stack([(ours[name] - g).norm() for name, g in alone.items()]).norm()
    assert norm > 0 and float(gap / norm) < 1e-5


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sampled_log_probs_are_recomputed_ones_whatever_runs_beside(name: str) -> None:
    policy = Policy(build(name), TOKENIZER, tuple(range(20)))  # likely ends, so that lengths differ
    prompts = [
        Prompt(problem_id=str(n), messages=(), token_ids=tuple(range(30 + n, 33 + 2 * n + n % 2))) for n in range(5)
    ]
    params = SamplingParams(n=3, max_tokens=14)
    completions = LocalEngine(policy, max_rows=7).generate(prompts, params)
    together = LocalEngine(policy).generate(prompts, params)
    assert [c.token_ids for group in completions for c in group] == [c.token_ids for group in together for c in group]
    for prompt, group in zip(prompts, completions, strict=True):
        for completion in group:
            ids = [*prompt.token_ids, *completion.token_ids]
            mask = [False] * len(prompt.token_ids) + [True] * len(completion.token_ids)
            expected = logprobs_alone(policy.model, Sample(token_ids=ids, loss_mask=mask))
            assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    assert len({len(c.token_ids) for group in completions for c in group}) > 2


@pytest.mark.parametrize("path", [PlainPath(""), PlainPath("", pads_right=False, pads_left=False, forks=False)])
def test_both_paths_give_a_llama_the_same_numbers_and_the_same_tokens(path: PlainPath) -> None:
    packed, own = llama(), llama()
    own.set_attn_implementation("eager")
    own.plain_path = path
    samples = groups()
    metrics, grads = gradients(packed, samples)
    for packed_for in (None, own):  # batches with shared prompts, such as a student's for its teacher, and without
        own.zero_grad()
        own_metrics, own_grads = gradients(own, samples, packed_for)
        assert own_metrics == pytest.approx(metrics, rel=1e-4, abs=1e-6)
        for name, grad in grads.items():
            assert torch.allclose(own_grads[name], grad, atol=1e-6)
    prompts = [Prompt(problem_id=str(n), messages=(), token_ids=tuple(range(30, 33 + n))) for n in range(4)]
    params = SamplingParams(n=3, max_tokens=12)
    ours, theirs = (
        LocalEngine(Policy(m, TOKENIZER, tuple(range(20))), max_rows=8).generate(prompts, params) for m in (own, packed)
    )
    assert [c.token_ids for group in ours for c in group] == [c.token_ids for group in theirs for c in group]


def test_a_prompt_is_computed_once_for_its_group_and_ended_rows_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []

    class Counted(decoders.PlainCache):
        def _forward(self, **options: Any) -> Any:
            rows.append(self.rows)
            return super()._forward(**options)

    monkeypatch.setattr(decoders, "PlainCache", Counted)
    model = build("gemma3")
    prompt = Prompt(problem_id="p", messages=(), token_ids=(40, 41, 42))
    (group,) = LocalEngine(Policy(model, TOKENIZER, tuple(range(30)))).generate(
        [prompt], SamplingParams(n=16, max_tokens=30)
    )
    lengths = [len(completion.token_ids) for completion in group]
    live = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert rows[0] == 1 and rows[1] >= live[0] and len(rows) == max(lengths)
    assert all(count <= kept < count / 0.75 + 1 for count, kept in zip(live, rows[1:], strict=True))


@pytest.mark.skipif(not compute.has_bf16_kernels(), reason="this processor does not multiply in bf16")
def test_code_that_mixes_precisions_computes_in_fp32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bloom adds products of bf16 to numbers in fp32, which torch refuses; RoBERTa and gpt-oss do not."""
    monkeypatch.setattr(compute, "SMALL", 0)
    monkeypatch.setattr(compute, "measure", lambda model: {"bf16": 1.0, "fp32": 9.0})
    for name, dtype in (("bloom", torch.float32), ("roberta", torch.bfloat16), ("gpt-oss", torch.bfloat16)):
        place(model := build(name), "cpu", "auto")
        assert compute.compute_dtype_of(model) == dtype, name
        assert bool(compute.rounding_obstacle(model)) == (dtype == torch.float32), name
        policy = Policy(model, TOKENIZER, (1,))
        prompt = Prompt(problem_id="p", messages=(), token_ids=(40, 41, 42))
        LocalEngine(policy).generate([prompt], SamplingParams(n=2, max_tokens=3))
    for dtypes in (("bf16", "fp32"), ("auto", "bf16")):
        with pytest.raises(ModelError, match=r"bloom does not run on a CPU with linear layers in bf16 .* to fp32"):
            place(build("bloom"), "cpu", *dtypes)


def test_ties_between_equal_tokens_are_seen() -> None:
    """Beyond its window, Doge keeps the keys of highest score: equal tokens tie, and how ties end differs by pass."""
    torch.manual_seed(1)
    model = transformers.DogeForCausalLM(transformers.DogeConfig(**BASE)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        with pytest.raises(ModelError, match="token by token it differs from one pass"):
            checked_plain_path(model, "doge", "of the test")


def test_a_configuration_without_a_pad_token_takes_the_plain_path() -> None:
    config = transformers.CodeGenConfig(vocab_size=len(TOKENIZER), n_embd=32, n_layer=2, n_head=4, rotary_dim=4)
    assert not hasattr(config, "pad_token_id")
    with torch.no_grad():
        assert checked_plain_path(transformers.CodeGenForCausalLM(config).eval(), "codegen", "of the test").forks


def test_the_router_counts_the_tokens_of_padded_rows_once() -> None:
    """Loads of DeepSeek's experts are the same on both paths: padding counts for no sample."""
    packed, own = deepseek(), deepseek()
    own.plain_path = PlainPath("")
    own.set_attn_implementation("eager")
    loads = []
    for model in (packed, own):
        learner = Learner(model, OptimizerSettings(), steps=1)
        learner.forward_backward(pack(groups(), 60, model), grpo(PRESETS["grpo"]), Totals.of(groups()))
        loads.append(torch.stack(learner.router.loads))
    assert torch.equal(*loads) and float(loads[0].sum()) > 0
    layout = pack(groups(), 60, packed)[0].layout
    before = layout.samples_per_token
    hidden_states(own, torch.ones(1, len(before), dtype=torch.long), layout)  # a teacher beside a packed student
    assert layout.samples_per_token is before and float(before.max()) > 1
