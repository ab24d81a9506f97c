"""A sandboxed process, seen from outside: its pipes, its limits, and its end, which none of its children survives."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from r1kit.sandbox.interface import (
    Abandon,
    Execution,
    Limit,
    Limits,
    SandboxError,
    relative,
    system_errors_as_sandbox_errors,
)
from r1kit.sandbox.pipes import END_SECONDS, drive
from r1kit.sandbox.waiting import Load, family, files_in_tmp, load_of

CHILD = Path(__file__).with_name("child.py")
START_SECONDS = 180.0  # limit until the program's first instruction, generous for busy machines
NOBODY = 65534
Program = tuple[str, Mapping[str, str]]  # source and files
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONINTMAXSTRDIGITS": "0",  # contests have numbers of more than 4,300 digits; the CPU limit bounds the time
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_LOOK_SECONDS = (0.1, 0.9)  # random interval between looks at a running process, so that it cannot prepare for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a mechanism starts Python: the command before the interpreter, the folder, and the number of processes."""

    prefix: Sequence[str]
    python: str
    packages: tuple[str, ...] = ()
    cwd: str | None = None
    inherited: tuple[int, ...] = ()
    landlock: Mapping[str, Any] | None = None
    files_in_bundle: bool = True
    processes: int = 1


def run_program(
    start: Start, program: str, stdin: str, files: Mapping[str, str], limits: Limits, abandon: Abandon | None = None
) -> Execution:
    """Run one program on `stdin`; raises `SandboxError` if it could not be started."""
    with system_errors_as_sandbox_errors(), contextlib.ExitStack() as stack:
        running = Running(start, program, files, limits, stack, stdin=None, stdout=None)
        running.feed = memoryview(stdin.encode("utf-8", "replace"))
        drive([running], abandon)
        return running.execution()


