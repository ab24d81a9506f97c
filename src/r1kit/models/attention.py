"""The attention that r1kit registers with transformers: the layout of a forward pass decides which tokens see which.

A model loaded with `attn_implementation="r1kit"` hands each layer's queries, keys and values to the `layout` keyword of
its forward call: `PackedLayout` for training rows, `PrefillLayout` and `DecodeLayout` for generation. The model code
stays Hugging Face's, so any architecture that goes through `AttentionInterface` works.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

NAME = "r1kit"
CHUNK = 64  # queries: their probabilities stay in the processor's cache


class Layout(Protocol):
    """Attends for one layer: q [B, H, T, D], k and v [B, H_kv, T, D(v)] -> [B, T, H, Dv]."""

    longest: int

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor: ...


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature. Raises ValueError for variants that the layouts do not compute."""
    assert query.shape[0] == 1 or query.shape[2] == 1, "one packed row, or one new token per row"
    window = extra.get("sliding_window")
    if window is not None and layout.longest > window:
        raise ValueError(
            f"a sequence of {layout.longest} tokens is longer than the model's sliding window of {window}: "
            "lower max_tokens or use a model with full attention"
        )
    for name in ("softcap", "s_aux", "position_bias"):  # arguments that change the result and that layouts ignore
        if extra.get(name) is not None:
            raise ValueError(f"this architecture's attention uses {name}, which r1kit does not compute")
    # bf16 products with fp32 rotations: one precision for the kernels and the cache, as autocast would make it
    query, key = query.to(value.dtype), key.to(value.dtype)
    # DeepSeek-V3 passes a scale of its own (YaRN changes it)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    return layout.attend(int(module.layer_idx), query, key, value, scale), None  # type: ignore[arg-type]


def register() -> None:
    """Make `attn_implementation="r1kit"` known to transformers; the layouts mask, so transformers builds none."""
    AttentionInterface.register(NAME, attention)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """[N, H, L, D] -> [N, H, L, Dv]: the L queries belong to the last L of the keys [N, H_kv, K, D]."""
    repeat, past = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    assert q.shape[1] == repeat * k.shape[1], "each key head serves the same number of query heads"
    if q.device.type == "cpu":
        return _CausalAttention.apply(q, k, v, scale)  # type: ignore[no-any-return]
    # interleaved: query heads 0 .. repeat - 1 belong to key head 0, as in the model's own code
    k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)  # [N, H, K, D]
    # -inf hides what comes after a query; its own key is `past` to the right
    mask = q.new_full((q.shape[2], k.shape[2]), float("-inf")).triu(diagonal=past + 1) if past else None
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=not past, scale=scale)


class _CausalAttention(torch.autograd.Function):
    """Chunks of queries, each with the keys that it may see; the backward pass computes their probabilities again.

    On a CPU and at a few hundred tokens this is nearly twice as fast as torch's kernel in bf16, and a fifth faster in
    fp32 (docs/log.md). The kernel also computes the hidden half, and needs a mask and repeated heads, which autograd
    keeps. Scores and softmax are fp32, other products have the inputs' precision: bf16 scores would be less exact.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        values, out = v.flatten(0, 1), q.new_empty(*q.shape[:3], v.shape[3])
        for rows, seen, probs in _probabilities(q, k, scale):
            chunk = probs.to(v.dtype) @ values[:, :seen]  # [N * H_kv, H / H_kv * rows, Dv]
            out[:, :, rows] = chunk.view(*q.shape[:2], -1, v.shape[3])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v = ctx.saved_tensors
        keys, values = k.flatten(0, 1), v.flatten(0, 1)
        by_q = torch.empty_like(q)
        by_k, by_v = (torch.zeros_like(x, dtype=_wide(x)) for x in (keys, values))  # sums over chunks
        for rows, seen, probs in _probabilities(q, k, ctx.scale):
            queries, grads = (_by_key_head(x, rows, len(keys)) for x in (q, grad))
            by_v[:, :seen] += probs.to(grad.dtype).transpose(1, 2) @ grads
            by_probs = (grads @ values[:, :seen].transpose(1, 2)).to(probs.dtype)
            by_scores = torch._softmax_backward_data(by_probs, probs, -1, probs.dtype).to(q.dtype)
            by_k[:, :seen] += by_scores.transpose(1, 2) @ queries
            by_q[:, :, rows] = (by_scores @ keys[:, :seen]).view(*q.shape[:2], -1, q.shape[3])
        # the scores were scaled
        return (
            by_q.mul_(ctx.scale),
            by_k.mul_(ctx.scale).view(k.shape).to(k.dtype),
            by_v.view(v.shape).to(v.dtype),
            None,
        )


def _probabilities(q: Tensor, k: Tensor, scale: float) -> Iterator[tuple[slice, int, Tensor]]:
    """For each chunk of queries its rows, how many keys they see, and probabilities [N * H_kv, H / H_kv * rows, seen].

    Query heads that share a key head stand one after another, so their product is one.
    """
    keys, past = (k.to(_wide(k)) * scale).flatten(0, 1), k.shape[2] - q.shape[2]
    future = keys.new_full((CHUNK, CHUNK), float("-inf")).triu(diagonal=1)
    for start in range(0, q.shape[2], CHUNK):
        rows = slice(start, min(start + CHUNK, q.shape[2]))
        size, seen = rows.stop - start, past + rows.stop
        scores = _by_key_head(q, rows, len(keys)).to(keys.dtype) @ keys[:, :seen].transpose(1, 2)
        scores.view(-1, size, seen)[..., seen - size :] += future[:size, :size]  # the chunk's own keys: a triangle
        yield rows, seen, torch.softmax(scores, dim=-1)


def _by_key_head(x: Tensor, rows: slice, key_heads: int) -> Tensor:
    """[N, H, L, D] -> [N * H_kv, H / H_kv * rows, D]"""
    return x[:, :, rows].reshape(key_heads, -1, x.shape[3])


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
