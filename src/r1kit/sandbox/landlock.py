"""The sandbox `landlock`, for machines without namespaces: one process, one thread, no writable files, no network.

Landlock limits which files can be opened. A system call filter refuses sockets, new processes, signals, and changes to
files that Landlock does not cover. Root drops its uid first. It is stricter than bubblewrap on purpose: resources that
cannot be counted without namespaces are refused altogether.
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
from r1kit.sandbox.interface import Limits, SandboxError, relative, system_errors_as_sandbox_errors
from r1kit.sandbox.local import LocalSandbox
from r1kit.sandbox.python import Interpreter

_OLDEST = 3  # before version 3, O_TRUNC could empty a read-only file
_DEVICES = (("/dev/null", True), ("/dev/zero", False), ("/dev/urandom", False), ("/dev/random", False))


@dataclass(frozen=True, slots=True)
class Landlock(LocalSandbox):
    """Runs programs under Landlock and seccomp with one interpreter."""

    interpreter: Interpreter
    version: int
    kind: str = "landlock"

    @classmethod
    def find(cls, interpreter: Interpreter) -> Landlock:
        """The Landlock of this kernel; raises `SandboxError` if it has none, or one that is too old to hold."""
        if sys.platform != "linux" or not seccomp.supported():
            raise SandboxError("landlock needs Linux on x86_64 or aarch64")
        version = abi()
        if version < _OLDEST:
            have = f"this kernel has Landlock version {version}" if version > 0 else "this kernel has no Landlock"
            raise SandboxError(f"{have}: the sandbox needs version {_OLDEST} or later (Linux 6.2)")
        temporary = Path(tempfile.gettempdir()).resolve()
        for folder in (temporary, *temporary.parents) if process.dropped() else ():
            if not folder.stat().st_mode & 0o001:  # the uid that runs programs cannot enter it
                raise SandboxError(f"{folder} is closed to other users: set TMPDIR to a folder that everyone can enter")
        return cls(interpreter, version)

    @contextmanager
    def start(self, files: Mapping[str, str], limits: Limits) -> Iterator[process.Start]:
        """See `LocalSandbox`; the files are written into the working folder beforehand."""
        with system_errors_as_sandbox_errors(), tempfile.TemporaryDirectory(prefix="r1kit-") as folder:
            for name, text in relative(files).items():
                file = Path(folder, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", errors="replace", newline="")
            for path in (Path(folder), *Path(folder).rglob("*")):
                path.chmod(0o755)  # whatever the umask is: the uid that runs the program must reach it
            seen = (*self.interpreter.folders, *self.interpreter.packages)
            paths = [(".", False), *((place, False) for place in seen), *_DEVICES]
            setup = {
                "parent": os.getpid(),
                "paths": paths,
                "ruleset": ruleset(self.version).hex(),
                "filter": seccomp.program(alone=True).hex(),
            }
            python, packages = self.interpreter.path, self.interpreter.packages
            yield process.Start(
                prefix=(), python=python, packages=packages, cwd=folder, landlock=setup, files_in_bundle=False
            )


def abi() -> int:
    """The version of the kernel's Landlock; 0 or less if it has none."""
    return int(ctypes.CDLL(None, use_errno=True).syscall(444, None, ctypes.c_size_t(0), 1))


def ruleset(version: int) -> bytes:
    """All rights that this version can refuse: on files, TCP, abstract sockets, and signals to others."""
    rights = 15 if version < 5 else 16
    masks: list[int] = [(1 << rights) - 1]
    if version >= 4:
        masks.append(0b11)  # bind and connect
    if version >= 6:
        masks.append(0b11)  # abstract sockets and signals
    return struct.pack(f"={len(masks)}Q", *masks)
