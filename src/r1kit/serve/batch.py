"""The one thread that runs the model: jobs from the event loop join its batch, and their tokens go back."""

from __future__ import annotations

import asyncio
import queue
import threading
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple

from r1kit.engines.local import LocalEngine
from r1kit.engines.local.engine import Generation
from r1kit.engines.local.scheduler import Request, Sequence
from r1kit.serve.errors import APIError, busy

PREFILL_TOKENS = 2048  # tokens of prompts that are run at once: streams stand still meanwhile


class Update(NamedTuple):
    """A sequence has the new tokens [start:stop]; they are its last ones if it `ended`."""

    sequence: Sequence
    start: int
    stop: int
    ended: bool


@dataclass(eq=False)
class Job:
    """The completions of one prompt. Without `streams`, a sequence is reported once it has ended."""

    request: Request
    streams: bool
    updates: asyncio.Queue[Update | BaseException] = field(default_factory=asyncio.Queue)
    num_left: int = 0  # sequences that have not ended, as the event loop knows
    read: dict[int, int] = field(default_factory=dict)  # tokens reported by sample, while it runs: the thread's own


class Batch:
    """Runs jobs side by side. All methods but `_run` belong to the event loop.

    At most `limit` completions may be in it, running and waiting together.
    """

    def __init__(self, engine: LocalEngine, limit: int) -> None:
        self.engine, self.limit = engine, limit
        self.jobs: set[Job] = set()
        self.finished = 0  # completions since the start
        self.loop: asyncio.AbstractEventLoop | None = None
        self._inbox: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def size(self) -> int:
        """Completions that run or wait."""
        return sum(job.num_left for job in self.jobs)

    def refuse_large(self, count: int) -> None:
        """Raise `APIError` for a request of more completions than fit into an empty batch."""
        if count > self.limit:
            raise APIError(400, f"the request asks for {count} completions, and at most {self.limit} fit: send fewer")

    def submit(self, jobs: list[Job]) -> None:
        """Let the jobs of one request join the batch. Raises `APIError` if there is no room for all of them now."""
        count = sum(job.request.params.n for job in jobs)
        if self.size + count > self.limit:
            rounds = self.size // self.engine.max_rows
            raise busy(f"{self.size} completions run or wait, and {self.limit} may: try again later", 1 + rounds)
        self.loop = asyncio.get_running_loop()
        for job in jobs:
            job.num_left = job.request.params.n
            self.jobs.add(job)
            self._inbox.put(("add", job))

    async def updates(self, job: Job) -> AsyncIterator[Update]:
        """The job's updates until all its sequences have ended. Raises `APIError` if the model fails."""
        num_left = job.request.params.n
        while num_left:
            update = await job.updates.get()
            if isinstance(update, BaseException):
                raise APIError(500, f"the model failed: {type(update).__name__}: {update}") from update
            num_left -= update.ended
            yield update

    def cancel(self, job: Job) -> None:
        """Take a job out of the batch; nothing happens if it has ended."""
        if job in self.jobs:
            self.jobs.discard(job)
            self._inbox.put(("cancel", job))

    def close(self) -> None:
        """End the thread after its current step."""
        self._inbox.put(("close", None))
        self._thread.join()

    def _deliver(self, updates: list[tuple[Job, Update | BaseException]]) -> None:
        for job, update in updates:
            if job not in self.jobs:  # cancelled
                continue
            job.updates.put_nowait(update)
            if isinstance(update, BaseException):
                self.jobs.discard(job)
            elif update.ended:
                job.num_left -= 1
                self.finished += 1
                if not job.num_left:
                    self.jobs.discard(job)

    def _run(self) -> None:
        with self.engine.session():
            while self._run_until_idle():
                pass  # a new generation has an empty cache, so an idle server holds no memory of its last requests

    def _run_until_idle(self) -> bool:
        """Run jobs until there are none; False if the thread must end."""
        jobs: dict[Request, Job] = {}
        action, job = self._inbox.get()
        try:
            generation = Generation(self.engine, prefill_tokens=PREFILL_TOKENS)
            while True:
                if action == "close":
                    return False
                if job and action == "add":
                    jobs[job.request] = job
                    job.read = dict.fromkeys(range(job.request.params.n), 0)
                    generation.add([job.request])
                elif job:
                    generation.cancel(job.request)
                    jobs.pop(job.request, None)
                try:
                    action, job = self._inbox.get_nowait()
                except queue.Empty:
                    if not generation.busy:
                        return True
                    ended = generation.advance()
                    self._report(jobs, ended, generation.scheduler.running)
                    action, job = "", None
        except Exception as error:  # no memory, or logits that are NaN: these jobs fail, and the next ones may not
            traceback.print_exc()
            self._send([(job, error) for job in jobs.values()])
            return True

    def _report(self, jobs: dict[Request, Job], ended: list[Sequence], running: list[Sequence]) -> None:
        updates: list[tuple[Job, Update | BaseException]] = []
        for sequence in (*ended, *running):
            job = jobs[sequence.request]
            if job.streams or sequence.completion:
                start, stop = job.read.pop(sequence.sample), len(sequence.token_ids)
                updates.append((job, Update(sequence, start, stop, sequence.completion is not None)))
                if not sequence.completion:
                    job.read[sequence.sample] = stop
                elif not job.read:
                    del jobs[sequence.request]
        self._send(updates)

    def _send(self, updates: list[tuple[Job, Update | BaseException]]) -> None:
        if updates and self.loop and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._deliver, updates)
