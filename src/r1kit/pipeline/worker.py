"""Processes that run stages, one after the other, and report to the process that started them.

A pipe carries everything: jobs in one direction, progress and results in the other. When it closes, because the run has
ended or was stopped, or because its process was killed, the worker stops too, so no worker outlives its run.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any, Self

from r1kit.cores import cpu_count
from r1kit.pipeline.guards import Stopped, stop_on_signals
from r1kit.pipeline.job import Job, run_job
from r1kit.pipeline.progress import Display
from r1kit.pipeline.relay import Relay
from r1kit.ranks import RankError
from r1kit.store import storing

STOP_S = 10.0  # for a stage to end cleanly
LOOK_EVERY_S = 1.0  # at processes that died while a child of theirs keeps the pipe open
NOT_STARTED = (
    "a worker process did not start: see its error above. A script that runs stages side by side needs "
    '`if __name__ == "__main__":` around the call'
)
UNSENDABLE = "cannot be sent to another process ({error}): define it at the top of a module, or run with --jobs 1"


class Workers:
    """Up to `count` workers, which start when they are needed and share the processor's cores."""

    def __init__(self, count: int, display: Display) -> None:
        self._count, self._display = count, display
        self._threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cpu_count() // count))
        self._idle: list[Worker] = []
        self.busy: list[Worker] = []
        each = "1 thread" if self._threads == "1" else f"{self._threads} threads"
        display.say(f"up to {count} stages side by side, {each} each")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        workers = [*self._idle, *self.busy]
        for worker in workers:
            worker.pipe.close()
        deadline = time.monotonic() + STOP_S
        for worker in workers:
            worker.end(max(0.0, deadline - time.monotonic()))

    def start(self, job: Job) -> None:
        """Give a job to a worker that is free, or to a new one."""
        self._idle = [worker for worker in self._idle if worker.process.is_alive()]  # the system may have killed one
        worker = self._idle.pop() if self._idle else Worker(self._threads)
        worker.job = job
        self.busy.append(worker)  # first, so that a signal leaves no process behind
        try:
            content = pickle.dumps(partial(run_job, job.portable()))
        except Exception as error:
            worker.error = UNSENDABLE.format(error=error)
        else:
            worker.start(job.log, content)

    @property
    def has_room(self) -> bool:
        return len(self.busy) < self._count

    def ended(self) -> tuple[Job, str | None]:
        """Show progress until a job ends, and return it with the first line of its error, if it failed."""
        while True:
            for worker in self.busy:
                if worker.has_ended(self._display):
                    self.busy.remove(worker)
                    if worker.process.is_alive():
                        self._idle.append(worker)
                    error = worker.error
                    if worker.killed_by == signal.SIGKILL:
                        error = f"{error}, as the system does when memory runs out: try fewer --jobs"
                    return worker.job, error
            connection.wait([worker.pipe for worker in self.busy], timeout=LOOK_EVERY_S)


class Worker:
    """A worker as its run sees it: a process, a pipe, and the job that it does."""

    job: Job

    def __init__(self, threads: str) -> None:
        self.error: str | None = None
        self.killed_by: signal.Signals | None = None
        self.has_lost_rank = False  # one of several devices of the job
        context = multiprocessing.get_context("spawn")  # a fork would not copy the threads of torch
        self.pipe, self._theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(self._theirs,))
        self._threads, self._has_started = threads, False

    @property
    def is_lost(self) -> bool:
        """Whether the job failed because a process was killed or did not answer: another attempt may succeed."""
        return self.killed_by is not None or self.has_lost_rank

    def start(self, log: Path, content: bytes) -> None:
        """Give it a job, as a pickled function of a display; its output goes to `log`."""
        if self.process.pid is None:
            with _starting(self._threads):
                self.process.start()
            self._theirs.close()
        self.error = None
        with contextlib.suppress(OSError):  # it died while it was idle: `has_ended` will see that
            self.pipe.send((log, content))

    def has_ended(self, display: Display) -> bool:
        """Show the worker's messages; True if its job ended, well or not."""
        if self.error is not None:
            return True
        has_exited = self.process.exitcode is not None  # before the last messages are read
        while (message := self._message()) is not None:
            method, *values = message
            self._has_started = True
            if method == "end":
                self.error, self.has_lost_rank = values
                return True
            getattr(display, method)(*values)
        if not has_exited and not self.pipe.closed:
            return False
        self.end(STOP_S)
        exitcode = self.process.exitcode
        assert exitcode is not None, "the process has ended"
        if exitcode >= 0 and not self._has_started:
            raise RuntimeError(NOT_STARTED)
        self.error = f"its process ended with exit code {exitcode}"
        if exitcode < 0:
            self.killed_by = signal.Signals(-exitcode)
            self.error = f"its process was killed by {self.killed_by.name}"
        return True

    def _message(self) -> tuple[Any, ...] | None:
        """The next message, if there is one; closes the pipe if the process has closed it."""
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):
            self.pipe.close()
            return None

    def end(self, seconds: float) -> None:
        """Wait for the process to end, and kill it after that time."""
        if self.process.pid is None:
            return
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def _starting(threads: str) -> Iterator[None]:
    """A process that starts meanwhile has `threads` threads, and receives no signal before it can handle one."""
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = threads
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)


def serve(pipe: connection.Connection) -> None:
    """Run the jobs that come through the pipe, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal: the run decides
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True, errors="replace")  # model text may hold lone surrogates
    inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    busy, relay = threading.Event(), Relay(pipe)
    with stop_on_signals(signal.SIGTERM):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        threading.Thread(target=_receive, args=(pipe, inbox, busy), daemon=True).start()
        try:
            while (message := inbox.get()) is not None:
                busy.set()
                relay.send("end", *_attempt(message, relay))
                busy.clear()
        except Stopped as stop:
            raise SystemExit(128 + stop.signum) from None
        except BrokenPipeError:
            pass


def _receive(pipe: connection.Connection, inbox: queue.SimpleQueue[bytes | None], busy: threading.Event) -> None:
    """Pass jobs on to the main thread. When the pipe closes, stop it: first as a signal does, then at once."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(pipe.recv_bytes())
    inbox.put(None)
    if busy.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os._exit(1)


def _attempt(message: bytes, relay: Relay) -> tuple[str | None, bool]:
    """Run one job, with all output in its log. Returns the first line of its error, and whether a rank was lost."""
    log, content = pickle.loads(message)
    try:
        with storing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "ab") as file:
                for output in (1, 2):
                    os.dup2(file.fileno(), output)
        try:
            work: Callable[[Display], None] = pickle.loads(content)  # imports the code of the stage
        except Exception as error:
            traceback.print_exc()
            return UNSENDABLE.format(error=error), False
        work(relay)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        raise
    except BaseException as error:  # also SystemExit, of a user's function
        with contextlib.suppress(OSError):  # the disk may be full, which is then the error to report
            traceback.print_exc()
        is_lost = isinstance(error, RankError)
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", is_lost
    finally:
        with contextlib.suppress(OSError):
            print(end="", flush=True)  # a line without an end belongs to this log, not to the next stage's
    return None, False
