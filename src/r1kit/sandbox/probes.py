"""Tests what a sandbox enforces here: each probe is a program that attempts something forbidden, and reports.

A probe holds only if its program reports that every attempt was refused. A program that dies, prints nothing, or
succeeds shows that the sandbox leaks. The quick probes run before a sandbox is first used.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from r1kit.sandbox import probe_programs as programs
from r1kit.sandbox import process
from r1kit.sandbox.interface import Execution, Limits, Sandbox

_LIMITS = Limits(wall_s=120, cpu_s=5, memory_mb=256, processes=8, file_mb=8, output_kb=64)
_BRIEF = Limits(wall_s=1, cpu_s=1, memory_mb=256, processes=8, file_mb=8, output_kb=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """`program` attempts the opposite of `what`; `holds` judges its execution."""

    what: str
    program: str
    holds: Callable[[Execution], bool]
    quick: bool = False
    limits: Limits = _LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of a probe: what it tested, whether the sandbox held, and the program's report."""

    what: str
    held: bool
    detail: str


def refused(done: Execution) -> bool:
    """Whether the program reached its last line, and every attempt was refused."""
    return done.exit_status == 0 and done.stdout.rstrip().endswith("done") and "SUCCEEDED" not in done.stdout


PROBES = (
    Probe(what="no network", program=programs.NETWORK, holds=refused, quick=True),
    Probe(what="no file of the host is read", program=programs.READ, holds=refused, quick=True),
    Probe(what="no file of the host is written", program=programs.WRITE, holds=refused, quick=True),
    Probe(what="processes are counted", program=programs.PROCESSES, holds=refused, quick=True),
    Probe(what="no privileges, and no way to them", program=programs.POWER, holds=refused, quick=True),
    Probe(what="no signals to others", program=programs.SIGNALS, holds=refused, quick=True),
    Probe(what="memory is limited", program=programs.MEMORY, holds=refused, quick=True),
    Probe(what="memory that no limit counts is refused", program=programs.HIDDEN_MEMORY, holds=refused),
    Probe(what="files of the host are neither watched nor locked", program=programs.NEIGHBOURLY, holds=refused),
    Probe(what="files are limited", program=programs.DISK, holds=refused),
    Probe(what="threads are counted", program=programs.THREADS, holds=refused),
    Probe(
        what="wall time is limited",
        program="import time\ntime.sleep(60)",
        limits=_BRIEF,
        holds=lambda done: done.limit == "wall" and done.wall_s < 60,
    ),
    Probe(
        what="CPU time is limited",
        program="while True: pass",
        limits=_LIMITS.override({"cpu_s": 1}),
        holds=lambda done: done.limit == "cpu",
    ),
    Probe(
        what="output is limited",
        program='while True: print("x" * 1000)',
        holds=lambda done: done.limit == "output" and len(done.stdout) <= 64 * 1024,
    ),
)


def examine(sandbox: Sandbox, *, quick: bool) -> list[Finding]:
    """Run the probes; raises `SandboxError` if the sandbox cannot run programs at all."""
    with tempfile.TemporaryDirectory(prefix="r1kit-") as folder, ExitStack() as stack:
        host, findings = _Host(Path(folder), stack, sandbox), []
        for probe in (probe for probe in PROBES if probe.quick or not quick):
            done = sandbox.run(programs.ATTEMPT + probe.program.format(**host.facts), limits=probe.limits)
            harm = host.harm()
            holds = probe.holds(done) and not harm
            report = [line for line in done.stdout.splitlines() if line != "done"]
            faults = [*harm, *(line for line in report if "SUCCEEDED" in line), *done.stderr.splitlines()[-1:]]
            detail = "; ".join(report[:1] if holds else faults[:3])[:200]
            if holds and probe.holds is not refused:
                detail = f"stopped by its {done.limit} limit"
            detail = detail or f"exit status {done.exit_status}" + (
                f", stopped by its {done.limit} limit" if done.limit else ""
            )
            findings.append(Finding(what=probe.what, held=holds, detail=detail))
    return findings


class _Host:
    """Parts of the host that programs must not reach: a secret file, sockets, a process of the same user."""

    def __init__(self, folder: Path, stack: ExitStack, sandbox: Sandbox) -> None:
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
        stack.callback(self.neighbour.wait)  # callbacks run in reverse order
        stack.callback(self.neighbour.kill)
        self.facts = {
            "secret": str(self.secret),
            "folder": str(folder),
            "socket": str(folder / "socket"),
            "letters": str(folder / "letters"),
            "abstract": name,
            "port": tcp.getsockname()[1],
            **_home_facts(sandbox, folder),
            "neighbour": self.neighbour.pid,
        }

    def harm(self) -> list[str]:
        """Damage that the last program did, as the host sees it."""
        arrived = 0
        for inbox in (self.udp, self.letters):
            with suppress(BlockingIOError):
                while True:
                    inbox.recv(1)
                    arrived += 1
        harm = ["a datagram arrived at the host"] if arrived else []
        if self.neighbour.poll() is not None:
            harm.append("a process of the host was killed")
        if self._files() != self.before:
            harm.append("a file of the host was changed")
        return harm

    def _files(self) -> tuple[object, ...]:
        status = self.secret.stat()
        names = [file.name for file in self.folder.iterdir() if file.name not in ("socket", "letters")]
        return names, self.secret.read_text(), status.st_mode, status.st_mtime_ns


def _home_facts(sandbox: Sandbox, folder: Path) -> dict[str, object]:
    """The home folder, and the names in it that lead to the sandbox's interpreter and packages.

    Another folder stands for one where a program sees something that is not the home's own: `/`, which is the home of
    many containers, the working folder `/tmp`, and what programs are shown.
    """
    interpreter, home = getattr(sandbox, "interpreter", None), Path.home()
    places = [Path(place) for place in (*interpreter.folders, *interpreter.packages)] if interpreter else []
    if home == Path("/") or any(home.is_relative_to(place) for place in (Path("/tmp"), *places)):
        return {"home": str(folder), "shared": set()}
    below = [place.relative_to(home) for place in places if place.is_relative_to(home)]
    return {"home": str(home), "shared": {path.parts[0] for path in below}}
