"""Settings with which training fits into the memory of one device."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from r1kit.settings import Settings, unhashed
from r1kit.types import WeightsDtype


class MemorySettings(Settings):
    """The memory that training takes (see `train.memory`).

    `sequence_devices` neighbouring devices share the tokens of each row, and its activations; they divide `--devices`.
    `shard=False` keeps weights, gradients and moments whole on each device. The devices then only add up their
    gradients, once per update, and gather no weights.

    `weights_dtype="bf16"` halves weights and gradients of linear layers. An update then adds the gradients of its
    batches in bf16 and rounds each new weight at random (docs/log.md has the cost).
    """

    weights_dtype: WeightsDtype = "fp32"

    activation_checkpointing: bool = unhashed(
        False, description="compute activations again in the backward pass: a quarter slower, for long rows"
    )
    sequence_devices: int = unhashed(1, ge=1, description="devices that share each row, for rows too long for one")
    shard: bool = unhashed(True, description="split the weights over the devices (FSDP2); false saves gathering them")


class LoraSettings(Settings):
    """Training of low-rank adapters in place of all weights; they are saved beside the merged model."""

    lora_rank: int = Field(0, ge=0, description="0 trains all weights")
    lora_alpha: int = Field(32, gt=0)
    lora_targets: tuple[str, ...] = Field((), description="names of linear layers; empty: all of them")


def apply_memory_settings(model: Any, settings: MemorySettings) -> None:
    """Apply the settings to a loaded model."""
    from r1kit.models.recompute import recompute_activations

    if settings.activation_checkpointing:
        recompute_activations(model)
