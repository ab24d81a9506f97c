"""Proof of what a sandbox enforces here: each probe is a program that tries the forbidden thing, and reports.

A probe holds only if its program says so in full: one that dies, is silent or reports success of what it should not
be able to do proves the wall broken. The quick ones run before a sandbox is used at all.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from r1kit.sandbox import process
from r1kit.sandbox.interface import Execution, Limits, Sandbox

_LIMITS = Limits(wall_s=120, cpu_s=5, memory_mb=256, processes=8, file_mb=8, output_kb=64)
_BRIEF = Limits(wall_s=1, cpu_s=1, memory_mb=256, processes=8, file_mb=8, output_kb=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """`program` tries `what`, with `{...}` filled in from the host; `held` judges the execution."""

    what: str
    program: str
    held: Callable[[Execution], bool]
    quick: bool = False
    limits: Limits = _LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One probe's result: what was tried, whether the wall held, and what the program met with."""

    what: str
    held: bool
    detail: str


def refused(done: Execution) -> bool:
    """The program reached its last line, and every attempt on the way was refused."""
    return done.exit_status == 0 and done.stdout.rstrip().endswith("done") and "SUCCEEDED" not in done.stdout


_DONE = '\nprint("done")\n'
# `attempt` reports one try; a program that ends with "done" has made them all.
_ATTEMPT = """
import os, sys
def attempt(name, function, *arguments, seen="SUCCEEDED"):
    try:
        result = function(*arguments)
    except BaseException as error:
        print(name, "refused:", type(error).__name__, error)
    else:
        print(name, seen, repr(result)[:60])
"""
_NETWORK = """
import socket
def reach(kind, family, address):
    with socket.socket(family, kind) as made:
        made.settimeout(2)
        made.connect(address)
        made.send(b"x")
attempt("tcp", reach, socket.SOCK_STREAM, socket.AF_INET, ("127.0.0.1", {port}))
attempt("udp", reach, socket.SOCK_DGRAM, socket.AF_INET, ("127.0.0.1", {port}), seen="sent into the void")
attempt("abstract socket", reach, socket.SOCK_STREAM, socket.AF_UNIX, chr(0) + {abstract!r})
attempt("socket in a file", reach, socket.SOCK_STREAM, socket.AF_UNIX, {socket!r})
attempt("letter to a file", reach, socket.SOCK_DGRAM, socket.AF_UNIX, {letters!r})
pair = lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
attempt("letter through a pair", lambda: pair()[0].sendto(b"x", {letters!r}))
"""
_READ = """
for path in [{secret!r}, "/etc/passwd", "/etc/hostname", "/proc/{neighbour}/environ", "/proc/sysrq-trigger"]:
    attempt("read " + path, lambda: open(path, "rb").read(1) or 1 / 0)
for path in [{folder!r}, {home!r}, "/proc/{neighbour}/root"]:
    attempt("list " + path, lambda: os.listdir(path) or 1 / 0)
"""
_WRITE = """
for folder in [{folder!r}, "/", "/usr", "/usr/lib", "/dev", "/dev/shm", "/var/tmp", "/run", "/etc", {home!r}]:
    attempt("write in " + folder, lambda: open(os.path.join(folder, "r1kit-probe"), "w"))
for path in [{secret!r}, "/usr/bin/env"]:
    attempt("change mode of " + path, os.chmod, path, 0o700)
    attempt("truncate " + path, os.truncate, path, 0)
    attempt("touch " + path, os.utime, path, (0, 0))
attempt("link", os.symlink, "/", "/usr/r1kit-probe")
attempt("read through a link", lambda: (os.symlink({secret!r}, "/tmp/way"), open("/tmp/way").read()))
attempt("write through a link", lambda: open("/tmp/way", "w"))
"""
_PROCESSES = """
import time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except OSError as error:
    print("after", made, "processes:", error)
print("SUCCEEDED" if made > 16 else "done")
"""
_THREADS = """
import threading, time
made = 0
try:
    while made < 200:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        made += 1
except RuntimeError as error:
    print("after", made, "threads:", error)
print("SUCCEEDED" if made > 16 else "done", flush=True)
os._exit(0)
"""
_POWER = """
def status():
    return dict(line.split(":", 1) for line in open("/proc/self/status"))
try:
    found = status()
except OSError:  # Landlock hides /proc too
    found = {{"CapEff": "0", "CapBnd": "0", "NoNewPrivs": "1"}}
print("capabilities", found["CapEff"].strip(), "uid", os.getuid())
if int(found["CapEff"], 16) or os.geteuid() == 0 or found["NoNewPrivs"].strip() != "1":
    print("SUCCEEDED", os.geteuid(), found["NoNewPrivs"])
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def power(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
attempt("new user namespace", power, "unshare", 0x10000000)
attempt("mount", power, "mount", b"none", b"/tmp", b"tmpfs", 0, None)
attempt("setuid", os.setuid, 0)
attempt("chroot", os.chroot, "/tmp")
attempt("trace", power, "ptrace", 16, {neighbour}, 0, 0)
"""
_SIGNALS = """
attempt("kill a neighbour", os.kill, {neighbour}, 9)
attempt("kill all", os.kill, -1, 9, seen="none but its own")
"""
_MEMORY = 'attempt("2 GB", lambda: len(bytearray(2 << 30)))'
_HIDDEN_MEMORY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
attempt("memfd", os.memfd_create, "x")
def shared():
    if libc.shmget(0, 1 << 30, 0o1600) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
attempt("System V memory", shared)
"""
_DISK = """
def fill():
    for number in range(100):
        with open("/tmp/%d" % number, "wb") as file:
            file.write(bytes(1 << 20))
