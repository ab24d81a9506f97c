"""Packed rows and the decode cache compute, for the architectures of 2026, what the models' own code computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from r1kit.models import attention, preflight  # noqa: E402
from r1kit.models.cached import DecodeLayout, KVCache, PrefillLayout  # noqa: E402
from r1kit.models.head import Head  # noqa: E402
from r1kit.models.packed import PackedLayout, Span  # noqa: E402
from r1kit.models.plain import plain_path  # noqa: E402
from r1kit.models.policy_net import hidden_states  # noqa: E402
from r1kit.models.recompute import recompute_activations  # noqa: E402

torch.set_num_threads(1)
attention.register()

BASE: dict[str, Any] = {
    "vocab_size": 97,
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
EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SHARED = {**EXPERTS, "shared_expert_intermediate_size": 16}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
DELTA: dict[str, Any] = {
    **BASE,
    "head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
MAMBA: dict[str, Any] = {
    **BASE,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_n_groups": 2,
    "mamba_chunk_size": 16,
}
KIMI: dict[str, Any] = {
    **BASE,
    **LOCAL_EXPERTS,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
NEMOTRON: dict[str, Any] = {
    **BASE,
    "head_dim": 8,
    "num_hidden_layers": 4,
    "layers_block_type": ["mamba", "attention", "moe", "mamba"],
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "ssm_state_size": 8,
    "n_groups": 2,
    "chunk_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
}
CONV = {**BASE, "layer_types": ["conv", "full_attention"]}
WINDOW = {**BASE, "head_dim": 8, "sliding_window": 5}
SLIDING = ["sliding_attention", "full_attention"]
STATEFUL: dict[str, Callable[[], Any]] = {
    "qwen3.5": lambda: transformers.Qwen3_5TextConfig(**DELTA),
    "qwen3.5-moe": lambda: transformers.Qwen3_5MoeTextConfig(**DELTA, **SHARED),
    "qwen3-next": lambda: transformers.Qwen3NextConfig(**DELTA, **SHARED),
    "kimi-linear": lambda: transformers.KimiLinearConfig(**KIMI),
    "lfm2": lambda: transformers.Lfm2Config(**CONV),
    "lfm2-moe": lambda: transformers.Lfm2MoeConfig(**CONV, **EXPERTS, num_dense_layers=1),
    "lfm3": lambda: transformers.Lfm3Config(**CONV),
    "nemotron-h": lambda: transformers.NemotronHConfig(**NEMOTRON),
    "granite-4-h": lambda: transformers.GraniteMoeHybridConfig(
        **MAMBA, **LOCAL_EXPERTS, layer_types=["mamba", "attention"], shared_intermediate_size=16
    ),
    "falcon-h1": lambda: transformers.FalconH1Config(**MAMBA, head_dim=8, mamba_d_ssm=64),
    "bamba": lambda: transformers.BambaConfig(**MAMBA, attn_layer_indices=[1]),
    "olmo-hybrid": lambda: transformers.OlmoHybridConfig(**BASE),
}
ATTENTIVE: dict[str, Callable[[], Any]] = {
    "gpt-oss": lambda: transformers.GptOssConfig(**WINDOW, **LOCAL_EXPERTS, layer_types=SLIDING),
    "gemma2": lambda: transformers.Gemma2Config(
        **WINDOW, query_pre_attn_scalar=8, attn_logit_softcapping=2.0, layer_types=SLIDING
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(**WINDOW, query_pre_attn_scalar=8, layer_types=SLIDING),
    "mistral": lambda: transformers.MistralConfig(**WINDOW),
}
CONFIGS = STATEFUL | ATTENTIVE
# prompts of equal and of different length, a completion of one token, documents without a prompt
SPANS = [Span(7, (9, 12, 1, 3)), Span(4, (20, 2)), Span(7, (5,)), Span(0, (11, 3))]


def build(name: str) -> Any:
    """A model with weights large enough that a leak shows."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[name]()).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    preflight.choose_path(model, name)
    return model


