"""The devices of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from r1kit.models.known import ModelError, first_line


def device_of(name: str) -> torch.device:
    """`auto` is the GPU if there is one. Raises `ModelError` for a device that this machine lacks."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ModelError(f"there is no device {name!r:.60}: give auto, cpu, cuda or cuda:N") from error
    try:
        torch.zeros(1, device=device).item()  # read back: "meta" holds no values
    except (RuntimeError, AssertionError, ImportError) as error:  # torch or the machine lacks it
        raise ModelError(f"device {name!r} cannot be used here ({first_line(error)}): give auto or cpu") from error
    return device


def device_name() -> str:
    """The device that `auto` chooses, by the name of its maker: `nvidia-h100-80gb-hbm3`, or `cpu`."""
    if device_of("auto").type == "cpu":
        return "cpu"
    return torch.cuda.get_device_name().lower().replace(" ", "-")


def first_card() -> tuple[str, int] | None:
    """The name of this machine's first GPU and its memory in bytes, used or not; None without one."""
    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(0)
    return card.name, card.total_memory


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """A block in which torch has so many threads on a CPU, which decide the last bits of sums; 0 leaves them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