attempt("100 MB of files", fill)
"""
_NEIGHBOURLY = """
import ctypes, fcntl
libc = ctypes.CDLL(None, use_errno=True)
def watch():
    if libc.inotify_init1(0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
attempt("watch", watch)
attempt("lock", lambda: fcntl.flock(os.open(os.__file__, os.O_RDONLY), fcntl.LOCK_SH))
attempt("stand back", lambda: open("/proc/self/autogroup", "w").write("19"))
"""
PROBES = (
    Probe(what="no network", program=_NETWORK + _DONE, held=refused, quick=True),
    Probe(what="no file of the host is read", program=_READ + _DONE, held=refused, quick=True),
    Probe(what="no file of the host is written", program=_WRITE + _DONE, held=refused, quick=True),
    Probe(what="processes are counted", program=_PROCESSES, held=refused, quick=True),
    Probe(what="no privileges, and no way to them", program=_POWER + _DONE, held=refused, quick=True),
    Probe(what="no signals to others", program=_SIGNALS + _DONE, held=refused, quick=True),
    Probe(what="memory is limited", program=_MEMORY + _DONE, held=refused, quick=True),
    Probe(what="memory that no limit counts is refused", program=_HIDDEN_MEMORY + _DONE, held=refused),
    Probe(what="files of the host are neither watched nor locked", program=_NEIGHBOURLY + _DONE, held=refused),
    Probe(what="files are limited", program=_DISK + _DONE, held=refused),
    Probe(what="threads are counted", program=_THREADS, held=refused),
    Probe(
        what="wall time is limited",
        program="import time\ntime.sleep(60)",
        limits=_BRIEF,
        held=lambda done: done.limit == "wall" and done.wall_s < 60,
    ),
    Probe(
        what="CPU time is limited",
        program="while True: pass",
        limits=_LIMITS.override({"cpu_s": 1}),
        held=lambda done: done.limit == "cpu",
    ),
    Probe(
        what="output is limited",
        program='while True: print("x" * 1000)',
        held=lambda done: done.limit == "output" and len(done.stdout) <= 64 * 1024,
    ),
)


def examine(sandbox: Sandbox, *, quick: bool) -> list[Finding]:
    """What holds here, probe by probe; raises `SandboxError` where nothing can be run at all."""
    with tempfile.TemporaryDirectory(prefix="r1kit-") as folder, ExitStack() as stack:
        host = _Host(Path(folder), stack)
        return [_try(sandbox, probe, host) for probe in PROBES if probe.quick or not quick]


def _try(sandbox: Sandbox, probe: Probe, host: _Host) -> Finding:
    program = _ATTEMPT + probe.program.format(**host.facts)
    done = sandbox.run(program, limits=probe.limits)
    harm = host.harm()
    held = probe.held(done) and not harm
    if held and probe.held is not refused:
        return Finding(what=probe.what, held=True, detail=f"stopped by its {done.limit} limit")
    told = [line for line in done.stdout.splitlines() if line != "done"]
    wrong = [*harm, *(line for line in told if "SUCCEEDED" in line), *done.stderr.splitlines()[-1:]]
    detail = "; ".join(told[:1] if held else wrong[:3])[:200]
    return Finding(what=probe.what, held=held, detail=detail or f"exit status {done.exit_status}, limit {done.limit}")


class _Host:
    """Things of the host that a program must not get at: a secret file, sockets, a process of the same user."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.secret = folder, folder / "secret"
        folder.chmod(0o755)
        self.secret.write_text("secret")
        self.secret.chmod(0o644)
        self.before = self._files()
        tcp, self.udp, abstract, named, self.letters = (
            stack.enter_context(socket.socket(family, kind))
            for family, kind in (
                (socket.AF_INET, socket.SOCK_STREAM),
                (socket.AF_INET, socket.SOCK_DGRAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_STREAM),
                (socket.AF_UNIX, socket.SOCK_DGRAM),
            )
        )
        name = f"r1kit-{secrets.token_hex(8)}"
        tcp.bind(("127.0.0.1", 0))
        self.udp.bind(tcp.getsockname())
        abstract.bind(f"\0{name}")
        for bound, file in ((named, "socket"), (self.letters, "letters")):
            bound.bind(str(folder / file))
            (folder / file).chmod(0o777)
        for inbox in (self.udp, self.letters):
            inbox.setblocking(False)
        for server in (tcp, abstract, named):
            server.listen()
        self.neighbour = subprocess.Popen(["sleep", "600"], **process.dropped())
        stack.callback(self._end_neighbour)
        self.facts = {
            "secret": str(self.secret),
            "folder": str(folder),
            "socket": str(folder / "socket"),
            "letters": str(folder / "letters"),
            "abstract": name,
            "port": tcp.getsockname()[1],
            "home": os.path.expanduser("~"),
            "neighbour": self.neighbour.pid,
        }

    def harm(self) -> list[str]:
        """What the last program did to the host, as the host sees it."""
        arrived = 0
        for inbox in (self.udp, self.letters):
            with suppress(BlockingIOError):
                while True:
                    inbox.recv(1)
                    arrived += 1
        found = ["a datagram arrived at the host"] if arrived else []
        if self.neighbour.poll() is not None:
            found.append("a process of the host was killed")
        if self._files() != self.before:
            found.append("a file of the host was changed")
        return found

    def _files(self) -> tuple[object, ...]:
        status = self.secret.stat()
        names = [file.name for file in self.folder.iterdir() if file.name not in ("socket", "letters")]
        return names, self.secret.read_text(), status.st_mode, status.st_mtime_ns

    def _end_neighbour(self) -> None:
        self.neighbour.kill()
        self.neighbour.wait()
