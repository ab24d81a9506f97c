"""Facts about a process, seen from outside: how long it waited for a processor, and how many files it wrote.

The wait tells a slow program from a busy machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Load:
    """Seconds of a process and its descendants: CPU time of all threads, and the longest wait of one for a processor.

    `known` is False if the kernel does not report waits.
    """

    used: float
    longest_wait: float
    known: bool

    @property
    def busy(self) -> float:
        """Seconds in which the process computed or waited for a processor."""
        return self.used + self.longest_wait

    @property
    def waited(self) -> float:
        """Seconds for which other programs kept the process from running; 0 if the kernel does not say.

        The CPU time is subtracted, so a program that fills the processors with its own processes does not count as
        waiting for others.
        """
        return max(0.0, self.longest_wait - self.used)


def load_of(pid: int) -> Load:
    """The load of the process `pid` since it started."""
    longest = used = ran = 0.0
    for member in family(pid):
        for stat in _files(member, "stat"):
            fields = stat.rpartition(")")[2].split()  # the process chooses its name, which may contain anything
            used += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own, and of children that have ended
        for schedstat in _files(member, "task/*/schedstat"):
            run, wait = (int(field) / 1e9 for field in schedstat.split()[:2])
            longest, ran = max(longest, wait), ran + run
    return Load(used, longest, known=ran > 0)


def family(pid: int) -> Iterator[int]:
    """The process `pid` and its current descendants."""
    yield pid
    for children in _files(pid, "task/*/children"):
        for child in children.split():
            yield from family(int(child))


def files_in_tmp(pids: Sequence[int]) -> int:
    """The number of files and folders in the processes' /tmp if that is a file system of their own, otherwise 0."""
    for pid in pids:
        with suppress(OSError):
            folder = f"{_PROC}/{pid}/root/tmp"
            if os.stat(folder).st_dev != os.stat("/tmp").st_dev:
                inodes = os.statvfs(folder)
                return inodes.f_files - inodes.f_ffree
    return 0


def _files(pid: int, pattern: str) -> Iterator[str]:
    with suppress(OSError):  # a process may end at any moment
        for path in (_PROC / str(pid)).glob(pattern):
            with suppress(OSError):
                yield path.read_text(encoding="utf-8", errors="replace")
