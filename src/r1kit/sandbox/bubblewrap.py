"""The sandbox `bubblewrap`: namespaces of its own for users, processes, network, mounts and the rest.

As root the real uid is dropped before bwrap starts: `--uid` is only a mapping, and limits on processes do not hold
for root. Inside there is a read-only view of the system folders, a `/tmp` of limited size, and nothing else to write.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from r1kit.sandbox import process, seccomp
from r1kit.sandbox.interface import DEFAULT, Execution, Limits, SandboxError, told_as_sandbox_error
from r1kit.sandbox.python import Interpreter

INSTALL = "install it (apt-get install bubblewrap, dnf install bubblewrap, apk add bubblewrap)"
_NEEDED = ("--size", "--disable-userns", "--add-seccomp-fd")


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Runs programs under bwrap with one interpreter."""

    interpreter: Interpreter
    executable: str
    kind: str = "bubblewrap"

    @classmethod
    def find(cls, interpreter: Interpreter) -> Bubblewrap:
        """The one of this system; raises `SandboxError` with what to do where it is missing or too old."""
        executable = shutil.which("bwrap")
        if executable is None:
            raise SandboxError(f"there is no bwrap: {INSTALL}")
        text = subprocess.run([executable, "--help"], capture_output=True, text=True, check=False).stdout
        if lacking := [option for option in _NEEDED if option not in text]:
            raise SandboxError(f"{executable} is too old, it has no {', '.join(lacking)}: install 0.8 or newer")
        return cls(interpreter, executable)

    def run(
        self, program: str, *, stdin: str = "", files: Mapping[str, str] = {}, limits: Limits = DEFAULT
    ) -> Execution:
        """See `Sandbox`."""
        with self._start(limits) as start:
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
        with self._start(limits) as first, self._start(limits) as second:
            done = process.converse([first, second], [(checker, checker_files), (program, files)], limits)
        return done[0], done[1]

    @contextmanager
    def _start(self, limits: Limits) -> Iterator[process.Start]:
        with _filter() as inherited:
            prefix = [self.executable, *_namespaces(), *_view(self.interpreter, limits)]
            for descriptor in inherited:
                prefix += ["--add-seccomp-fd", str(descriptor)]
            yield process.Start(  # bwrap, which waits outside, bwrap as init inside, and Python
                prefix=prefix, python=self.interpreter.path, inherited=inherited, processes=3
            )


def _namespaces() -> list[str]:
    # As root all capabilities would stay inside without --cap-drop; --disable-userns needs --unshare-user spelled out.
    return [
        "--unshare-user",
        "--unshare-all",
        "--disable-userns",
        "--cap-drop",
        "ALL",
        "--die-with-parent",
        "--new-session",
        "--hostname",
        "sandbox",
    ]


def _view(interpreter: Interpreter, limits: Limits) -> list[str]:
    view = []
    for folder in interpreter.folders:
        view += ["--ro-bind", folder, folder]
    for place, target in interpreter.links():
        view += ["--symlink", target, place]
    view += ["--proc", "/proc", "--dev", "/dev", "--size", str(limits.file_mb << 20), "--tmpfs", "/tmp"]
    # both are tmpfs too, without a limit, and writable: /dev/shm would hold half of the machine's memory
    # in /proc a program could put itself last in line for processors, and look like one on a busy machine
    return [*view, "--chdir", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/"]


@contextmanager
def _filter() -> Iterator[tuple[int, ...]]:
    """The system call filter as a file descriptor, or none where its numbers are not known."""
    if not seccomp.supported():
        yield ()
        return
    with told_as_sandbox_error():
        descriptor = os.memfd_create("filter")
    try:
        os.write(descriptor, seccomp.program(alone=False))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield (descriptor,)
    finally:
        os.close(descriptor)
