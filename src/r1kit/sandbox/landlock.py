"""The sandbox `landlock`, where namespaces are refused: one process, one thread, nothing to write, no network.

Landlock limits which files can be opened, a system call filter refuses sockets, new processes, signals, and changes
to files that Landlock does not know about. As root the uid is dropped first. Stricter than bubblewrap on purpose:
what cannot be counted without namespaces is not allowed at all.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from r1kit.sandbox import process, seccomp
from r1kit.sandbox.interface import DEFAULT, Execution, Limits, SandboxError, relative, told_as_sandbox_error
from r1kit.sandbox.python import Interpreter

_OLDEST = 3  # before, O_TRUNC could empty a file that may only be read
_DEVICES = (("/dev/null", True), ("/dev/zero", False), ("/dev/urandom", False), ("/dev/random", False))


@dataclass(frozen=True, slots=True)
class Landlock:
    """Runs programs under Landlock and seccomp with one interpreter."""

    interpreter: Interpreter
    version: int
    kind: str = "landlock"

    @classmethod
    def find(cls, interpreter: Interpreter) -> Landlock:
        """That of this kernel; raises `SandboxError` where it has none or one that leaves too much open."""
        if sys.platform != "linux" or not seccomp.supported():
            raise SandboxError("landlock needs Linux on x86_64 or aarch64")
        version = abi()
        if version < _OLDEST:
            have = f"version {version}" if version > 0 else "none"
            raise SandboxError(
                f"the kernel's Landlock is {have}: version {_OLDEST} (Linux 6.2) is the oldest that holds"
            )
        _reachable(Path(tempfile.gettempdir()).resolve())
        return cls(interpreter, version)

    def run(
        self, program: str, *, stdin: str = "", files: Mapping[str, str] = {}, limits: Limits = DEFAULT
    ) -> Execution:
        """See `Sandbox`."""
        with self._start(files) as start:
            return process.run(start, program, stdin, files, limits)

    def converse(
        self,
        checker: str,
        program: str,
        *,
        checker_files: Mapping[str, str] = {},
        files: Mapping[str, str] = {},
        limits: Limits = DEFAULT,
    ) -> tuple[Execution, Execution]:
        """See `Sandbox`."""
        with self._start(checker_files) as first, self._start(files) as second:
            done = process.converse([first, second], [(checker, checker_files), (program, files)], limits)
        return done[0], done[1]

    @contextmanager
    def _start(self, files: Mapping[str, str]) -> Iterator[process.Start]:
        with told_as_sandbox_error(), tempfile.TemporaryDirectory(prefix="r1kit-") as folder:
            _write(Path(folder), files)
            paths = [(".", False), *((path, False) for path in self.interpreter.folders), *_DEVICES]
            setup = {
                "parent": os.getpid(),
                "paths": paths,
                "ruleset": ruleset(self.version).hex(),
                "filter": seccomp.program(alone=True).hex(),
            }
            yield process.Start(
                prefix=(), python=self.interpreter.path, cwd=folder, landlock=setup, files_in_bundle=False
            )


def abi() -> int:
    """The version of Landlock that the kernel offers; 0 or less where it offers none."""
    return int(ctypes.CDLL(None, use_errno=True).syscall(444, None, ctypes.c_size_t(0), 1))


def ruleset(version: int) -> bytes:
    """What is refused unless a rule allows it: every right on files, TCP, and signals to others, as far as known."""
    rights = 15 if version < 5 else 16
    known: list[int] = [(1 << rights) - 1]
    if version >= 4:
        known.append(0b11)  # bind and connect
    if version >= 6:
        known.append(0b11)  # abstract sockets and signals
    return struct.pack(f"={len(known)}Q", *known)


def _reachable(folder: Path) -> None:
    """Raises `SandboxError` where root's temporary folder is closed to the uid that programs run as."""
    if process.dropped() and (closed := [one for one in (folder, *folder.parents) if not one.stat().st_mode & 0o001]):
        raise SandboxError(f"{closed[0]} is closed to other users: set TMPDIR to a folder that everyone can enter")


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in relative(files).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", errors="replace", newline="")
    for made in (folder, *folder.rglob("*")):  # whatever the umask is: the uid that runs the program must reach them
        made.chmod(0o755)
