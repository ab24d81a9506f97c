"""Weights of linear layers in bf16: half the memory of weights and gradients.

Embeddings, head, norms, biases and the residual stream stay in fp32, so a forward pass computes as one of fp32 weights
whose linear layers compute in bf16 (models/compute.py). Only the storage, and with it each update, is less exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def round_weights(model: Any, device: torch.device) -> None:
    """Turn the weights of linear layers into bf16 in place; on a GPU also those of routed experts.

    Weights that bf16 holds stay as they are. Others are rounded at random: to the nearest, a small update of adapters
    that an earlier stage merged would be lost.
    """
    generator = torch.Generator().manual_seed(0)  # the same weights whenever a stage loads the model
    kept_exact = (model.get_output_embeddings(), getattr(model, "score", None))  # heads: their logits stay fp32
    for module in model.modules():
        if type(module) is nn.Linear and not any(module is head for head in kept_exact):
            module.weight.data = stochastic_round(module.weight.data, generator)
    if device.type != "cpu":  # there autocast also covers products with tensors that are not layers
        for name, weight in model.named_parameters():
            if ".experts." in name and weight.dim() == 3:
                weight.data = stochastic_round(weight.data, generator)
    model.rounded_weights = True


def has_rounded_weights(model: nn.Module) -> bool:
    """Whether `round_weights` made the model's linear layers bf16."""
    return bool(getattr(model, "rounded_weights", False))


def stochastic_round(values: Tensor, generator: torch.Generator) -> Tensor:
    """fp32 -> bf16, up or down at random, so that the mean over many draws is the value itself.

    bf16 is the upper half of fp32's bits. A random number is added to the lower half, which is then cut off.
    """
    noise = torch.randint(1 << 16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    return (values.view(torch.int32) + noise).bitwise_and(-(1 << 16)).view(torch.float32).to(torch.bfloat16)