def tokens(*shape: int, seed: int) -> Any:
    return torch.randint(3, 97, shape, generator=torch.Generator().manual_seed(seed))


def sequences() -> Iterator[tuple[list[int], list[int]]]:
    """Places in the packed row of each completion's prompt and of its own tokens."""
    prompt, own = 0, sum(span.prompt for span in SPANS)
    for span in SPANS:
        for length in span.completions:
            yield list(range(prompt, prompt + span.prompt)), list(range(own, own + length))
            own += length
        prompt += span.prompt


def gradients(model: Any, logprobs: Any) -> dict[str, Any]:
    """Gradients of a weighted sum of the log-probs; the model is left without."""
    weights = torch.randn(len(logprobs), generator=torch.Generator().manual_seed(3))
    (logprobs * weights).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def packed(model: Any, ids: Any) -> Any:
    """Log-probs of each completion's own tokens at their own places, one flat run."""
    logprobs = Head.of(model).logits(hidden_states(model, ids[None], PackedLayout(SPANS))).log_softmax(-1)
    return torch.cat([logprobs[own].gather(1, ids[own][:, None])[:, 0] for _, own in sequences()])


def one_by_one(model: Any, ids: Any) -> Any:
    """The same by the model's own code, without any other sequence."""
    model.set_attn_implementation("eager")
    rows = []
    for prompt, own in sequences():
        logprobs = model(ids[prompt + own][None]).logits[0, len(prompt) :].float().log_softmax(-1)
        rows.append(logprobs.gather(1, ids[own][:, None])[:, 0])
    model.set_attn_implementation(attention.NAME)
    return torch.cat(rows)


@pytest.mark.parametrize("name", CONFIGS)
def test_log_probs_and_gradients_of_packed_rows_equal_one_by_one_passes(name: str) -> None:
    model = build(name)
    ids = tokens(sum(span.prompt + sum(span.completions) for span in SPANS), seed=1)
    ours, theirs = packed(model, ids), one_by_one(model, ids)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    own, right = gradients(model, ours), gradients(model, theirs)
    assert own.keys() == right.keys()
    # of a decay's bias it is a small difference of large terms
    whole = torch.stack([grad.norm() for grad in right.values()]).norm()
    for key, grad in right.items():
        assert float((own[key] - grad).norm()) <= 1e-5 * float(grad.norm()) + 1e-7 * float(whole), key


@pytest.mark.parametrize("name", CONFIGS)
def test_the_architectures_of_2026_take_packed_rows(name: str) -> None:
    model = build(name)
    assert plain_path(model) is None and model.config._attn_implementation == attention.NAME


@pytest.mark.parametrize("name", ATTENTIVE)
def test_windows_are_as_long_after_the_check_as_before(name: str) -> None:
    model = build(name)
    windows = {part.sliding_window for part in model.modules() if getattr(part, "sliding_window", None)}
    assert model.config.sliding_window == WINDOW["sliding_window"] and windows <= {WINDOW["sliding_window"]}


@pytest.mark.parametrize("name", STATEFUL)
def test_a_state_that_leaks_into_the_next_sequence_is_seen_by_a_wide_margin(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "fork_states", lambda model: [])
    monkeypatch.setattr(preflight, "TOLERANCE", 500 * preflight.TOLERANCE)
    assert "logits differ" in str(plain_path(build(name)))


@pytest.mark.parametrize("name", ATTENTIVE)
def test_a_window_a_cap_and_sinks_that_are_ignored_are_seen(name: str) -> None:
    def ignorant(*args: Any, **kwargs: Any) -> Any:
        return attention.attention(*args, **kwargs | {"sliding_window": None, "softcap": None, "s_aux": None})

    transformers.AttentionInterface.register(attention.NAME, ignorant)
    try:
        assert "logits differ" in str(plain_path(build(name)))
    finally:
        attention.register()


