"""The arithmetic of a model's linear layers: its precision, and weights packed for the processor's matrix kernels.

On a CPU, `F.linear` packs the weights at every call, and under autocast it casts them too. But weights change once
per update, and a rollout reads them at every token. Inside `packing` they are packed once, in the model's precision;
the packs are gone when the block ends, so no optimizer can leave a stale one behind.

Products of bf16 keep norms, softmax, residual stream, gradients of the weights and the optimizer in fp32, as autocast
does. On a CPU the logits stay in fp32, because rounded ones move the log-probs of sampler and trainer apart (ScaleRL,
arXiv 2510.13786, measured what fp32 there is worth to RL); of the head's three products, only those that carry the
gradient are in bf16.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property, partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor

from r1kit.models.bf16_weights import has_rounded_weights
from r1kit.models.known import ModelError
from r1kit.types import ComputeDtype

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SMALL = 20_000_000  # weights of a model: below, calls cost more than products, and nothing is packed or rounded
MEASURED_FLOP = 3e9  # per precision and repeat: about 0.03 s on two cores
ROWS = 64  # of the measured product: a usual number of sequences in decoding
GAIN = 1.25  # bf16 rounds, so it must be this much faster than fp32


class PackedWeight:
    """A weight [out, in] in the blocked layout of oneDNN's kernels, and its transpose when a gradient needs it."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.weight, self.dtype = weight.detach(), dtype
        self.pack = torch.ops.mkldnn._reorder_linear_weight(self.weight.to(dtype), None)

    @cached_property
    def transposed(self) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(self.weight.to(self.dtype).T.contiguous(), None)  # type: ignore[no-any-return]

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


@contextmanager
def computing(model: nn.Module) -> Iterator[None]:
    """A block of forward passes in the model's precision; its weights must not change inside."""
    with packing(model), autocast(model):
        yield


def autocast(model: nn.Module) -> AbstractContextManager[Any]:
    """On a GPU, the model's precision for a forward pass; nothing on a CPU."""
    device = next(model.parameters()).device.type
    low = compute_dtype_of(model) == torch.bfloat16
    return torch.autocast(device, torch.bfloat16) if device != "cpu" and low else nullcontext()


@contextmanager
def packing(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """A block with packed weights, for a large model on a CPU; with `training` also of backward passes.

    The weights must not change inside. Blocks nest: the outermost one packs.
    """
    dtype, layers = compute_dtype_of(model), list[nn.Linear]()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    # many rows make up for the packing inside `F.linear`: in fp32, packs for training cost memory and win no time
    useful = _packs(model) and not (training and dtype == torch.float32)
    try:
        for layer in model.modules() if useful else ():
            if training and layer is head:  # fp32, so the same holds for it
                continue
            if type(layer) is nn.Linear and not hasattr(layer, "packed"):  # a subclass may compute something else
                packed = PackedWeight(layer.weight, torch.float32 if layer is head else dtype)
                layers.append(layer)  # once packed: there may be no memory for it
                layer.packed = packed  # type: ignore[assignment]  # the fused head reads it
                layer.forward = partial(packed.linear, layer)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers:
            del layer.packed, layer.forward


def _packs(model: nn.Module) -> bool:
    weights = list(model.parameters())
    whole = not any(isinstance(weight, DTensor) for weight in weights)  # a pack of a shard would be another layer
    large = has_rounded_weights(model) or sum(weight.numel() for weight in weights) >= SMALL
    return weights[0].device.type == "cpu" and large and whole and torch.backends.mkldnn.is_available()


def compute_dtype_of(model: nn.Module) -> torch.dtype:
    """The precision that `choose` left on the model; without a choice bf16 on a GPU and fp32 elsewhere."""
    default = torch.bfloat16 if next(model.parameters()).is_cuda else torch.float32
    return getattr(model, "compute_dtype", default)


def rounding_obstacle(model: nn.Module) -> str:
    """Why a model computes in fp32 on a CPU that is faster in bf16; empty if nothing is in the way."""
    return getattr(model, "rounding_obstacle", "")


def choose(model: nn.Module, wanted: ComputeDtype) -> None:
    """Set the precision of the model's linear layers. On a CPU, `auto` measures for about a tenth of a second.

    Raises `ModelError` for bf16 on a processor that cannot multiply in it.
    """
    device = next(model.parameters()).device.type
    if has_rounded_weights(model):
        if wanted == "fp32":
            raise ModelError("weights_dtype is bf16, and so are their products: set compute_dtype to auto or bf16")
        wanted = "bf16"
    if device == "cpu" and not _packs(model):
        wanted = "fp32"  # such a model is never rounded
    elif wanted == "auto" and device == "cpu":
        seconds = measure(model) if has_bf16_kernels() else None
        wanted = "bf16" if seconds and seconds["bf16"] * GAIN < seconds["fp32"] else "fp32"
    elif wanted == "auto":
        wanted = "bf16" if device == "cuda" else "fp32"
    elif wanted == "bf16" and device == "cpu" and not has_bf16_kernels():
        raise ModelError("this processor has no bf16 kernels (on x86 they need AVX-512): set compute_dtype to fp32")
    model.compute_dtype = DTYPES[wanted]  # type: ignore[assignment]


def has_bf16_kernels() -> bool:
    """Whether oneDNN packs and multiplies bf16 on this processor; many laptops lack the instructions."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def measure(model: nn.Module, repeats: int = 2) -> dict[str, float]:
    """Seconds that packed products with some of the model's own weights take, by precision; the best of `repeats`."""
    layers = [layer for layer in model.modules() if type(layer) is nn.Linear]
    flop = accumulate(2.0 * ROWS * layer.weight.numel() for layer in layers)
    # several layers in turn: one alone would stay in the processor's cache, which a whole model does not fit into
    chosen = [layer for layer, work in zip(layers, flop, strict=True) if work <= MEASURED_FLOP] or layers[:1]
    best = dict.fromkeys(DTYPES, float("inf"))
    with torch.inference_mode():
        packs = {name: [PackedWeight(layer.weight, dtype) for layer in chosen] for name, dtype in DTYPES.items()}
        states = [torch.ones(ROWS, layer.in_features) for layer in chosen]
        for name in list(DTYPES) * repeats:  # in turns, so a busy moment hits both
            start = time.perf_counter()
            for packed, rows in zip(packs[name], states, strict=True):
                packed.product(rows)
            best[name] = min(best[name], time.perf_counter() - start)
    return best
