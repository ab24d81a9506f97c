"""Weights of linear layers in bf16: half the memory of weights and gradients.

Embeddings, head, norms, biases and the residual stream stay in fp32, so a forward pass computes as one of fp32 weights
whose linear layers compute in bf16 (models/compute.py). Only the storage, and with it each update, is less exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def round_weights(model: Any, device: torch.device) -> None:
    """Turn the weights of linear layers into bf16 in place; on a GPU also those of routed experts."""
    kept_exact = (model.get_output_embeddings(), getattr(model, "score", None))  # heads: their logits stay fp32
    for module in model.modules():
        if type(module) is nn.Linear and not any(module is head for head in kept_exact):
            module.weight.data = module.weight.data.to(torch.bfloat16)
    if device.type != "cpu":  # there autocast also covers products with tensors that are not layers
        for name, weight in model.named_parameters():
            if ".experts." in name and weight.dim() == 3:
                weight.data = weight.data.to(torch.bfloat16)
    model.rounded_weights = True


def has_rounded_weights(model: nn.Module) -> bool:
    """Whether `round_weights` made the model's linear layers bf16."""
    return bool(getattr(model, "rounded_weights", False))
