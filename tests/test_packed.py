"""A packed row computes what a plain padded forward pass of transformers computes: log-probs, gradients, entropy."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from r1kit.models import attention, head  # noqa: E402
from r1kit.models.batch import Targets, Totals  # noqa: E402
from r1kit.models.packed import PackedLayout, Span, bucket  # noqa: E402
from r1kit.models.policy_net import LossOutput  # noqa: E402
from r1kit.train.learner import Learner, OptimizerSettings  # noqa: E402
from r1kit.train.losses.policy_gradient import grpo  # noqa: E402
from r1kit.train.losses.policy_settings import PRESETS  # noqa: E402
from r1kit.train.packing import best_fit, pack  # noqa: E402
from r1kit.types import Sample  # noqa: E402

torch.set_num_threads(1)
attention.register()

VOCABULARY = 97
BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
DEEPSEEK: dict[str, Any] = {
    **BASE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "num_nextn_predict_layers": 0,
}
DEEPSEEK_V4: dict[str, Any] = {
    **BASE,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "q_lora_rank": 16,
    "o_lora_rank": 16,
    "o_groups": 2,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "layer_types": ["compressed_sparse_attention", "sliding_attention"],
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**BASE),
    "llama-tied": lambda: transformers.LlamaConfig(**BASE, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**BASE),
    "qwen3": lambda: transformers.Qwen3Config(**BASE, head_dim=8),
    "deepseek-v3": lambda: transformers.DeepseekV3Config(**DEEPSEEK),
    "gemma2": lambda: transformers.Gemma2Config(
        **BASE, head_dim=8, query_pre_attn_scalar=8, attn_logit_softcapping=None, final_logit_softcapping=2.0
    ),
    "granite": lambda: transformers.GraniteConfig(**BASE, logits_scaling=8.0, attention_multiplier=0.3),
    "cohere": lambda: transformers.CohereConfig(**BASE),
    "phi": lambda: transformers.PhiConfig(**BASE),  # its head has a bias
}


def build(name: str, implementation: str = attention.NAME) -> Any:
    """A model with weights large enough that a wrong mask or position shows."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=implementation)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.float().eval()


def sample(rng: random.Random, prompt: Sequence[int], mask: Sequence[bool]) -> Sample:
    """Random tokens after `prompt`, trained on where `mask` says, each with an advantage of its own."""
    whole = [False] * len(prompt) + list(mask)
    return Sample(
        token_ids=[*prompt, *(rng.randrange(3, VOCABULARY) for _ in mask)],
        loss_mask=whole,
        advantages=[rng.gauss(0, 1) if trained else 0.0 for trained in whole],
    )


def groups(seed: int = 0) -> list[Sample]:
    """Three groups of four, one lone sample."""
    rng = random.Random(seed)
    found = []
    for size in (4, 4, 4, 1):
        prompt = [rng.randrange(3, VOCABULARY) for _ in range(rng.randrange(1, 15))]
        found += [sample(rng, prompt, [True] * rng.randrange(1, 20)) for _ in range(size)]
    return found


def documents() -> list[Sample]:
    rng = random.Random(1)
    return [sample(rng, [], [True] * length) for length in (17, 3, 2, 9, 9, 12)]


def conversations() -> list[Sample]:
    """Turns of two speakers, loss on the second: three with one system message, two of them with one question."""
    rng = random.Random(2)
    system = [*range(3, 13)]
    start = [*system, 5, 6, 7]
    turns = [True] * 4 + [False] * 3 + [True] * 5
    others = [sample(rng, [8], [*turns, False, False]), sample(rng, [*system, 9], turns)]
    return [sample(rng, start, turns), *others, sample(rng, start, turns[:9])]


def weighted(logprobs: Any, targets: Targets, totals: Totals) -> LossOutput:
    return LossOutput(-(logprobs * targets.advantages).sum() / totals.num_tokens, {})


