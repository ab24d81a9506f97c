"""A sandboxed process from outside: pipes, caps on what is read, wall time, and an end that nothing survives."""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.sandbox.interface import Execution, Limit, Limits, SandboxError, relative, told_as_sandbox_error
from r1kit.sandbox.waiting import family, files_in_tmp, waited

CHILD = Path(__file__).with_name("child.py")
START_SECONDS = 180.0  # until the program's first instruction, on a machine that is busy
_END_SECONDS = 30.0  # a killed process that is still there then hangs in the kernel
NOBODY = 65534
_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_LOOK_SECONDS = (0.1, 0.9)  # between looks at a run that goes on, by chance: none can be prepared for
_PIECE = 65536
_NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a mechanism starts Python: what stands before the interpreter, where, and as which of how many processes."""

    prefix: Sequence[str]
    python: str
    cwd: str | None = None
    inherited: tuple[int, ...] = ()
    landlock: Mapping[str, Any] | None = None
    files_in_bundle: bool = True
    processes: int = 1


def run(start: Start, program: str, stdin: str, files: Mapping[str, str], limits: Limits) -> Execution:
    """One program with its input; raises `SandboxError` where it could not be started."""
    with told_as_sandbox_error(), contextlib.ExitStack() as stack:
        running = Running(start, program, files, limits, stack, stdin=None, stdout=None)
        running.feed = memoryview(stdin.encode("utf-8", "replace"))
        drive([running])
        return running.execution()


def converse(
    starts: Sequence[Start], programs: Sequence[tuple[str, Mapping[str, str]]], limits: Limits
) -> list[Execution]:
    """Two programs, output to input and back; the second is stopped when the first, the checker, has ended."""
    with told_as_sandbox_error(), contextlib.ExitStack() as stack:
        to_second, to_first = os.pipe(), os.pipe()
        ends = [*to_second, *to_first]
        stack.callback(_close_all, ends)
        pairs = ((to_first[0], to_second[1]), (to_second[0], to_first[1]))
        both = [
            Running(start, program, files, limits, stack, stdin=stdin, stdout=stdout)
            for start, (program, files), (stdin, stdout) in zip(starts, programs, pairs, strict=True)
        ]
        _close_all(ends)  # from here on, the end of either is the end of the other's input
        both[0].when_ended = both[1].dismiss
        drive(both)
        return [running.execution() for running in both]


def _close_all(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def dropped() -> dict[str, Any]:
    """Arguments of Popen by which root starts a process as nobody; limits on processes do not hold for root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


class Running:
    """One process on its way; `stdin` and `stdout` are descriptors of a conversation, or None for pipes of ours."""

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
        self.limits, self.feed, self.stopped, self.dismissed = limits, _NOTHING, False, False
        self.alone, self.processes = True, start.processes
        self.limit: Limit | None = None
        self.waited_s = self.waited_before = 0.0
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
        stack.callback(self._close)
        self.exit = os.pidfd_open(self.process.pid)
        stack.callback(os.close, self.exit)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                self.read[pipe.fileno()] = bytearray()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)

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

    def stop(self, limit: Limit | None) -> None:
        """End it for a limit; what it wrote so far stays."""
        self.limit, self.stopped = self.limit or limit, True
        self.deadline = time.monotonic() + _END_SECONDS
        self.kill()

    def dismiss(self) -> None:
        """End it because nobody needs it any more, even if it has not begun."""
        self.dismissed = True
        self.kill()

    def kill(self) -> None:
        """End the process and all that it started: its group, and by die-with-parent the whole namespace below it."""
        if self.process.returncode is None:  # once it is collected, its number may be another's
            if self.ended is None:
                self.look()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def look(self) -> None:
        """See how long it has waited for a processor, and how many files it has made.

        Processes that it starts may be what it waits for, and those that it never asks after hide their CPU time from
        everyone: a run that was seen with such has nothing to say about how busy the machine is.
        """
        found = list(family(self.process.pid))
        self.alone = self.alone and (self.started is None or len(found) <= self.processes)
        longest = max(self.waited_s, waited(self.process.pid) - self.waited_before)
        self.waited_s = longest if self.alone else 0.0
        self.next_look = time.monotonic() + random.uniform(*_LOOK_SECONDS)
        if self.started is not None and not self.stopped and files_in_tmp(found) > self.limits.files:
            self.stop("files")

    def execution(self) -> Execution:
        """The record of a process that has ended; raises `SandboxError` where the program never began."""
        texts = [bytes(data).decode("utf-8", "replace") for data in self.read.values()]
        stdout, stderr = texts if len(texts) == 2 else ("", *texts)
        if self.started is None and not self.dismissed:
            said = stderr.strip()[-500:] or f"no sign of life, status {self.process.returncode}"
            raise SandboxError(f"the sandbox did not start: {said}")
        status = self.process.returncode
        status = 128 - status if status > 128 else status  # bubblewrap's and shells' way to tell of a signal
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

    def _close(self) -> None:
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def drive(processes: Sequence[Running]) -> None:
    """Feed and read until all have ended, stopping each at its limits."""
    with selectors.DefaultSelector() as selector:
        watches = [_Watch(running, selector) for running in processes]
        while any(running.ended is None for running in processes):
            waiting = [min(running.deadline, running.next_look) for running in processes if running.ended is None]
            for key, _ in selector.select(max(0.0, min(waiting) - time.monotonic())):
                key.data(key.fd)  # one of these may have made another of them needless: `_register` skips it
            for watch in watches:
                watch.look_at_clock()


