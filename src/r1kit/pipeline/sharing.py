"""What several devices cannot share, and devices that this machine lacks: refused before any stage works."""

from __future__ import annotations

import os
from collections.abc import Sequence

from r1kit.cores import cpu_count
from r1kit.pipeline.graph import Stage
from r1kit.settings import SettingsError

ABOVE_CORES = "R1KIT_RANKS_ABOVE_CORES"  # environment variable: 1 allows more ranks than cores


def require_shareable(stage: Stage, devices: int) -> None:
    """Raise `SettingsError` if a training stage has settings that work on one device only."""
    settings, optimizer = stage.settings, getattr(stage.settings, "optimizer", None)
    require_row_devices(stage, devices)
    if devices == 1 or not stage.kind.shards:
        return
    device = getattr(settings, "device", "auto")
    if ":" in device:
        raise SettingsError(f"stage {stage.name}: device is {device}, one GPU: set it to cuda for {devices} devices")
    low = getattr(settings, "weights_dtype", "fp32") != "fp32"
    in_8_bits = getattr(optimizer, "kind", "adamw") != "adamw"
    is_stale = bool(getattr(settings, "staleness", 0))
    adapters = bool(getattr(settings, "lora_rank", 0)) and getattr(settings, "shard", True)
    refused = {
        "lora_rank": ("adapters are not sharded", adapters, "set it to 0, or shard to false"),
        "optimizer.kind": ("moments in 8 bits work on one device only", in_8_bits, "set it to adamw"),
        "staleness": ("rollouts one step off work on one device only", is_stale, "set it to 0"),
        "weights_dtype": ("weights in bf16 work on one device only", low, "set it to fp32"),
    }
    for name, (what, is_set, remedy) in refused.items():
        if is_set:
            reason = f"{what}: {remedy}, or run on one device"
            raise SettingsError(f"stage {stage.name} cannot run on {devices} devices, because of {name}: {reason}")


def require_row_devices(stage: Stage, devices: int) -> None:
    """Raise `SettingsError` unless `devices` can be divided into groups that share the rows of a stage."""
    if devices % (size := getattr(stage.settings, "sequence_devices", 1)):
        reason = f"sequence_devices is {size}, and {devices} devices are not groups of so many"
        raise SettingsError(f"stage {stage.name}: {reason}: give a multiple with --devices, or set it to 1")


def require_devices(stages: Sequence[Stage], devices: int) -> None:
    """Raise `SettingsError` if stages share more devices than this machine has: GPUs, or cores if they use none."""
    devices_used = {getattr(stage.settings, "device", "auto") for stage in stages if stage.kind.shards}
    if devices == 1 or not devices_used:
        return
    gpus = 0
    if devices_used != {"cpu"}:
        import torch

        gpus = torch.cuda.device_count()
    if gpus and devices > gpus:
        there_are = "there is 1 GPU" if gpus == 1 else f"there are {gpus} GPUs"
        raise SettingsError(f"devices is {devices}, and {there_are} here: give at most --devices {gpus}")
    cores = cpu_count()
    if (not gpus or "cpu" in devices_used) and devices > cores and os.environ.get(ABOVE_CORES) != "1":
        reason = f"devices is {devices}, and without GPUs each is a process on a core, of which there are {cores}"
        raise SettingsError(f"{reason}: give at most --devices {cores}; {ABOVE_CORES}=1 allows more, which is slow")