def plain(model: Any, samples: Sequence[Sample], temperature: float = 1.0) -> tuple[list[list[float]], dict[str, Any]]:
    """Log-probs of each sample's trained tokens and the gradient of `weighted`, from one right-padded batch."""
    longest = max(len(one.token_ids) for one in samples)
    ids = torch.tensor([[*one.token_ids] + [2] * (longest - len(one.token_ids)) for one in samples])
    there = torch.tensor([[1] * len(one.token_ids) + [0] * (longest - len(one.token_ids)) for one in samples])
    logits = model(input_ids=ids, attention_mask=there).logits[:, :-1].float() / temperature
    logprobs = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    masks = [torch.tensor(one.loss_mask[1:]) for one in samples]
    chosen = [row[: len(mask)][mask] for row, mask in zip(logprobs, masks, strict=True)]
    weights = [torch.tensor(one.advantages[1:])[mask] for one, mask in zip(samples, masks, strict=True)]
    total = sum(len(mask) for mask in chosen)
    loss = -sum((lp * weight).sum() for lp, weight in zip(chosen, weights, strict=True)) / total
    model.zero_grad()
    loss.backward()
    return [lp.tolist() for lp in chosen], gradients(model)


def gradients(model: Any) -> dict[str, Any]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def packed(
    model: Any, samples: Sequence[Sample], budget: int = 10_000, temperature: float = 1.0
) -> tuple[list[list[float]], dict[str, Any]]:
    """The same through the learner, log-probs put back into the samples' order."""
    model.zero_grad()
    learner = Learner(model, OptimizerSettings(), steps=1, temperature=temperature)
    batches = pack(samples, budget)
    learner.forward_backward(batches, weighted, Totals.of(samples))
    found: dict[tuple[Any, ...], list[float]] = {}
    for batch in batches:
        sizes = list(batch.targets.lengths)
        parts = [torch.split(values, sizes) for values in (learner.logprobs(batch), batch.targets.advantages)]
        for logprobs, weights in zip(*parts, strict=True):
            found[tuple(weights.tolist())] = logprobs.tolist()  # advantages are drawn apart, so they name the sample
    trained = [[t for t in range(1, len(one.token_ids)) if one.loss_mask[t]] for one in samples]
    keys = [
        tuple(torch.tensor([one.advantages[t] for t in at]).tolist()) for one, at in zip(samples, trained, strict=True)
    ]
    return [found[key] for key in keys], gradients(model)


def assert_same(one: tuple[Any, Any], other: tuple[Any, Any], tolerance: float = 1e-4) -> None:
    for left, right in zip(one[0], other[0], strict=True):
        assert left == pytest.approx(right, abs=tolerance, rel=tolerance)
    for name in one[1].keys() | other[1].keys():
        torch.testing.assert_close(one[1][name], other[1][name], atol=tolerance, rtol=tolerance, msg=f"{name} differs")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("make", [groups, documents, conversations])
def test_packed_rows_equal_plain_padded_passes(name: str, make: Callable[[], list[Sample]]) -> None:
    assert_same(packed(build(name), make()), plain(build(name, "eager"), make()))


@given(sizes=st.lists(st.integers(1, 40), max_size=60), capacity=st.integers(1, 40))
def test_best_fit_is_the_rule_that_looks_at_every_bin(sizes: list[int], capacity: int) -> None:
    bins, room = list[list[int]](), list[int]()
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        fits = [number for number in range(len(bins)) if room[number] >= sizes[index]]
        number = min(fits, key=lambda number: room[number], default=len(bins))
        if not fits:
            bins.append([])
            room.append(capacity)
        bins[number].append(index)
        room[number] -= sizes[index]
    assert best_fit(sizes, capacity) == bins


