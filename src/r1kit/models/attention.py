"""The attention that r1kit registers with transformers: the layout of a forward pass decides which tokens see which.

A model loaded with `attn_implementation="r1kit"` hands each layer's queries, keys and values to the `layout` keyword of
its forward call: `PackedLayout` for training rows, `PrefillLayout` and `DecodeLayout` for generation. The model code
stays Hugging Face's, so any architecture that goes through `AttentionInterface` works.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface

NAME = "r1kit"
CHUNK = 64  # queries: their probabilities stay in the processor's cache
KERNEL_ROWS = 256  # queries up to which torch's CPU kernel is the faster one


class Softmax(NamedTuple):
    """How a layer turns the products of its queries and keys into probabilities."""

    scale: float
    window: int | None = None  # a query sees its own token and the `window - 1` tokens before it
    cap: float | None = None  # scores become cap * tanh(scores / cap), as in Gemma 2
    sinks: Tensor | None = None  # [H], one more logit per head, without a value, as in gpt-oss

    def of(self, scores: Tensor, sinks: Tensor | None) -> Tensor:
        """Probabilities in fp32 or wider. Sinks that broadcast to the scores [..., 1] add a last column."""
        if sinks is not None:
            scores = torch.cat([scores, sinks.to(scores.dtype).expand(*scores.shape[:-1], 1)], dim=-1)
        return torch.softmax(scores.to(_wide(scores)), dim=-1)


class Layout(Protocol):
    """Attends for one layer: q [B, H, T, D], k and v [B, H_kv, T, D(v)] -> [B, T, H, Dv]."""

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor: ...


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **extra: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature. Raises ValueError for variants that the layouts do not compute."""
    assert query.shape[0] == 1 or query.shape[2] == 1, "one packed row, or one new token per row"
    if key.shape[2] != query.shape[2]:  # DeepSeek-V4's compressed entries
        raise ValueError(f"a layer has {key.shape[2]} keys for {query.shape[2]} tokens, which r1kit does not compute")
    for name in ("position_bias", "indices"):  # arguments that change the result and that layouts ignore
        if extra.get(name) is not None:
            raise ValueError(f"this architecture's attention uses {name}, which r1kit does not compute")
    # bf16 products with fp32 rotations: one precision for the kernels and the cache, as autocast would make it
    query, key = query.to(value.dtype), key.to(value.dtype)
    # DeepSeek-V3 passes a scale of its own (YaRN changes it)
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    softmax = Softmax(scale, sliding_window, softcap, s_aux)
    return layout.attend(int(module.layer_idx), query, key, value, softmax), None  # type: ignore[arg-type]


def register() -> None:
    """Make `attn_implementation="r1kit"` known to transformers; the layouts mask, so transformers builds none."""
    AttentionInterface.register(NAME, attention)


def forward_layout(model: Any, token_ids: Tensor, position_ids: Tensor, layout: Layout) -> Tensor:
    """Hidden states [B, T, d] of token ids [B, T] before the head, with a layout in each layer."""
    output = model.base_model(input_ids=token_ids, position_ids=position_ids, layout=layout, use_cache=False)
    return output.last_hidden_state  # type: ignore[no-any-return]


def causal_attention(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    """[N, H, L, D] -> [N, H, L, Dv]: the L queries belong to the last L of the keys [N, H_kv, K, D]."""
    repeat = q.shape[1] // k.shape[1]
    assert q.shape[1] == repeat * k.shape[1], "each key head serves the same number of query heads"
    if q.device.type == "cpu" and not _suits_kernel(q, k, v, softmax):
        return _CausalAttention.apply(q, k, v, *softmax)  # type: ignore[no-any-return]
    # interleaved: query heads 0 .. repeat - 1 belong to key head 0, as in the model's own code
    return fused_attention(q, k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1), softmax)


def _suits_kernel(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> bool:
    """Whether torch's CPU kernel is faster than ours: in fp32 with a key head per query head, and few hidden scores,
    which it computes too (docs/log.md). It has no version for caps, sinks and values of another width."""
    is_plain = softmax.cap is None and softmax.sinks is None and k.shape == v.shape
    return is_plain and q.dtype == torch.float32 and q.shape[1] == k.shape[1] and q.shape[2] <= KERNEL_ROWS


def fused_attention(q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
    """`causal_attention` with torch's kernel, if it computes the variant, for keys and values of every head."""
    past, window = k.shape[2] - q.shape[2], softmax.window
    plain = softmax.cap is None and softmax.sinks is None
    if q.device.type != "cpu" and plain and (window is None or k.shape[2] <= window):
        # a named shape, not a mask of numbers, for which a GPU has no flash kernel: also with a shared prompt's keys
        causal = causal_lower_right(q.shape[2], k.shape[2])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=causal, scale=softmax.scale)
    places = torch.arange(k.shape[2], device=q.device)
    bias = hidden_bias(places[past:, None], places, window).to(q.dtype)  # [L, K]
    if plain:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=softmax.scale)
    scores = q @ k.transpose(2, 3) * softmax.scale  # [N, H, L, K]
    if softmax.cap is not None:
        scores = torch.tanh(scores / softmax.cap) * softmax.cap
    sinks = None if softmax.sinks is None else softmax.sinks[:, None, None]  # [H, 1, 1]
    return softmax.of(scores + bias, sinks)[..., : k.shape[2]].to(v.dtype) @ v


