"""The attention that r1kit registers with transformers: the layout of a forward pass decides which tokens see which.

A model loaded with `attn_implementation="r1kit"` hands each layer's queries, keys and values to the `layout` keyword of
its forward call: `PackedLayout` for training rows, `PrefillLayout` and `DecodeLayout` for generation. The model code
stays Hugging Face's, so any architecture that goes through `AttentionInterface` works.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

NAME = "r1kit"


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


def sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Scaled dot-product attention over [N, H, T, D], key and value heads repeated for grouped queries."""
    if k.shape[1] != q.shape[1]:
        assert q.shape[1] % k.shape[1] == 0, "each key head serves the same number of query heads"
        repeat = q.shape[1] // k.shape[1]
        # interleaved: query heads 0 .. repeat - 1 belong to key head 0, as in the model's own code
        k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)  # [N, H, T, D]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale)
