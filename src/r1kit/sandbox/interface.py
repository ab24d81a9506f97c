"""What a sandbox is: it runs Python programs that nobody trusts, within limits, and says what came out.

What comes out is the program's own word. An exit status or a printed "passed" proves nothing: whoever judges compares
values, outside, with expectations that the program never sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import Field

from r1kit.settings import Settings

Limit = Literal["wall", "cpu", "memory", "output", "files"]
_MOST_MB = 1 << 20  # a terabyte: what is beyond is a slip, and overflows the system's own counters


class SandboxError(RuntimeError):
    """The sandbox itself does not work: nothing is known about the program, which has not run to its end."""


class Limits(Settings):
    """What one run may use. Memory and CPU time are for each process, so a run's memory is at most their product."""

    wall_s: float = Field(default=10.0, gt=0, le=3600, description="from the program's first instruction")
    cpu_s: float = Field(default=10.0, gt=0, le=3600, description="of each process; rounded up to whole seconds")
    memory_mb: int = Field(default=512, ge=32, le=_MOST_MB, description="address space of each process")
    processes: int = Field(default=8, ge=1, le=1024, description="processes and threads at a time; landlock allows 1")
    file_mb: int = Field(
        default=16, ge=1, le=_MOST_MB, description="all files written, which only bubblewrap allows, in /tmp"
    )
    files: int = Field(
        default=10_000, ge=100, description="files and folders in /tmp, counted now and then: a flood is stopped late"
    )
    output_kb: int = Field(default=256, ge=1, le=_MOST_MB, description="of standard output, and again of its errors")
    open_files: int = Field(default=64, ge=16, le=_MOST_MB)


DEFAULT = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What a run left: output as far as the limit lets it through, and the limit that ended it, if one did.

    `exit_status` is negative for a signal and None where the run was stopped from outside. `waited_s` is the time for
    which a run wanted a processor and others had it, as seen now and then: much of it means that the machine was
    busy. It is 0 for a run that was seen with processes of its own, which may be those that it waited for.
    """

    stdout: str
    stderr: str
    exit_status: int | None
    limit: Limit | None
    wall_s: float
    waited_s: float = 0.0

    @property
    def timed_out(self) -> bool:
        """Whether it was stopped for its time, on the wall or on the CPU."""
        return self.limit in ("wall", "cpu")


class Sandbox(Protocol):
    """Runs Python source as `__main__`; `files` (relative paths and texts) lie in its working folder.

    Both methods raise `SandboxError` where the mechanism fails, and for nothing that a program can do.
    """

    @property
    def kind(self) -> str: ...

    def run(
        self, program: str, *, stdin: str = "", files: Mapping[str, str] = {}, limits: Limits = DEFAULT
    ) -> Execution:
        """One program, from standard input to output."""
        ...

    def converse(
        self,
        checker: str,
        program: str,
        *,
        checker_files: Mapping[str, str] = {},
        files: Mapping[str, str] = {},
        limits: Limits = DEFAULT,
    ) -> tuple[Execution, Execution]:
        """Two programs, each in a sandbox of its own, the output of each being the input of the other.

        What they say otherwise stands in `stderr`; both are ended when the checker ends.
        """
        ...


def relative(files: Mapping[str, str]) -> dict[str, str]:
    """The same files; raises ValueError for a name that leads out of the working folder."""
    for name in files:
        if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise ValueError(f"{name!r} is no relative path such as data/input.txt")
    return dict(files)


@contextmanager
def told_as_sandbox_error() -> Iterator[None]:
    """Errors of the system (no file descriptor, process or disk space is left) are the sandbox's, not the program's."""
    try:
        yield
    except OSError as error:
        raise SandboxError(f"the sandbox cannot be started: {error}") from error
