"""The processes that train one stage together. Each is a rank; a process that no launcher started is the only one.

All ranks run the same code on the same data: each computes its share, and results are gathered. Only the first rank
writes files (see `store`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
LONG_S = 7 * 24 * 3600.0  # for work that the first rank does alone, such as tokenising a large file
_LATE = re.compile(r"Ranks? ([\d, ]+) failed to pass monitoredBarrier")


class RankError(ChildProcessError):
    """Another rank died or does not answer."""


class _Member(NamedTuple):
    rank: int
    size: int  # the number of ranks
    group: Any = None  # gloo, which carries Python objects and knows a barrier that names the ranks that are missing
    timeout_s: float = LONG_S
    row_size: int = 1  # ranks that share the tokens of each training row; they are neighbours
    row_group: Any = None  # of these ranks


_ALONE = _Member(0, 1)
_member = _ALONE


def rank() -> int:
    """The number of this process among the ranks, from 0."""
    return _member.rank


def count() -> int:
    """The number of ranks."""
    return _member.size


def is_first() -> bool:
    return _member.rank == 0


def row_size() -> int:
    """The number of ranks that share the tokens of each training row."""
    return _member.row_size


def row_place() -> int:
    """The number of this process among the ranks that share its rows, from 0."""
    return _member.rank % _member.row_size


def row_group() -> Any:
    """The group of the ranks that share this one's rows, for tensors on the device; None if it has rows alone."""
    return _member.row_group


@contextlib.contextmanager
def joined(timeout_s: float, device: str = "cpu", row_size: int = 1) -> Iterator[None]:
    """A block in which this process is a rank; torch's environment variables say which, and where the ranks meet.

    A rank that keeps the others waiting for more than `timeout_s` is an error in those. `device`: cpu or cuda.
    `row_size` neighbouring ranks share the tokens of each training row; it divides the number of ranks.
    """
    global _member
    import torch.distributed as dist

    limit = timedelta(seconds=timeout_s)
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=limit)
    own_group = dist.new_group(backend="gloo", timeout=limit)
    rank, size, own_row = dist.get_rank(), dist.get_world_size(), None
    assert size % row_size == 0, "each row has as many ranks"
    for first in range(0, size, row_size) if row_size > 1 else ():  # every rank makes the groups of all
        members = range(first, first + row_size)
        row_group = dist.new_group(list(members), timeout=limit)
        own_row = row_group if rank in members else own_row
    _member = _Member(rank, size, own_group, timeout_s, row_size, own_row)
    yield
    # after an error the group stays: other ranks may still be inside a collective
    _member = _ALONE
    dist.destroy_process_group()


def group() -> Any:
    """The gloo group of all ranks; None in a process alone."""
    return _member.group


def meet(timeout_s: float | None = None) -> None:
    """Return when every rank is here. Raises `RankError`, which names the missing ones, after the time limit."""
    if _member.size == 1:
        return
    import torch.distributed as dist

    limit = _member.timeout_s if timeout_s is None else timeout_s
    try:
        dist.monitored_barrier(_member.group, timedelta(seconds=limit), wait_all_ranks=True)
    except RuntimeError as error:
        if late := _LATE.search(str(error)):
            raise RankError(f"rank {late[1]} does not answer") from error
        raise


def gather(value: T) -> list[T]:
    """The values of all ranks, in their order. Every rank must call it."""
    if _member.size == 1:
        return [value]
    import torch.distributed as dist

    meet()
    values: list[Any] = [None] * _member.size
    dist.all_gather_object(values, value, _member.group)
    return values


@contextlib.contextmanager
def alike(kind: type[Exception]) -> Iterator[None]:
    """A block that raises an error of this kind in every rank if it does so in one. Every rank must enter it."""
    error = None
    try:
        yield
    except kind as raised:
        error = raised
    reasons = gather("" if error is None else str(error))
    if error is not None:
        raise error
    if reason := next(filter(None, reasons), ""):
        raise kind(reason)


@contextlib.contextmanager
def in_turn() -> Iterator[None]:
    """A block that the first rank runs before all others, which find the files that it wrote."""
    if not is_first():
        meet(LONG_S)
    yield
    if is_first():
        meet(LONG_S)


def share(items: Sequence[T], size: Callable[[T], int] = lambda item: 1) -> list[T]:
    """This rank's part of the items: neighbours whose sizes add up to about 1/`count()` of the whole.

    The parts of all ranks, in order, are the items.
    """
    return _part(items, size, _member.rank, _member.size)


def share_rows(items: Sequence[T], size: Callable[[T], int] = lambda item: 1) -> list[T]:
    """`share` for training rows: the ranks that share the tokens of their rows have the same part."""
    return _part(items, size, _member.rank // _member.row_size, _member.size // _member.row_size)


def gather_rows(value: T) -> list[T]:
    """The values of all parts of `share_rows`, in their order. Every rank must call it."""
    return gather(value)[:: _member.row_size]


def _part(items: Sequence[T], size: Callable[[T], int], place: int, parts: int) -> list[T]:
    if parts == 1:
        return list(items)
    sizes = [size(item) for item in items]
    ends, total = accumulate(sizes), max(1, sum(sizes))
    # an item belongs to the rank in whose part of the whole its middle lies
    owners = [(2 * end - own) * parts // (2 * total) for own, end in zip(sizes, ends, strict=True)]
    return [item for item, owner in zip(items, owners, strict=True) if min(owner, parts - 1) == place]
