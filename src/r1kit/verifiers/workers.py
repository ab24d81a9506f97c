"""Killable processes for questions that may never end, each answered or killed within a fixed time.

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
import subprocess
import sys
import threading
import time
from typing import Any

_START_SECONDS = 120.0  # importing sympy on a busy machine
_QUESTIONS_PER_WORKER = 5000  # then a new one, so that no cache of the libraries grows without end


class WorkerError(RuntimeError):
    """A worker died or never started: nothing is known about the question."""


class WorkerTimeout(WorkerError):
    """Time ran out after the replies in `replies`."""

    def __init__(self, replies: list[dict[str, Any]]) -> None:
        super().__init__(f"no answer in time, after {len(replies)} replies")
        self.replies = replies


class Worker:
    """One child process; it serves one question at a time."""

    def __init__(self, module: str, seconds: float) -> None:
        paths = [os.path.abspath(path) for path in sys.path]  # the child sees the packages that the parent sees
        self.seconds, self.asked, self._buffer = seconds, 0, b""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for the parent
        )
        try:
            hello = self._receive(_START_SECONDS)
        except (WorkerError, TimeoutError) as error:
            self.kill()
            raise WorkerError(f"the worker did not start: {str(error) or 'no sign of life'}") from None
        if "missing" in hello:
            self.kill()
            raise ModuleNotFoundError(f"{hello['missing']}: install r1kit with its requirements to use this verifier")

    def ask(self, question: dict[str, Any], replies: int) -> list[dict[str, Any]]:
        """Up to `replies` replies, each within the time limit; fewer where the first tells that it is the last."""
        self.asked += 1
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
        except OSError as error:
            raise WorkerError(f"the worker is gone ({error})") from None
        got: list[dict[str, Any]] = []
        while len(got) < replies and (not got or got[-1].get("reference") == "ok"):
            try:
                got.append(self._receive(self.seconds))
            except TimeoutError:
                raise WorkerTimeout(got) from None
        return got

    def kill(self) -> None:
        """End the process at once and collect it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _receive(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        stdout, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            piece = os.read(stdout, 65536)
            if not piece:
                raise WorkerError(f"the worker died (exit code {self._process.wait()})")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply


class Pool:
    """A few workers behind a queue; safe to use from any number of threads."""

    def __init__(self, module: str, *, size: int, seconds: float) -> None:
        self.module, self.size, self.seconds = module, size, seconds
        self._free: queue.LifoQueue[Worker | None] = queue.LifoQueue()  # last in, first out: few processes if few ask
        for _ in range(size):
            self._free.put(None)
        atexit.register(self.close)

    def ask(self, question: dict[str, Any], replies: int) -> list[dict[str, Any]]:
        """Replies of one worker; a worker that died is replaced and asked again once, a slow one is killed."""
        for attempt in (1, 2):
            try:
                return self._ask(question, replies)
            except WorkerTimeout:
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

    def _ask(self, question: dict[str, Any], replies: int) -> list[dict[str, Any]]:
        worker = self._free.get()
        try:
            worker = worker or Worker(self.module, self.seconds)
            answer = worker.ask(question, replies)
            if worker.asked >= _QUESTIONS_PER_WORKER:
                worker.kill()
                worker = None
            return answer
        except BaseException:  # an interrupt too leaves the worker in the middle of a question
            if worker is not None:
                worker.kill()
            worker = None
            raise
        finally:
            self._free.put(worker)


_pools: dict[str, Pool] = {}
_lock = threading.Lock()


def pool(module: str, *, seconds: float) -> Pool:
    """The process-wide pool of a worker module, made at the first call; a forked child makes its own."""
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
