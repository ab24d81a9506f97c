"""The arithmetic of a model's linear layers: its precision, and weights packed for the processor's matrix kernels.

On a CPU, `F.linear` packs the weights at every call, and under autocast it casts them too. But weights change once
per update, and a rollout reads them at every token. Inside `packed_weights` they are packed once, in the precision in
which the model computes; the packs are gone when the block ends, so no optimizer can leave a stale one behind.

Products of bf16 keep norms, softmax, residual stream, gradients of the weights and the optimizer in fp32, as autocast
does. On a CPU the logits stay in fp32, because rounded ones move the log-probs of sampler and trainer apart (ScaleRL,
arXiv 2510.13786, measured what fp32 there is worth to RL); of the head's three products, only those that carry the
gradient are in bf16.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from r1kit.models.bf16_weights import has_rounded_weights
from r1kit.models.fused_layer import FusedLayer, has_form
from r1kit.models.known import ModelError
from r1kit.models.packed_weight import PackedWeight
from r1kit.types import ComputeDtype

FUSES = "fuses_layers"  # an attribute of models whose layers of Llama's form compute what it says
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SMALL = 20_000_000  # weights of a model: below, calls cost more than products, and nothing is packed or rounded
MEASURED_FLOP = 3e9  # per precision and repeat: about 0.03 s on two cores
ROWS = 64  # of the measured product: a usual number of sequences in decoding
GAIN = 1.25  # bf16 rounds, so it must be this much faster than fp32


@contextmanager
def computing(model: nn.Module) -> Iterator[None]:
    """A block of forward passes in the model's precision; its weights must not change inside."""
    with packed_weights(model), autocast(model):
        yield


def autocast(model: nn.Module) -> AbstractContextManager[Any]:
    """On a GPU, the model's precision for a forward pass; nothing on a CPU."""
    device = next(model.parameters()).device.type
    low = compute_dtype_of(model) == torch.bfloat16
    return torch.autocast(device, torch.bfloat16) if device != "cpu" and low else nullcontext()


@contextmanager
def packed_weights(model: nn.Module, *, training: bool = False) -> Iterator[None]:
    """A block in which a large model on a CPU computes with packed weights; other models compute as usual.

    The weights must not change inside. `training`: the block has backward passes too. Blocks nest: the outermost packs.
    """
    dtype, packed = compute_dtype_of(model), list[nn.Module]()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    # many rows make up for the packing inside `F.linear`: in fp32, packs for training cost memory and win no time
    pays, fuses = packing_pays(model) and not (training and dtype == torch.float32), getattr(model, FUSES, False)
    done = set[Any]()  # packed layers and their parts, which must not be packed twice
    try:
        for module in model.modules() if pays else ():  # a layer comes before its parts
            if module in done:
                continue
            own_dtype = torch.float32 if module is head else dtype  # the logits stay in fp32
            packs = None if hasattr(module, "packed") else _pack(module, own_dtype, fuses)
            if packs is not None:
                packed.append(module)  # only now: if there is no memory for the packs, this module has none to remove
                module.packed, module.forward = packs  # type: ignore[assignment]  # the head reads `packed`
            if hasattr(module, "packed"):
                done.update(module.modules())
        yield
    finally:
        for module in packed:
            del module.packed, module.forward


def _pack(module: nn.Module, dtype: torch.dtype, fuses: bool) -> tuple[PackedWeight | FusedLayer, Any] | None:
    """The packs of a module and its forward pass with them; None for one that stays as it is."""
    if fuses and has_form(module):
        layer = FusedLayer(module, dtype)
        return layer, layer.forward
    if type(module) is nn.Linear:  # a subclass may compute something else
        weight = PackedWeight([module.weight], dtype)
        return weight, partial(weight.linear, module)
    return None


def packing_pays(model: nn.Module) -> bool:
    """Whether packed weights pay for a model: a large one on a CPU, in one piece."""
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
    if device == "cpu" and not packing_pays(model):
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
        packed_by = {name: [PackedWeight([layer.weight], dtype) for layer in chosen] for name, dtype in DTYPES.items()}
        states = [torch.ones(ROWS, layer.in_features) for layer in chosen]
        for name in list(DTYPES) * repeats:  # in turns, so a busy moment hits both
            start = time.perf_counter()
            for packed, rows in zip(packed_by[name], states, strict=True):
                packed.product(rows)
            best[name] = min(best[name], time.perf_counter() - start)
    return best
