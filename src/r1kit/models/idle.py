"""Models that wait in main memory and visit the device only to compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

HOME = torch.device("cpu")


@contextmanager
def visiting(model: nn.Module, device: torch.device) -> Iterator[None]:
    """A block in which the model is on `device`; then it goes back to where it was."""
    home = next(model.parameters()).device
    if home == device:
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to(home)