def converse(
    starts: tuple[Start, Start], programs: tuple[Program, Program], limits: Limits, abandon: Abandon | None = None
) -> tuple[Execution, Execution]:
    """Run two programs, each writing to the other's input. When the first (the checker) ends, the second is stopped."""
    with system_errors_as_sandbox_errors(), contextlib.ExitStack() as stack:
        to_second, to_first = os.pipe(), os.pipe()
        ends = [*to_second, *to_first]
        stack.callback(_close_all, ends)
        pairs = ((to_first[0], to_second[1]), (to_second[0], to_first[1]))
        checker, program = (
            Running(start, source, files, limits, stack, stdin=stdin, stdout=stdout)
            for start, (source, files), (stdin, stdout) in zip(starts, programs, pairs, strict=True)
        )
        _close_all(ends)  # the processes now hold the only copies: when one ends, the other's input ends
        checker.when_ended = program.dismiss
        checker.group = program.group = (checker, program)
        drive([checker, program], abandon)
        return checker.execution(), program.execution()


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def dropped() -> dict[str, Any]:
    """Popen arguments that make root start a process as nobody: limits on processes do not apply to root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def _bundle(start: Start, program: str, files: Mapping[str, str], limits: Limits) -> int:
    """An anonymous file that holds everything `child.py` needs."""
    content = {
        "program": program,
        "files": relative(files) if start.files_in_bundle else {},
        "limits": limits.model_dump(),
        "landlock": start.landlock,
        "packages": start.packages,
    }
    descriptor = os.memfd_create("bundle")
    with open(os.dup(descriptor), "wb") as file:
        file.write(ascii(content).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


class Running:
    """A running process. `stdin` and `stdout` are descriptors of a conversation, or None for pipes to this process."""

    def __init__(
        self,
        start: Start,
        program: str,
        files: Mapping[str, str],
        limits: Limits,
        stack: contextlib.ExitStack,
        *,
        stdin: int | None,
        stdout: int | None,
    ) -> None:
        self.limits, self.feed, self.stopped, self.dismissed = limits, memoryview(b""), False, False
        self.alone, self.processes = True, start.processes
        self.limit: Limit | None = None
        self._load = self.load_before = Load(0.0, 0.0, known=False)
        self.waited_s = self.idle_s = self.busy_s = self.looked_at = 0.0
        self.group: Sequence[Running] = (self,)
        self.started: float | None = None
        self.ended: float | None = None
        self.deadline = time.monotonic() + START_SECONDS
        self.next_look = time.monotonic() + random.uniform(*_LOOK_SECONDS)
        self.when_ended: Callable[[], None] | None = None
        self.read: dict[int, bytearray] = {}
        bundle = _bundle(start, program, files, limits)
        stack.callback(os.close, bundle)
        self.ready, theirs = os.pipe()
        stack.callback(os.close, self.ready)
        try:
            self.process = self._spawn(start, bundle, theirs, stdin, stdout)
        finally:
            os.close(theirs)
        for pipe in self.pipes:
            stack.callback(pipe.close)
        stack.callback(self.process.wait)
        stack.callback(self.kill)  # first: callbacks run backwards
        self.exit = os.pidfd_open(self.process.pid)
        stack.callback(os.close, self.exit)
        for pipe in self.pipes:
            os.set_blocking(pipe.fileno(), False)
            if pipe is not self.process.stdin:
                self.read[pipe.fileno()] = bytearray()

    def _spawn(
        self, start: Start, bundle: int, ready: int, stdin: int | None, stdout: int | None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*start.prefix, start.python, "-sSBc", CHILD.read_text(encoding="utf-8"), str(bundle), str(ready)],
            stdin=subprocess.PIPE if stdin is None else stdin,
            stdout=subprocess.PIPE if stdout is None else stdout,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=(bundle, ready, *start.inherited),
            env=_ENVIRONMENT,
            cwd=start.cwd or "/",
            umask=0o077,
            start_new_session=True,
            **dropped(),
        )

    @property
    def pipes(self) -> list[IO[bytes]]:
        """The pipes between the process and this one: input, output, errors."""
        return [pipe for pipe in (self.process.stdin, self.process.stdout, self.process.stderr) if pipe is not None]

    def stop(self, limit: Limit | None) -> None:
        """End the process because of a limit; its output so far is kept."""
        self.limit, self.stopped = self.limit or limit, True
        self.deadline = time.monotonic() + END_SECONDS
        self.kill()

    def dismiss(self) -> None:
        """End the process because it is no longer needed, even if it has not begun."""
        self.dismissed = True
        self.kill()

    def kill(self) -> None:
        """End the process and all that it started: its process group, and by die-with-parent its whole namespace."""
        if self.process.returncode is None:  # once reaped, its number may belong to another process
            if self.ended is None:
                self.look()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def look(self) -> None:
        """Update waiting and idle time, and stop the process if it is idle for too long or has too many files.

        A process may wait for processes of its own, and those it never reaps hide their CPU time. So once it was seen
        with more processes than its mechanism uses, its wait says nothing about the machine and counts as 0.
        """
        members = list(family(self.process.pid))
        self.alone = self.alone and (self.started is None or len(members) <= self.processes)
        longest = max(self.waited_s, self.load.waited - self.load_before.waited)
        self.waited_s = longest if self.alone else 0.0
        self.next_look = time.monotonic() + random.uniform(*_LOOK_SECONDS)
        if self.started is None or self.stopped:
            return
        busy = sum(running.load.busy for running in self.group)
        # This process may be late itself, with data of the program in its pipes: that time is not the program's.
        passed = min(time.monotonic() - self.looked_at, _LOOK_SECONDS[1])
        self.idle_s += passed - (busy - self.busy_s)
        self.looked_at, self.busy_s = time.monotonic(), busy
        if files_in_tmp(members) > self.limits.files:
            self.stop("files")
        elif self.load.known and self.idle_s > self.limits.idle_s:
            self.group[-1].stop("wall")  # in a conversation, the program under test

    @property
    def load(self) -> Load:
        """The load of the process so far."""
        if self.ended is None:  # the number of an ended process may belong to another one
            self._load = load_of(self.process.pid)
        return self._load

    def start_clock(self) -> None:
        """Count time from now on: the program is about to begin."""
        self.load_before = self.load
        self.waited_s, self.busy_s = 0.0, sum(running.load.busy for running in self.group)
        self.started = self.looked_at = time.monotonic()
        self.deadline = self.started + self.limits.wall_s

    def execution(self) -> Execution:
        """The result of an ended process; raises `SandboxError` if the program never began."""
        texts = [bytes(data).decode("utf-8", "replace") for data in self.read.values()]
        stdout, stderr = texts if len(texts) == 2 else ("", *texts)
        if self.started is None and not self.dismissed:
            reason = stderr.strip()[-500:] or f"no output, exit status {self.process.returncode}"
            raise SandboxError(f"the sandbox did not start: {reason}")
        status = self.process.returncode
        status = 128 - status if status > 128 else status  # how bubblewrap and shells report a signal
        limit = self.limit
        if limit is None and status == -signal.SIGXCPU:
            limit = "cpu"
        if limit is None and status != 0 and "MemoryError" in stderr[-500:]:
            limit = "memory"
        return Execution(
            stdout=stdout,
            stderr=stderr,
            exit_status=None if self.limit else status,
            limit=limit,
            wall_s=0.0 if self.started is None or self.ended is None else self.ended - self.started,
            waited_s=self.waited_s,
        )
