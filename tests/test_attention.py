"""Chunked causal attention computes plain softmax attention: outputs, gradients, grouped heads, windows, bf16."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from r1kit.models.attention import CHUNK, Softmax, causal_attention, fused_attention  # noqa: E402

torch.set_num_threads(1)
SHAPES = [  # sequences, query heads, key heads, queries, keys, width of keys, width of values
    (2, 4, 2, CHUNK + 3, CHUNK + 3, 8, 8),  # a last chunk of three
    (3, 6, 2, 5, 12, 8, 4),  # seven keys of a shared prompt; narrow values, as MLA has them
    (1, 2, 2, 2 * CHUNK, 2 * CHUNK + 7, 8, 8),
    (1, 2, 1, 1, 1, 8, 8),
]


VARIANTS = {
    "plain": {},
    "window": {"window": 5},
    "long window": {"window": CHUNK + 9},
    "cap": {"cap": 2.0},
    "sinks": {"sinks": True},
    "all": {"window": 7, "cap": 3.0, "sinks": True},
}


def results(function: Any, inputs: list[Any], dtype: Any, variant: str = "plain") -> list[Any]:
    """Output and gradients of q, k, v and the sinks."""
    settings = dict(VARIANTS[variant])
    leaves = [x.to(dtype).requires_grad_() for x in inputs[:3]]
    if settings.pop("sinks", False):
        leaves.append(torch.linspace(-2, 4, leaves[0].shape[1], dtype=dtype).requires_grad_())
    out = function(*leaves[:3], Softmax(0.3, sinks=leaves[3] if leaves[3:] else None, **settings))
    out.backward(inputs[3].to(dtype))
    return [out.detach().double(), *(x.grad.double() for x in leaves)]


def plain(q: Any, k: Any, v: Any, softmax: Softmax) -> Any:
    """Softmax over the visible keys, written down as in a textbook."""
    k, v = with_all_heads(q, k, v)
    scores = q @ k.transpose(2, 3) * softmax.scale
    if softmax.cap:
        scores = softmax.cap * torch.tanh(scores / softmax.cap)
    places = torch.arange(k.shape[2])
    behind = places[k.shape[2] - q.shape[2] :, None] - places  # of each key behind each query
    scores = scores.masked_fill((behind < 0) | (behind >= (softmax.window or k.shape[2])), float("-inf"))
    weights = scores.exp()
    total = weights.sum(-1, keepdim=True)
    if softmax.sinks is not None:
        total = total + softmax.sinks.exp()[:, None, None]
    return weights / total @ v


def with_all_heads(q: Any, k: Any, v: Any) -> list[Any]:
    return [x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v)]


def fused(q: Any, k: Any, v: Any, softmax: Softmax) -> Any:
    """What a GPU computes, here on a CPU."""
    return fused_attention(q, *with_all_heads(q, k, v), softmax)


def tensors(shape: tuple[int, ...]) -> list[Any]:
    rows, heads, key_heads, queries, keys, wide, narrow = shape
    torch.manual_seed(0)
    sizes = [(heads, queries, wide), (key_heads, keys, wide), (key_heads, keys, narrow), (heads, queries, narrow)]
    # of values that bf16 holds, so that both precisions begin with the same numbers
    return [torch.randn(rows, *size).mul(3).bfloat16() for size in sizes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "tolerance"), [("float64", 1e-12), ("float32", 2e-6), ("bfloat16", 8e-3)])
@pytest.mark.parametrize("function", [causal_attention, fused])
def test_outputs_and_gradients_are_those_of_plain_attention(
    shape: Any, name: str, tolerance: float, function: Any
) -> None:
    inputs, dtype = tensors(shape), getattr(torch, name)
    exact = results(plain, inputs, torch.float64)
    for ours, right in zip(results(function, inputs, dtype), exact, strict=True):
        assert float((ours - right).norm()) <= tolerance * float(right.norm()) + 1e-12  # one key: its gradient is 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", list(VARIANTS)[1:])
@pytest.mark.parametrize("function", [causal_attention, fused])
@pytest.mark.parametrize(("name", "tolerance"), [("float64", 1e-12), ("float32", 2e-6)])
def test_windows_soft_caps_and_sinks_have_the_right_outputs_and_gradients(
    shape: Any, variant: str, function: Any, name: str, tolerance: float
) -> None:
    inputs, dtype = tensors(shape), getattr(torch, name)
    exact = results(plain, inputs, torch.float64, variant)
    for ours, right in zip(results(function, inputs, dtype, variant), exact, strict=True):
        assert float((ours - right).norm()) <= tolerance * float(right.norm()) + 1e-12


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_bf16_is_about_as_exact_as_torchs_own_kernel(shape: Any) -> None:
    inputs = tensors(shape)
    exact = results(plain, inputs, torch.float64)
    ours, theirs = (results(function, inputs, torch.bfloat16) for function in (causal_attention, kernel))
    for mine, other, right in zip(ours, theirs, exact, strict=True):
        assert float((mine - right).norm()) < 1.5 * float((other - right).norm())


def kernel(q: Any, k: Any, v: Any, softmax: Softmax) -> Any:
    mask = q.new_full((q.shape[2], k.shape[2]), float("-inf")).triu(diagonal=k.shape[2] - q.shape[2] + 1)
    k, v = with_all_heads(q, k, v)
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=softmax.scale)
