"""Killable processes for questions that may never end, each answered or killed within a fixed time.

Two limits, because two things can be slow. Processor time is what the question itself costs, on any machine and under
any load: the worker's own timer ends it there (`OutOfTime`). Wall-clock time bounds the wait of the caller: when it
runs out first, the machine is busy or broken and nothing is known about the question (`WorkerError`).

Plain child processes with pipes, not multiprocessing: a script without a `__main__` guard is not run again, torch is
never forked, a daemonic process may have them too, and it works the same from any thread. Started at the first
question, replaced when they die, ended with the parent.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_START_SECONDS = 120.0  # importing sympy on a busy machine
WALL_SECONDS = 4.0  # for all replies to one question, where somebody waits for them
PATIENT_SECONDS = 30.0  # the same where nobody does: a busy machine has time to answer
_LARGE_SHARE = 0.25  # of its processor time: a reply that used more when the wall-clock ran out is slow by itself
_QUESTIONS_PER_WORKER = 5000  # then a new one, so that no cache of the libraries grows without end


class WorkerError(RuntimeError):
    """A worker died or never started: nothing is known about the question."""


class Overloaded(WorkerError):
    """The wall-clock limit passed before the question had used up its processor time."""


class OutOfTime(Exception):
    """The question used up its processor time, after the replies in `replies`."""

    def __init__(self, replies: list[dict[str, Any]]) -> None:
        super().__init__(f"processor time ran out after {len(replies)} replies")
        self.replies = replies


class Worker:
    """One child process; it serves one question at a time. It starts in the background: the first question waits."""

    def __init__(self, module: str, seconds: float) -> None:
        self.asked, self._ready, self._buffer, self._seconds = 0, False, b"", seconds
        if not sys.executable:
            raise WorkerError("the worker did not start: this program knows no Python interpreter (sys.executable)")
        try:
            paths = [os.path.abspath(path) for path in sys.path]  # the child sees the packages that the parent sees
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(seconds), str(PATIENT_SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C is for the parent
            )
        except OSError as error:  # no more processes, no memory, no working directory
            raise WorkerError(f"the worker did not start: {error}") from None

    def ask(self, question: dict[str, Any], replies: int, wall: float = WALL_SECONDS) -> list[dict[str, Any]]:
        """Up to `replies` replies within the time limits; fewer where the first tells that it is the last."""
        self._greet()
        self.asked += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
        except OSError as error:
            raise WorkerError(f"the worker is gone ({error})") from None
        got: list[dict[str, Any]] = []
        used: float | None = None
        deadline = time.monotonic() + wall
        while len(got) < replies and (not got or got[-1].get("reference") == "ok"):
            try:
                got.append(self._receive(deadline))
                used = self._processor_seconds()  # what follows is the next reply's
            except TimeoutError:
                now = self._processor_seconds()
                if used is not None and now is not None and now - used > _LARGE_SHARE * self._seconds:
                    raise OutOfTime(got) from None
                raise Overloaded(f"no answer within {wall:g} s: the machine is overloaded") from None
            except EOFError:
                if self._process.wait() == -signal.SIGPROF:
                    raise OutOfTime(got) from None
                raise WorkerError(f"the worker died (exit code {self._process.returncode})") from None
        if "broken" in got[-1]:
            raise WorkerError(f"the library is broken ({got[-1]['broken']})")
        return got

    def kill(self) -> None:
        """End the process at once and collect it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _processor_seconds(self) -> float | None:
        """What the process has used so far; None where the system does not tell."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None

    def _greet(self) -> None:
        """Wait until the worker has imported its libraries."""
        if self._ready:
            return
        try:
            hello = self._receive(time.monotonic() + _START_SECONDS)
        except TimeoutError:
            raise WorkerError(f"the worker did not start: no sign of life in {_START_SECONDS:g} s") from None
        except EOFError:
            raise WorkerError(f"the worker did not start (exit code {self._process.wait()})") from None
        if "missing" in hello:
            raise ModuleNotFoundError(f"{hello['missing']}: install r1kit with its requirements to use this verifier")
        if "broken" in hello:
            raise WorkerError(f"the worker did not start: {hello['broken']}")
        self._ready = True

    def _receive(self, deadline: float) -> dict[str, Any]:
        """The next reply; raises TimeoutError, EOFError where the process ended, or `WorkerError` for nonsense."""
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            piece = os.read(stdout, 65536)
            if not piece:
                raise EOFError
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            raise WorkerError(f"the worker said {line[:80]!r}, which is no reply") from None
        return reply


class Pool:
    """A few workers behind a queue; safe to use from any number of threads."""

    def __init__(self, module: str, *, size: int, seconds: float) -> None:
        self.module, self.size, self.seconds = module, size, seconds
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()  # last in, first out: few processes if few ask
        for _ in range(size):
            self._free.put(None)
        atexit.register(self.close)

    def ask(self, question: dict[str, Any], replies: int, wall: float = WALL_SECONDS) -> list[dict[str, Any]]:
        """Replies of one worker; a worker that died is replaced and asked again once, a slow one is only replaced."""
        for attempt in (1, 2):
            try:
                return self._ask(question, replies, wall)
            except Overloaded:
                raise
            except WorkerError:
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End all idle workers; the next question starts new ones."""
        idle = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._free.get_nowait())
        for worker in idle:
            if worker is not None:
                worker.kill()
            self._free.put(None)

    def _ask(self, question: dict[str, Any], replies: int, wall: float) -> list[dict[str, Any]]:
        worker = self._free.get()
        try:
            worker = worker or Worker(self.module, self.seconds)
            answer = worker.ask(question, replies, wall)
            if worker.asked >= _QUESTIONS_PER_WORKER:
                worker = self._successor(worker)
            return answer
        except (OutOfTime, Overloaded):
            worker = self._successor(worker)
            raise
        except BaseException:  # an interrupt too leaves the worker in the middle of a question
            if worker is not None:
                worker.kill()
            worker = None
            raise
        finally:
            self._free.put(worker)

    def _successor(self, worker: Worker | None) -> Worker | None:
        """A new worker that starts while nobody waits for it; None where it cannot start now."""
        if worker is not None:
            worker.kill()
        try:
            return Worker(self.module, self.seconds)
        except WorkerError:
            return None


_pools: dict[str, Pool] = {}
_lock = threading.Lock()


def pool(module: str, *, seconds: float) -> Pool:
    """The process-wide pool of a worker module, made at the first call; a forked child makes its own.

    `seconds` is the processor time for each reply.
    """
    with _lock:
        if not _pools:
            _on_fork()
        if module not in _pools:
            _pools[module] = Pool(module, size=min(8, _cpus()), seconds=seconds)
        return _pools[module]


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_fork_handled = False


def _on_fork() -> None:
    """Pipes must not be shared: after a fork the child forgets the parent's workers, without ending them."""
    global _fork_handled
    if not _fork_handled:
        _fork_handled = True
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    for inherited in _pools.values():
        inherited._free = queue.LifoQueue()
        atexit.unregister(inherited.close)
    _pools.clear()