@pytest.mark.parametrize("part", ["packed rows", "cache"])
def test_a_window_longer_than_the_check_is_checked_all_the_same(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WINDOW, "sliding_window", 100)
    assert plain_path(build("mistral")) is None
    if part == "cache":
        right = DecodeLayout.bias
        monkeypatch.setattr(DecodeLayout, "bias", lambda self, window: right(self, None))
    else:
        monkeypatch.setattr("r1kit.models.packed.causal_attention", causal)
    assert "logits differ" in str(plain_path(build("mistral")))


def causal(q: Any, k: Any, v: Any, softmax: attention.Softmax) -> Any:
    return attention.causal_attention(q, k, v, softmax._replace(window=None))


@pytest.mark.parametrize("name", ["qwen3.5", "falcon-h1", "gpt-oss"])
def test_recomputed_activations_give_the_same_gradients(name: str) -> None:
    model = build(name)
    ids = tokens(sum(span.prompt + sum(span.completions) for span in SPANS), seed=1)
    kept = gradients(model, packed(model, ids))
    recompute_activations(model)
    for key, grad in gradients(model, packed(model, ids)).items():
        torch.testing.assert_close(grad, kept[key], atol=1e-7, rtol=1e-6)


STEPS, LEAVES_AFTER = 12, (3, 6)  # tokens of each completion; steps after which the second row leaves


@pytest.mark.parametrize("shared", [0, 3])
@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_log_probs_of_cached_passes_equal_one_by_one_passes(name: str, shared: int) -> None:
    model, lengths, samples = build(name), (4, 1, 4, 6), (2, 3, 1, 2)
    prefix, rest = tokens(shared, seed=1), tokens(sum(lengths), seed=2)
    completions = tokens(sum(samples), STEPS, seed=3)
    prompts = [torch.cat([prefix, own]) for own in rest.split(lengths)]
    rows = [prompt for prompt, n in zip(prompts, samples, strict=True) for _ in range(n)]
    model.set_attn_implementation("eager")
    expected = [
        model(torch.cat([prompt, own])[None]).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        for prompt, own in zip(rows, completions, strict=True)
    ]
    model.set_attn_implementation(attention.NAME)

    starts = torch.tensor((0, *samples)).cumsum(0).tolist()
    cache = KVCache(len(rows), shared)
    slots = [range(start, start + n) for start, n in zip(starts, samples, strict=False)]
    layout: Any = PrefillLayout(cache, lengths, slots, "cpu")
    hidden = forward(model, torch.cat([prefix, rest])[None], layout.position_ids[None], layout)[0]
    ends = shared + torch.tensor(lengths).cumsum(0) - 1
    hidden = hidden[ends].repeat_interleave(torch.tensor(samples), dim=0)  # [rows, d]
    active = list(range(len(rows)))
    for step in range(STEPS):
        for row, logprobs in zip(active, Head.of(model).logits(hidden).log_softmax(-1), strict=True):
            torch.testing.assert_close(logprobs, expected[row][step], atol=1e-4, rtol=0)
        if step in LEAVES_AFTER:
            cache.move(len(active) - 1, 1)
            active[1] = active[-1]
            active.pop()
        layout = DecodeLayout(cache, cache.reserve(len(active), 1, torch.device("cpu")))
        hidden = forward(model, completions[active, step][:, None], layout.position_ids, layout)[:, 0]


def forward(model: Any, ids: Any, position_ids: Any, layout: Any) -> Any:
    output = model.base_model(input_ids=ids, position_ids=position_ids, layout=layout, use_cache=False)
    return output.last_hidden_state


def test_the_soft_cap_of_a_composite_configuration_is_applied() -> None:
    """Gemma 4 names it in the text model's part."""
    model, hidden = build("mistral"), 100 * torch.ones(1, BASE["hidden_size"])
    free = Head.of(model).logits(hidden)
    text = {**BASE, "head_dim": 8, "layer_types": SLIDING, "final_logit_softcapping": 2.0}
    model.config = transformers.Gemma4Config(text_config=text)
    torch.testing.assert_close(Head.of(model).logits(hidden), 2 * torch.tanh(free / 2))