@pytest.mark.parametrize("budget", [1, 24, 60, 110, 10_000])
def test_the_token_budget_changes_memory_only(budget: int) -> None:
    model, samples = build("llama"), groups() + documents() + conversations()
    assert_same(packed(model, samples, budget), packed(model, samples), tolerance=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_order_of_samples_changes_nothing_even_where_it_tears_groups_apart(seed: int) -> None:
    model, samples = build("llama"), groups() + conversations()
    order = random.Random(seed).sample(range(len(samples)), len(samples))
    logprobs, grads = packed(model, [samples[index] for index in order], budget=64)
    sorted_back = [logprobs[order.index(index)] for index in range(len(samples))]
    assert_same((sorted_back, grads), packed(model, samples), tolerance=1e-5)


def test_the_chunks_of_the_head_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("llama", "gemma2"):
        model, samples = build(name), groups()
        whole = packed(model, samples)
        monkeypatch.setattr(head, "CHUNK_LOGITS", 1)
        assert_same(packed(model, samples), whole, tolerance=1e-5)
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("preset", ["paper", "gspo", "v3_2", "gmpo", "entropy"])
def test_a_sequence_longer_than_the_heads_chunks_is_cut_and_changes_nothing(
    name: str, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def update() -> tuple[dict[str, float], dict[str, Any]]:
        model.zero_grad()
        sums = Learner(model, OptimizerSettings(), steps=1).forward_backward(pack(given, 4096), loss, Totals.of(given))
        return sums, gradients(model)

    rng, model, loss = random.Random(3), build(name), grpo(PRESETS[preset])
    logprobs = [rng.gauss(-5, 1) for _ in range(200)]
    given = [replace(sample(rng, [5, 6], [True] * n), logprobs=logprobs[: n + 2]) for n in (90, 7, 64, 50)]
    sums, grads = update()
    largest = 0

    def logits(self: head.Head, hidden: Any, temperature: float = 1.0) -> Any:
        nonlocal largest
        largest = max(largest, len(hidden))
        return plain_logits(self, hidden, temperature)

    plain_logits = head.Head.logits
    monkeypatch.setattr(head.Head, "logits", logits)
    monkeypatch.setattr(head.Head, "chunk_size", lambda self: 16)
    monkeypatch.setattr("r1kit.models.policy_net.WHOLE_CHUNKS", 1)
    cut_sums, cut_grads = update()
    assert largest == 16
    assert cut_sums == pytest.approx(sums, rel=1e-5, abs=1e-6)
    for key, grad in grads.items():
        torch.testing.assert_close(cut_grads[key], grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite"])
def test_a_temperature_divides_the_logits_that_the_model_itself_would_give(name: str) -> None:
    expected = plain(build(name, "eager"), groups(), temperature=0.6)
    assert_same(packed(build(name), groups(), temperature=0.6), expected)


def test_entropy_is_that_of_the_models_distribution() -> None:
    samples = documents()[:1]
    for name in ("llama", "gemma2"):
        logits = build(name, "eager")(torch.tensor([samples[0].token_ids])).logits[0, :-1]
        expected = torch.distributions.Categorical(logits=logits).entropy().mean().item()
        learner = Learner(build(name), OptimizerSettings(), steps=1)
        found = learner.forward_backward(pack(samples, 100), weighted, Totals.of(samples))["entropy"]
        assert found == pytest.approx(expected, abs=1e-5)


def test_a_shared_prompt_is_computed_once() -> None:
    samples = groups()[:4]
    prompt = samples[0].loss_mask.index(True)
    (batch,) = pack(samples, 10_000)
    assert batch.num_tokens == prompt + sum(len(one.token_ids) - prompt for one in samples)


def test_what_prompts_begin_with_is_computed_once_for_those_that_share_it() -> None:
    rng, system, other = random.Random(0), [*range(3, 23)], [*range(13, 3, -1)]
    prompts = [[*begin, 3 + number] for number in range(3) for begin in (system, other)] + [[*other[:5], 20], []]
    samples = [sample(rng, prompt, [True] * 4) for prompt in prompts]
    once = sum(len(one.token_ids) for one in samples) - 2 * len(system) - 2 * len(other)
    assert sum(batch.num_tokens for batch in pack(samples, 10_000)) == once
    trained = sample(rng, [], [True] * 24)  # each of its tokens is predicted, and so part of the loss
    assert sum(batch.num_tokens for batch in pack([trained, trained], 10_000)) == 48


sequences = st.lists(st.integers(3, 9), min_size=1, max_size=8)


@given(
    st.lists(st.tuples(sequences, st.lists(st.booleans(), min_size=1, max_size=6)), min_size=1, max_size=12),
    st.integers(1, 40),
)
def test_packing_keeps_every_target_once_and_within_the_budget(
    drawn: list[tuple[list[int], list[bool]]], budget: int
) -> None:
    samples = [
        Sample(token_ids=[*prompt, *([4] * len(mask))], loss_mask=[False] * len(prompt) + mask)
        for prompt, mask in drawn
        if any(mask)
    ]
    pairs, longest = [], max((len(one.token_ids) for one in samples), default=0)
    for batch in pack(samples, budget):
        assert batch.num_tokens <= max(budget, longest)
        before = batch.token_ids[0][batch.targets.positions].tolist()
        pairs += list(zip(before, batch.targets.token_ids.tolist(), strict=True))
        assert len(before) == sum(batch.targets.lengths)
    expected = [
        (one.token_ids[t - 1], one.token_ids[t])
        for one in samples
        for t in range(1, len(one.token_ids))
        if one.loss_mask[t]
    ]
    assert sorted(pairs) == sorted(expected)
    assert Totals.of(samples).num_tokens == len(expected)


@given(st.lists(st.integers(1, 50), max_size=30))
def test_buckets_hold_every_sequence_and_waste_little(lengths: list[int]) -> None:
    buckets = bucket(lengths)
    assert sorted(index for one in buckets for index in one) == list(range(len(lengths)))
    for one in buckets:
        assert max(lengths[i] for i in one) * len(one) <= 1.15 * sum(lengths[i] for i in one)


def test_one_long_sequence_does_not_make_the_short_ones_long() -> None:
    layout = PackedLayout([Span(400, (300, *[3] * 15)), *[Span(5, (4,))] * 50])
    for paddings in (layout.prompt_paddings, [block.padding for block in layout.blocks]):
        assert sum(pad.shape[0] * pad.shape[1] for pad in paddings) <= 2 * sum(sum(pad.lengths) for pad in paddings)


def tensors(value: Any) -> list[Any]:
    """All tensors below a batch."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value if isinstance(value, list | tuple) else vars(value).values() if hasattr(value, "__dict__") else ()
    return [tensor for part in parts for tensor in tensors(part)]


def test_packed_batches_hold_no_masks() -> None:
    """16 prompts with 16 completions of up to 3000 tokens: memory grows with the tokens, not with their square."""
    rng = random.Random(0)
    given = []
    for number in range(16):
        longest = rng.randrange(1000, 3000)
        for _ in range(16):
            size = rng.randrange(longest // 2, longest)
            mask = [False] * 100 + [True] * size
            given.append(Sample(token_ids=[number] * len(mask), loss_mask=mask))
    batches = pack(given, 8192)
    size = sum(tensor.numel() * tensor.element_size() for batch in batches for tensor in tensors(batch))
    assert len(tensors(batches[0])) > 8 and size < 100 * sum(batch.num_tokens for batch in batches)


def test_a_sample_without_a_trained_token_is_refused() -> None:
    with pytest.raises(ValueError, match="no token to train on"):
        pack([Sample(token_ids=[1, 2], loss_mask=[False, False])], 100)


def test_attention_that_is_not_computed_is_refused() -> None:
    batch = pack(groups(), 10_000)[0]
    config = transformers.DeepseekV4Config(**DEEPSEEK_V4)  # its layers add compressed keys to those of the row
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME)
    with pytest.raises(ValueError, match="keys for"):
        Learner(model, OptimizerSettings(), steps=1).logprobs(batch)


def test_layouts_of_other_samples_do_not_leak_into_a_sequence() -> None:
    model, samples = build("deepseek-v3"), groups()
    changed = [replace(one, token_ids=[3] * len(one.token_ids)) for one in samples[4:]]
    logprobs, _ = packed(model, samples)
    others, _ = packed(model, samples[:4] + changed)
    for left, right in zip(logprobs[:4], others[:4], strict=True):
        assert left == pytest.approx(right, abs=1e-5)