def hidden_bias(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """0 where a query sees a key, -inf elsewhere, by their positions in the sequence, whose shapes broadcast."""
    hidden = keys > queries
    if window is not None:
        hidden = hidden | (keys <= queries - window)
    return torch.zeros(hidden.shape, device=keys.device).masked_fill_(hidden, float("-inf"))


class _CausalAttention(torch.autograd.Function):
    """Chunks of queries, each with the keys that it may see; the backward pass computes their probabilities again.

    On a CPU this is nearly twice as fast as torch's kernel in bf16, and faster in fp32 where `_suits_kernel` says no
    (docs/log.md). The kernel also computes the hidden half, and needs a mask and repeated heads, which autograd keeps.
    Scores and softmax are fp32, other products have the inputs' precision: bf16 scores would be less exact.
    """

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scale: float,
        window: int | None,
        cap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, sinks)
        ctx.settings = scale, window, cap
        values, out = v.flatten(0, 1), q.new_empty(*q.shape[:3], v.shape[3])
        for chunk in _chunks(q, k, Softmax(scale, window, cap, sinks)):
            seen = values[:, chunk.keys]
            part = chunk.probs[..., : seen.shape[1]].to(v.dtype) @ seen  # [N * H_kv, H / H_kv * rows, Dv]
            out[:, :, chunk.rows] = part.view(*q.shape[:2], -1, v.shape[3])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (q, k, v, sinks), (scale, window, cap) = ctx.saved_tensors, ctx.settings
        keys, values = k.flatten(0, 1), v.flatten(0, 1)
        by_q = torch.empty_like(q)
        by_k, by_v = (torch.zeros_like(x, dtype=_wide(x)) for x in (keys, values))  # sums over chunks
        by_sinks = None if sinks is None else torch.zeros_like(sinks, dtype=_wide(sinks))
        for rows, seen, probs, slope in _chunks(q, k, Softmax(scale, window, cap, sinks)):
            queries, grads = (_by_key_head(x, rows, len(keys)) for x in (q, grad))
            by_probs = (grads @ values[:, seen].transpose(1, 2)).to(probs.dtype)
            width = by_probs.shape[2]
            by_v[:, seen] += probs[..., :width].to(grad.dtype).transpose(1, 2) @ grads
            if by_sinks is not None:
                by_probs = F.pad(by_probs, (0, 1))  # the sink's probability is dropped, so its gradient is zero
            by_scores = torch._softmax_backward_data(by_probs, probs, -1, probs.dtype)
            if by_sinks is not None:
                # [N, H_kv, H / H_kv, rows] -> [H]
                by_sinks += by_scores[..., -1].view(len(q), len(sinks), -1).sum(dim=(0, 2))
                by_scores = by_scores[..., :-1]
            if slope is not None:
                by_scores = by_scores * slope
            by_scores = by_scores.to(q.dtype)
            by_k[:, seen] += by_scores.transpose(1, 2) @ queries
            by_q[:, :, rows] = (by_scores @ keys[:, seen]).view(*q.shape[:2], -1, q.shape[3])
        # the scores were scaled
        return (
            by_q.mul_(scale),
            by_k.mul_(scale).view(k.shape).to(k.dtype),
            by_v.view(v.shape).to(v.dtype),
            None,
            None,
            None,
            None if by_sinks is None else by_sinks.to(sinks.dtype),
        )


class _Chunk(NamedTuple):
    """A chunk of queries: which they are, the keys that some of them see, and how probable each key is."""

    rows: slice
    keys: slice
    probs: Tensor  # [N * H_kv, H / H_kv * rows, keys], and a last column for a sink
    slope: Tensor | None  # d(capped score) / d(score), of the same shape without the sink


def _chunks(q: Tensor, k: Tensor, softmax: Softmax) -> Iterator[_Chunk]:
    """Query heads that share a key head stand one after another, so their product is one."""
    keys, past = (k.to(_wide(k)) * softmax.scale).flatten(0, 1), k.shape[2] - q.shape[2]
    window = softmax.window or k.shape[2]
    future = keys.new_full((CHUNK, CHUNK), float("-inf")).triu(diagonal=1)
    sinks = None if softmax.sinks is None else softmax.sinks.view(k.shape[1], -1, 1, 1)  # [H_kv, H / H_kv, 1, 1]
    for start in range(0, q.shape[2], CHUNK):
        rows = slice(start, min(start + CHUNK, q.shape[2]))
        seen = slice(max(0, past + start + 1 - window), past + rows.stop)
        size, slope = rows.stop - start, None
        scores = _by_key_head(q, rows, len(keys)).to(keys.dtype) @ keys[:, seen].transpose(1, 2)
        if softmax.cap is not None:
            scores = torch.tanh(scores / softmax.cap)
            scores, slope = scores * softmax.cap, 1 - scores.square()
        by_head = scores.view(len(q), k.shape[1], -1, size, scores.shape[2])  # [N, H_kv, H / H_kv, rows, keys]
        if seen.stop > window:
            places = torch.arange(seen.start, seen.stop)
            by_head += hidden_bias(places[-size:, None], places, window)
        else:
            by_head[..., -size:] += future[:size, :size]  # the chunk's own keys: a triangle
        yield _Chunk(rows, seen, softmax.of(by_head, sinks).flatten(0, 1).flatten(1, 2), slope)


def _by_key_head(x: Tensor, rows: slice, key_heads: int) -> Tensor:
    """[N, H, L, D] -> [N * H_kv, H / H_kv * rows, D]"""
    return x[:, :, rows].reshape(key_heads, -1, x.shape[3])


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
