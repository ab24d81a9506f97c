"""Weights of linear layers in the layout of oneDNN's kernels, and linear layers that compute with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class PackedWeight:
    """Weights [out, in] of one input, in the blocked layout of oneDNN's kernels, and their transpose when a gradient
    needs it. Their outputs stand side by side.
    """

    def __init__(self, weights: Sequence[Tensor], dtype: torch.dtype) -> None:
        self.weights, self.dtype = [weight.detach() for weight in weights], dtype
        self.pack = torch.ops.mkldnn._reorder_linear_weight(self._joined(), None)

    def _joined(self) -> Tensor:
        low = [weight.to(self.dtype) for weight in self.weights]
        return torch.cat(low) if len(low) > 1 else low[0]

    @cached_property
    def transposed(self) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self._joined().T.contiguous(), None)  # type: ignore[no-any-return]

    def linear(self, layer: nn.Linear, states: Tensor) -> Tensor:
        """The forward pass of the layer whose weight this is."""
        if torch.is_grad_enabled():
            return _PackedLinear.apply(states, layer.weight, layer.bias, self)  # type: ignore[no-any-return]
        return self.product(states, layer.bias)

    def product(self, states: Tensor, bias: Tensor | None = None) -> Tensor:
        """[..., in] -> [..., out] in the pack's precision."""
        bias = None if bias is None else bias.to(self.dtype)
        return _product(states.to(self.dtype), self.pack, bias)

    def product_back(self, grad: Tensor) -> Tensor:
        """[..., out] -> [..., in]: the gradient by the layer's input."""
        return _product(grad.to(self.dtype), self.transposed, None)


def _product(states: Tensor, pack: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(states.contiguous(), pack, bias, "none", [], "")  # type: ignore[no-any-return]


class _PackedLinear(torch.autograd.Function):
    """A linear layer whose products run on packed weights; the gradient of the weight is added in fp32."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, packed: PackedWeight) -> Tensor:
        low = states.to(packed.dtype)
        ctx.packed, ctx.dtypes = packed, (states.dtype, weight.dtype)
        ctx.save_for_backward(low if weight.requires_grad else None)  # frozen under LoRA
        return packed.product(low, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (states,), (input_dtype, weight_dtype) = ctx.saved_tensors, ctx.dtypes
        grad = grad.to(ctx.packed.dtype)
        rows = grad.flatten(0, -2)  # [rows, out]
        by_input = ctx.packed.product_back(grad).to(input_dtype) if ctx.needs_input_grad[0] else None
        by_weight = (rows.T @ states.flatten(0, -2)).to(weight_dtype) if ctx.needs_input_grad[1] else None  # [out, in]
        by_bias = rows.sum(0, dtype=weight_dtype) if ctx.needs_input_grad[2] else None
        return by_input, by_weight, by_bias, None
