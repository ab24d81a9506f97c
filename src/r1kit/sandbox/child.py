"""The first code that runs inside a sandbox: `python -c <this file> BUNDLE_FD READY_FD`. Standard library, Python 3.8+.

It reads the bundle (program, files, limits, packages, Landlock rules), writes the files, drops the rights that the
mechanism around it has left, reports that it is ready, and becomes the program. No untrusted code has run until then,
so a failing sandbox is never mistaken for a failing program.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

_READ_FILE, _READ_DIR, _WRITE_FILE = 4, 8, 2
_PDEATHSIG, _NO_NEW_PRIVS, _SECCOMP, _SIGKILL = 1, 38, 22, 9


def main() -> None:
    """Prepare, report ready, and run the program in a fresh `__main__`."""
    bundle_fd, ready_fd = (int(text) for text in sys.argv[1:3])
    with os.fdopen(bundle_fd, "rb") as file:
        bundle = eval(file.read())  # a literal from r1kit itself; importing json would double the start-up time
    for name, text in bundle["files"].items():
        if os.path.dirname(name):
            os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "w", encoding="utf-8", errors="replace", newline="") as output:
            output.write(text)
    restrict(bundle["limits"])
    if bundle["landlock"] is not None:
        alone(bundle["landlock"])
    program = bundle["program"]
    module = type(sys)("__main__")
    module.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"], sys.argv = module, ["main.py"]
    sys.path[:] = [os.getcwd(), *filter(None, sys.path), *bundle["packages"]]
    os.write(ready_fd, b"1")
    os.close(ready_fd)
    exec(compile(program, "main.py", "exec"), module.__dict__)


def restrict(limits: dict[str, float]) -> None:
    """Set resource limits, soft and hard alike, so they can only shrink. CPU has one more second to report SIGXCPU."""
    megabyte, seconds = 1 << 20, int(-(-limits["cpu_s"] // 1))
    values = {
        resource.RLIMIT_AS: limits["memory_mb"] * megabyte,
        resource.RLIMIT_FSIZE: limits["file_mb"] * megabyte,
        resource.RLIMIT_NOFILE: limits["open_files"],
        resource.RLIMIT_NPROC: limits["processes"],
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in values.items():
        resource.setrlimit(kind, (int(value), int(value)))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def alone(setup: dict[str, Any]) -> None:
    """Without namespaces: Landlock for files, a system call filter for everything else, and death with the parent."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, result: int) -> int:
        if result < 0:
            sys.exit(f"{name}: {os.strerror(ctypes.get_errno())}")
        return result

    call("prctl PDEATHSIG", libc.prctl(_PDEATHSIG, _SIGKILL, 0, 0, 0))
    if os.getppid() != setup["parent"]:  # the parent ended before PDEATHSIG was set
        sys.exit("the parent is gone")
    call("prctl NO_NEW_PRIVS", libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    attributes = bytes.fromhex(setup["ruleset"])
    ruleset = call("landlock_create_ruleset", libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0))
    for path, write in setup["paths"]:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # this uid cannot reach the path, so it cannot read it either
        allowed = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0) | (_WRITE_FILE if write else 0)
        rule = allowed.to_bytes(8, sys.byteorder) + opened.to_bytes(4, sys.byteorder)
        call("landlock_add_rule", libc.syscall(445, ruleset, 1, rule, 0))
        os.close(opened)
    call("landlock_restrict_self", libc.syscall(446, ruleset, 0))
    os.close(ruleset)
    code = ctypes.create_string_buffer(bytes.fromhex(setup["filter"]))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    filled = Program(len(code.raw) // 8, ctypes.cast(code, ctypes.c_void_p))
    call("prctl SECCOMP", libc.prctl(_SECCOMP, 2, ctypes.byref(filled), 0, 0))


if __name__ == "__main__":
    main()
