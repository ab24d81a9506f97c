"""Worker processes for questions that may never end; each is answered, or its worker is killed, within a fixed time.

There are two limits. Processor time is the cost of the question itself, on any machine and under any load; the worker's
own timer enforces it (`OutOfTime`). Wall-clock time bounds the caller's wait; if it runs out first, the machine is busy
or broken, and nothing is known about the question (`WorkerError`).

The workers are plain child processes with pipes instead of multiprocessing: a script without a `__main__` guard is not
run again, torch is never forked, daemonic processes may have workers too, and all threads can use them. They start at
the first question, are replaced when they die, and end with the parent.
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

from r1kit.cores import cpu_count

_START_SECONDS = 120.0  # importing a library on a busy machine
WALL_SECONDS = 4.0  # for all replies to one question, if the caller waits for it
PATIENT_SECONDS = 30.0  # the same in a batch, which gives a busy machine time to answer
_LARGE_SHARE = 0.25  # of the processor time: a question that used more before the wall clock ran out is slow itself
_QUESTIONS_PER_WORKER = 5000  # then a new worker starts, because the libraries' caches grow without bound


class WorkerError(RuntimeError):
    """A worker died or never started, so nothing is known about the question."""


class Overloaded(WorkerError):
    """The wall-clock time ran out before the processor time of the question did."""


class OutOfTime(Exception):
    """The question used up its processor time after the replies in `replies`."""

    def __init__(self, replies: list[dict[str, Any]]) -> None:
        super().__init__(f"processor time ran out after {len(replies)} replies")
        self.replies = replies


class Worker:
    """A child process that serves one question at a time. It starts in the background; the first question waits."""

    def __init__(self, module: str, seconds: float) -> None:
        self.questions, self._ready, self._buffer, self._seconds = 0, False, b"", seconds
        if not sys.executable:
            raise WorkerError("the worker did not start: this program has no Python interpreter (sys.executable)")
        try:
            paths = [os.path.abspath(path) for path in sys.path]  # the child can import what the parent can
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(seconds), str(PATIENT_SECONDS)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # Ctrl-C must not reach the worker
            )
        except OSError as error:  # out of processes or memory, or no working directory
            raise WorkerError(f"the worker did not start: {error}") from None

    def ask(self, question: dict[str, Any], replies: int, wall: float = WALL_SECONDS) -> list[dict[str, Any]]:
        """Up to `replies` replies within the time limits; only one if it says that the reference is not "ok"."""
        self._wait_until_ready()
        self.questions += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
        except OSError as error:
            raise WorkerError(f"the worker is gone ({error})") from None
        received: list[dict[str, Any]] = []
        used: float | None = None
        deadline = time.monotonic() + wall
        while len(received) < replies and (not received or received[-1].get("reference") == "ok"):
            try:
                received.append(self._receive(deadline))
                used = self._processor_seconds()  # from here on, time counts for the next reply
            except TimeoutError:
                now = self._processor_seconds()
                if used is not None and now is not None and now - used > _LARGE_SHARE * self._seconds:
                    raise OutOfTime(received) from None
                raise Overloaded(f"no answer within {wall:g} s: the machine is overloaded") from None
            except EOFError:
                if self._process.wait() == -signal.SIGPROF:
                    raise OutOfTime(received) from None
                raise WorkerError(f"the worker died (exit code {self._process.returncode})") from None
        if "broken" in received[-1]:
            raise WorkerError(f"the library is broken ({received[-1]['broken']})")
        return received

    def kill(self) -> None:
        """Kill the process and reap it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _processor_seconds(self) -> float | None:
        """The processor time used so far; None if the system does not report it."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None

    def _wait_until_ready(self) -> None:
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
            raise ModuleNotFoundError(
                f"{hello['missing']}: this verifier needs it, so install r1kit with all its requirements"
            )
        if "broken" in hello:
            raise WorkerError(f"the worker did not start: {hello['broken']}")
        self._ready = True

    def _receive(self, deadline: float) -> dict[str, Any]:
        """The next reply; raises TimeoutError, EOFError if the process ended, or `WorkerError` for an invalid reply."""
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
            raise WorkerError(f"the worker sent an invalid reply: {line[:80]!r}") from None
        return reply


class Pool:
    """A few workers behind a queue, for any number of threads."""

    def __init__(self, module: str, *, size: int, seconds: float) -> None:
        self.module, self.size, self.seconds = module, size, seconds
        # Last in, first out: few callers start few processes.
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()
        for _ in range(size):
            self._free.put(None)
        atexit.register(self.close)

    def ask(self, question: dict[str, Any], replies: int, wall: float = WALL_SECONDS) -> list[dict[str, Any]]:
        """The replies of one worker. If it dies, another one is asked; if it is slow, it is only replaced."""
        try:
            return self._ask(question, replies, wall)
        except Overloaded:
            raise
        except WorkerError:
            return self._ask(question, replies, wall)

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
            if worker.questions >= _QUESTIONS_PER_WORKER:
                worker = self._successor(worker)
            return answer
        except (OutOfTime, Overloaded):
            worker = self._successor(worker)
            raise
        except BaseException:  # even an interrupt leaves the worker in the middle of a question
            if worker is not None:
                worker.kill()
            worker = None
            raise
        finally:
            self._free.put(worker)

    def _successor(self, worker: Worker | None) -> Worker | None:
        """A new worker that starts in the background; None if it cannot start now."""
        if worker is not None:
            worker.kill()
        try:
            return Worker(self.module, self.seconds)
        except WorkerError:
            return None


# One pool per worker module and process: verifiers are plain functions and cannot be passed a pool, and starting one
# takes a while.
_pools: dict[str, Pool] = {}
_lock = threading.Lock()


def pool(module: str, *, seconds: float) -> Pool:
    """The process-wide pool of a worker module; `seconds` is the processor time for each reply."""
    with _lock:
        if module not in _pools:
            _pools[module] = Pool(module, size=min(8, cpu_count()), seconds=seconds)
        return _pools[module]


def _forget_pools() -> None:
    """After a fork, the child must not share the parent's pipes: it forgets the workers, without ending them."""
    global _lock
    _lock = threading.Lock()
    for inherited in _pools.values():
        inherited._free = queue.LifoQueue()
        atexit.unregister(inherited.close)
    _pools.clear()


os.register_at_fork(after_in_child=_forget_pools)
