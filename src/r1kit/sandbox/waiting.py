"""What can be seen of a process from outside: how long it stood in line for a processor, how many files it made.

The first tells a slow program from a busy machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def waited(pid: int) -> float:
    """Seconds for which others kept the process `pid` and those below it from running; 0 where the kernel is silent.

    It is the longest wait of any of their threads less the CPU time of them all, so that a program which fills the
    processors with its own processes waits for nobody else.
    """
    longest = used = 0.0
    for one in family(pid):
        used += _used(one)
        longest = max([longest, *_waits(one)])
    return max(0.0, longest - used)


def family(pid: int) -> Iterator[int]:
    """The process `pid` and those below it, as far as they are there now."""
    yield pid
    for children in _files(pid, "task/*/children"):
        for child in children.split():
            yield from family(int(child))


def files_in_tmp(pids: Sequence[int]) -> int:
    """Files and folders in the /tmp of these processes, where it is a file system of their own; else 0."""
    for pid in pids:
        with suppress(OSError):
            folder = f"{_PROC}/{pid}/root/tmp"
            if os.stat(folder).st_dev != os.stat("/tmp").st_dev:
                found = os.statvfs(folder)
                return found.f_files - found.f_ffree
    return 0


def _used(pid: int) -> float:
    """CPU seconds of a process and of its children that have ended."""
    for text in _files(pid, "stat"):
        fields = text.rpartition(")")[2].split()  # a process chooses its name, which may hold anything
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _waits(pid: int) -> Iterator[float]:
    for text in _files(pid, "task/*/schedstat"):
        yield int(text.split()[1]) / 1e9


def _files(pid: int, pattern: str) -> Iterator[str]:
    with suppress(OSError):  # a process may end at any moment
        for path in (_PROC / str(pid)).glob(pattern):
            with suppress(OSError):
                yield path.read_text(encoding="utf-8", errors="replace")
