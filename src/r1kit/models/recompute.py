"""Activation checkpointing: keep each layer's input only and compute the rest again in the backward pass.

transformers has its own, which works in training mode alone; r1kit trains in evaluation mode, where dropout is off.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


class _Recomputed:
    """A layer's forward that keeps no activations. An object: a deep copy of the layer then calls its own copy."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = type(self.layer).forward  # the class's: the instance's is this object
        if not torch.is_grad_enabled():
            return forward(self.layer, *args, **kwargs)
        # nothing in evaluation mode draws random numbers, so their state need not be kept
        return checkpoint(forward, self.layer, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def recompute_activations(model: nn.Module) -> None:
    """Trade about a quarter of speed for memory; results stay the same.

    Raises ValueError if transformers has no checkpointing for the model's layers.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no layers that transformers can checkpoint: set activation_checkpointing off"
        )
    for layer in layers:
        layer.forward = _Recomputed(layer)
