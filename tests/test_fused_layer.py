"""Layers of Llama's form in few passes give what their own code gives, and only layers that do are taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from r1kit.models import attention, compute  # noqa: E402
from r1kit.models.fused_layer import FusedLayer, has_form  # noqa: E402
from r1kit.models.packed import PackedLayout, Span  # noqa: E402
from r1kit.models.policy_net import hidden_states  # noqa: E402
from r1kit.models.preflight import choose_path  # noqa: E402
from r1kit.models.recompute import recompute_activations  # noqa: E402

attention.register()
SIZES = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
LAYOUT = PackedLayout([Span(20, (90, 7)), Span(0, (30,))])  # more rows than `fused_layer.ROWS`
FUSED = {"Llama": {}, "Qwen2": {}, "Mistral": {"sliding_window": 6}, "Qwen2 window": {"use_sliding_window": True}}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 32}
OTHERS = {  # norms on queries and keys, multipliers, norms of 1 + weight, a rotation of neighbours, queries that grow
    "Qwen3": {},
    "Granite": {"residual_multiplier": 0.5, "attention_multiplier": 0.3},
    "Gemma": {},
    "Helium": {},
    "Ministral3": {"rope_parameters": {**YARN, "llama_4_scaling_beta": 0.1}},
}


@pytest.fixture(autouse=True)
def _pack_small_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(compute, "SMALL", 0)
    yield


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name.split()[0]}Config")(**SIZES, **options, attn_implementation=attention.NAME)
    if name == "Qwen2 window":
        config.sliding_window, config.layer_types = 6, ["full_attention", "sliding_attention"]
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # also norms and biases
    choose_path(model, name)
    return model


def passes(model: Any) -> tuple[Any, dict[str, Any]]:
    """Hidden states of a packed row, and the gradient of their product with random numbers."""
    generator = torch.Generator().manual_seed(1)
    row = torch.randint(3, 100, (1, len(LAYOUT.position_ids)), generator=generator)
    model.zero_grad()
    with compute.packed_weights(model):
        hidden = hidden_states(model, row, LAYOUT)
        hidden.backward(torch.randn(hidden.shape, generator=generator))
    return hidden.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def error(one: Any, other: Any) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_layer_gives_the_states_and_gradients_of_the_layers_own_code(name: str) -> None:
    model = build(name, **FUSED[name])
    assert model.fuses_layers
    with compute.packed_weights(model), compute.computing(model):  # the outer block packs: two layers, and the head
        packed = [module.packed for module in model.modules() if hasattr(module, "packed")]
        assert sum(isinstance(each, FusedLayer) for each in packed) == 2 and len(packed) == 3
    assert not any("packed" in vars(module) or "forward" in vars(module) for module in model.modules())
    hidden, gradients = passes(model)
    model.fuses_layers = False
    own_hidden, own = passes(model)
    assert error(hidden, own_hidden) < 1e-5
    assert gradients.keys() == own.keys()
    for key, gradient in gradients.items():
        assert error(gradient, own[key]) < 1e-5, key


@pytest.mark.skipif(not compute.has_bf16_kernels(), reason="this processor has no bf16 kernels")
def test_in_bf16_a_fused_layer_is_as_exact_as_the_layers_own_code() -> None:
    model = build("Llama")
    exact, errors = passes(model)[1], {}
    model.compute_dtype = torch.bfloat16
    for fused in (True, False):
        model.fuses_layers = fused
        errors[fused] = [error(gradient, exact[key]) for key, gradient in passes(model)[1].items()]
    assert 0 < sum(errors[True]) < 1.1 * sum(errors[False])


@pytest.mark.parametrize("name", OTHERS)
def test_a_layer_that_computes_something_else_keeps_its_own_code(name: str) -> None:
    assert not build(name, **OTHERS[name]).fuses_layers


def test_a_layer_that_is_changed_keeps_its_own_code() -> None:
    model = build("Llama")
    first, second = model.model.layers
    assert has_form(first) and has_form(second)
    first.self_attn.q_proj.register_forward_hook(lambda *_: None)
    second.mlp.up_proj.weight.requires_grad_(False)
    assert not has_form(first) and not has_form(second)
    model = build("Llama")
    recompute_activations(model)
    assert not any(has_form(layer) for layer in model.model.layers)
