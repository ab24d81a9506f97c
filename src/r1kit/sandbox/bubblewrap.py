"""The sandbox `bubblewrap`: separate namespaces for users, processes, network, mounts and the rest.

Inside there is a read-only view of the system folders and a writable `/tmp` of limited size. If r1kit runs as root, the
real uid is dropped before bwrap starts: `--uid` is only a mapping, and limits on processes do not apply to root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from r1kit.sandbox import process, seccomp
from r1kit.sandbox.interface import Limits, SandboxError, system_errors_as_sandbox_errors
from r1kit.sandbox.local import LocalSandbox
from r1kit.sandbox.python import Interpreter

INSTALL = "install it (apt-get install bubblewrap, dnf install bubblewrap, apk add bubblewrap)"
# --disable-userns needs an explicit --unshare-user. Without --cap-drop, root would keep all capabilities inside.
NAMESPACES = (
    "--unshare-user --unshare-all --disable-userns --cap-drop ALL --die-with-parent --new-session --hostname sandbox"
)
_NEEDED = ("--size", "--disable-userns", "--add-seccomp-fd")


@dataclass(frozen=True, slots=True)
class Bubblewrap(LocalSandbox):
    """Runs programs under bwrap with one interpreter."""

    interpreter: Interpreter
    executable: str
    kind: str = "bubblewrap"

    @classmethod
    def find(cls, interpreter: Interpreter) -> Bubblewrap:
        """The system's bwrap; raises `SandboxError` with a remedy if it is missing or too old."""
        executable = shutil.which("bwrap")
        if executable is None:
            raise SandboxError(f"there is no bwrap: {INSTALL}")
        text = subprocess.run([executable, "--help"], capture_output=True, text=True, check=False).stdout
        if lacking := [option for option in _NEEDED if option not in text]:
            raise SandboxError(f"{executable} is too old, it has no {', '.join(lacking)}: install 0.8 or newer")
        return cls(interpreter, executable)

    @contextmanager
    def start(self, files: Mapping[str, str], limits: Limits) -> Iterator[process.Start]:
        """See `LocalSandbox`; the files travel in the bundle."""
        prefix = [self.executable, *NAMESPACES.split()]
        for place, target in self.interpreter.links():
            prefix += ["--symlink", target, place]
        prefix += ["--proc", "/proc", "--dev", "/dev", "--size", str(limits.file_mb << 20), "--tmpfs", "/tmp"]
        for place in (
            *self.interpreter.folders,
            *self.interpreter.packages,
        ):  # after /tmp, which would hide those inside
            prefix += ["--ro-bind", place, place]
        # /dev is a writable tmpfs without a limit: /dev/shm could fill half of the machine's memory. Through /proc, a
        # program could lower its own priority, and then look like a program on a busy machine.
        prefix += ["--chdir", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/proc", "--remount-ro", "/"]
        with _seccomp_filter() as inherited:
            for descriptor in inherited:
                prefix += ["--add-seccomp-fd", str(descriptor)]
            # Three processes: bwrap waiting outside, bwrap as init inside, and Python.
            python, packages = self.interpreter.path, self.interpreter.packages
            yield process.Start(prefix=prefix, python=python, packages=packages, inherited=inherited, processes=3)


@contextmanager
def _seccomp_filter() -> Iterator[tuple[int, ...]]:
    """The system call filter as a file descriptor; empty if the numbers of this machine's calls are unknown."""
    if not seccomp.supported():
        yield ()
        return
    with system_errors_as_sandbox_errors():
        descriptor = os.memfd_create("filter")
    try:
        os.write(descriptor, seccomp.program(alone=False))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield (descriptor,)
    finally:
        os.close(descriptor)
