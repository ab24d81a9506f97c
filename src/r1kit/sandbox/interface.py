"""The interface of a sandbox, which runs untrusted Python programs within limits and returns their output.

A program controls its output: an exit status or a printed "passed" proves nothing. Judges compare values outside the
sandbox with expectations that the program never sees.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, Protocol

from pydantic import Field

from r1kit.numeric import shown
from r1kit.settings import Settings

Limit = Literal["wall", "cpu", "memory", "output", "files"]
Files = Mapping[str, str]  # relative path -> text
_MOST_MB = 1 << 20  # a terabyte; anything above is a typing error, and overflows the system's counters


class SandboxError(RuntimeError):
    """The sandbox itself failed, so nothing is known about the program."""


class Abandoned(Exception):
    """The run was ended because nobody waits for its result."""


class Abandon:
    """Ends a run that goes on in another thread: with `set`, the run raises `Abandoned`."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def set(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        os.close(self._descriptor)


class Limits(Settings):
    """Limits of one run. Memory and CPU time are per process: a whole run may use `processes` times as much."""

    wall_s: float = Field(default=10.0, gt=0, le=3600, description="counted from the program's first instruction")
    cpu_s: float = Field(default=10.0, gt=0, le=3600, description="per process; rounded up to whole seconds")
    idle_s: float = Field(
        default=3600.0, gt=0, le=3600, description="neither computing nor waiting for a processor; checked at intervals"
    )
    memory_mb: int = Field(default=512, ge=32, le=_MOST_MB, description="address space per process")
    processes: int = Field(default=8, ge=1, le=1024, description="processes and threads at a time; landlock allows 1")
    file_mb: int = Field(
        default=16, ge=1, le=_MOST_MB, description="all files together; only bubblewrap allows files, in /tmp"
    )
    files: int = Field(
        default=10_000, ge=100, description="files and folders in /tmp; checked at intervals, so stopped late"
    )
    output_kb: int = Field(
        default=256, ge=1, le=_MOST_MB, description="of standard output, and again of standard error"
    )
    open_files: int = Field(default=64, ge=16, le=_MOST_MB)


DEFAULT = Limits()
NONE: Files = {}  # no files
LONGEST_NAME = 255  # of a file, in bytes: what Linux's file systems allow


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """The result of a run: its output, cut at the limit, and the limit that ended it, if any.

    `exit_status` is negative for a signal, and None if the run was stopped from outside. `waited_s` is the time for
    which the run was ready but waited for a processor, sampled at intervals; a large value means a busy machine. It is
    0 if the run was seen with processes of its own, because it may have waited for those.
    """

    stdout: str
    stderr: str
    exit_status: int | None
    limit: Limit | None
    wall_s: float
    waited_s: float = 0.0

    @property
    def timed_out(self) -> bool:
        """Whether the run was stopped by its limit on wall time or CPU time."""
        return self.limit in ("wall", "cpu")


class Sandbox(Protocol):
    """Runs Python source as `__main__`; `files` are in its working folder.

    Both methods raise `SandboxError` if the mechanism fails. Nothing that a program does can cause this error.
    """

    @property
    def kind(self) -> str: ...

    def run(self, program: str, *, stdin: str = "", files: Files = NONE, limits: Limits = DEFAULT) -> Execution:
        """Run one program on `stdin`."""
        ...

    def converse(
        self, checker: str, program: str, *, checker_files: Files = NONE, files: Files = NONE, limits: Limits = DEFAULT
    ) -> tuple[Execution, Execution]:
        """Run two programs in separate sandboxes, the standard output of each piped into the other's input.

        Both are ended when the checker ends.
        """
        ...


def relative(files: Mapping[str, str]) -> dict[str, str]:
    """The same files; raises ValueError for a path that leaves the working folder or that no file can have."""
    for name in files:
        parts = name.split("/")
        if "\0" in name or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{name!r} is not a relative path such as data/input.txt")
        if any(len(part.encode("utf-8", "replace")) > LONGEST_NAME for part in parts):
            raise ValueError(f"{shown(name)} is too long: a name has at most {LONGEST_NAME} bytes between slashes")
        for folder in PurePosixPath(name).parents:
            if str(folder) in files:
                raise ValueError(f"{name!r} cannot be in {str(folder)!r}, which is a file too")
    return dict(files)


@contextmanager
def system_errors_as_sandbox_errors() -> Iterator[None]:
    """Turn an `OSError` (out of descriptors, processes or disk space) into `SandboxError`."""
    try:
        yield
    except OSError as error:
        raise SandboxError(f"the sandbox cannot be started: {error}") from error