class _Watch:
    """The file descriptors of one process in the loop."""

    def __init__(self, running: Running, selector: selectors.BaseSelector) -> None:
        self.running, self.selector = running, selector
        self.open: set[int] = set()
        self._register(running.exit, selectors.EVENT_READ, self._ended)
        self._register(running.ready, selectors.EVENT_READ, self._ready)
        for descriptor in running.read:
            self._register(descriptor, selectors.EVENT_READ, self._read)
        if running.process.stdin is not None:
            self._register(running.process.stdin.fileno(), selectors.EVENT_WRITE, self._feed)

    def look_at_clock(self) -> None:
        running = self.running
        if running.ended is None and time.monotonic() >= running.next_look:
            running.look()
        if running.ended is not None or time.monotonic() < running.deadline:
            return
        if running.stopped:
            raise SandboxError(f"process {running.process.pid} does not end, {_END_SECONDS:g} s after it was killed")
        running.stop("wall" if running.started is not None else None)

    def _register(self, descriptor: int, event: int, function: Callable[[int], object]) -> None:
        def if_open(ready: int) -> None:  # the end of a process reads its pipes empty, whatever else was reported
            if ready in self.open:
                function(ready)

        self.selector.register(descriptor, event, if_open)
        self.open.add(descriptor)

    def _drop(self, descriptor: int) -> None:
        if descriptor in self.open:
            self.open.remove(descriptor)
            self.selector.unregister(descriptor)

    def _ready(self, descriptor: int) -> None:
        if os.read(descriptor, 1):
            self.running.waited_before = waited(self.running.process.pid)
            self.running.waited_s = 0.0
            self.running.started = time.monotonic()
            self.running.deadline = self.running.started + self.running.limits.wall_s
        self._drop(descriptor)

    def _read(self, descriptor: int) -> bool:
        """Take one piece; whether there may be more."""
        kept, room = self.running.read[descriptor], self.running.limits.output_kb * 1024
        try:
            piece = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return False
        if not piece:
            self._drop(descriptor)
            return False
        if len(kept) + len(piece) > room:
            self.running.stop("output")
            self._drop(descriptor)
        kept += piece[: room - len(kept)]
        return descriptor in self.open

    def _feed(self, descriptor: int) -> None:
        running = self.running
        stdin = running.process.stdin
        assert stdin is not None
        try:
            running.feed = running.feed[os.write(descriptor, running.feed[:_PIECE]) if running.feed else 0 :]
        except BrokenPipeError:  # it does not read its input, which is its own affair
            running.feed = _NOTHING
        if not running.feed:
            self._drop(descriptor)
            stdin.close()

    def _ended(self, _: int) -> None:
        """What it wrote before its end is in the pipes; a child that holds them open is not waited for."""
        if self.running.ready in self.open and self.running.started is None:
            os.set_blocking(self.running.ready, False)
            with contextlib.suppress(BlockingIOError):
                self._ready(self.running.ready)
        self.running.ended = time.monotonic()
        self.running.kill()
        self.running.process.wait()
        for pipe in list(self.running.read):
            while pipe in self.open and self._read(pipe):
                pass
        for left in list(self.open):
            self._drop(left)
        if self.running.when_ended is not None:
            self.running.when_ended()


def _bundle(start: Start, program: str, files: Mapping[str, str], limits: Limits) -> int:
    """A file without a name that holds what the child needs."""
    content = {
        "program": program,
        "files": relative(files) if start.files_in_bundle else {},
        "limits": limits.model_dump(),
        "landlock": start.landlock,
    }
    descriptor = os.memfd_create("bundle")
    with open(os.dup(descriptor), "wb") as file:
        file.write(ascii(content).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
