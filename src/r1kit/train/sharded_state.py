"""Checkpoints that several ranks write together, each its part of every tensor, and that any number of ranks reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from r1kit import ranks
from r1kit.models.shard import copy_part

FOLDER = "shards"  # in a checkpoint's folder


def save_sharded(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write tensors and the moments of the optimizer; every rank must call it, with the same folder.

    Every rank raises the error of the first one that fails.
    """
    state = {**tensors, **_moments(optimizer)}
    try:
        save(state, checkpoint_id=folder / FOLDER, process_group=ranks.group())
    except CheckpointException as error:  # no `Exception`, and its text is the tracebacks of all ranks
        raise error.failures[min(error.failures)][0] from None


def load_sharded(tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Read what `save_sharded` wrote into these tensors and the optimizer, in place."""
    reader = FileSystemReader(folder / FOLDER)
    stored = reader.read_metadata().state_dict_metadata
    for index, parameter in enumerate(_parameters(optimizer)):
        # AdamW makes its moments in its first step, so an empty optimizer needs places to load into; before the first
        # update nothing was stored
        if f"moments/{index}/step" in stored:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    state = {**tensors, **_moments(optimizer)}
    load(state, storage_reader=reader, process_group=ranks.group(), no_dist=ranks.count() == 1)


def load_moments(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Take this rank's part of the `state_dict` of an optimizer whose weights were whole."""
    for index, parameter in enumerate(_parameters(optimizer)):
        if moments := state["state"].get(index):
            parts = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            for name, part in parts.items():
                copy_part(part, moments[name].to(parameter.device))
            optimizer.state[parameter] = {"step": moments["step"], **parts}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of AdamW by the place of each parameter, which no sharding changes."""
    return {
        f"moments/{index}/{name}": value
        for index, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }
