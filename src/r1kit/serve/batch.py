"""The one thread that runs the model: jobs from the event loop join its batch, and their tokens go back."""

from __future__ import annotations

import asyncio
import queue
import threading
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


@dataclass(eq=False)
class Call:
    """Work for the model's thread while no sequence runs, such as new weights; without one, the thread ends."""

    work: Callable[[], Any] | None
    result: Future[Any] = field(default_factory=Future)

    def run(self) -> None:
        assert self.work is not None, "the thread ends instead"
        try:
            self.result.set_result(self.work())
        except Exception as error:
            self.result.set_exception(error)


class Batch:
    """Runs jobs side by side. All methods but `_run` belong to the event loop.

    At most `limit` completions may be in it, running and waiting together.
    """

    def __init__(self, engine: LocalEngine, limit: int) -> None:
        self.engine, self.limit = engine, limit
        self.jobs: set[Job] = set()
        self.finished = 0  # completions since the start
        self.loop: asyncio.AbstractEventLoop | None = None
        self._empty = asyncio.Event()  # no completion runs or waits
        self._empty.set()
        self._inbox: queue.SimpleQueue[tuple[str, Job | Call]] = queue.SimpleQueue()
        self._calls: deque[Call] = deque()  # that wait until no sequence runs: the thread's own
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
            self._empty.clear()
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
            self._drop(job)
            self._inbox.put(("cancel", job))

    async def until_empty(self) -> None:
        """Return when no completion runs or waits."""
        await self._empty.wait()

    async def between(self, work: Callable[[], Any]) -> Any:
        """The result of `work`, which the model's thread does while no sequence runs. It waits for those that run."""
        call = Call(work)
        self._inbox.put(("call", call))
        return await asyncio.wrap_future(call.result)

    def close(self) -> None:
        """End the thread after its current step."""
        self._inbox.put(("close", Call(None)))
        self._thread.join()

    def _drop(self, job: Job) -> None:
        self.jobs.discard(job)
        if not self.jobs:
            self._empty.set()

    def _deliver(self, updates: list[tuple[Job, Update | BaseException]]) -> None:
        for job, update in updates:
            if job not in self.jobs:  # cancelled
                continue
            job.updates.put_nowait(update)
            if isinstance(update, BaseException):
                self._drop(job)
            elif update.ended:
                job.num_left -= 1
                self.finished += 1
                if not job.num_left:
                    self._drop(job)

    def _run(self) -> None:
        while True:
            with self.engine.session():  # in which the weights must not change
                # a new generation has an empty cache, so an idle server holds no memory of its last requests
                while (call := self._run_until_idle()) is None:
                    pass
            if call.work is None:
                return
            call.run()

    def _run_until_idle(self) -> Call | None:
        """Run jobs until there are none, or until there is a call to make instead."""
        if self._calls:
            return self._calls.popleft()
        jobs: dict[Request, Job] = {}
        action: str
        item: Job | Call | None
        action, item = self._inbox.get()
        try:
            generation = Generation(self.engine, prefill_tokens=PREFILL_TOKENS)
            while True:
                if isinstance(item, Call):
                    if item.work is None:
                        return item
                    self._calls.append(item)
                elif item is not None and action == "add":
                    jobs[item.request] = item
                    item.read = dict.fromkeys(range(item.request.params.n), 0)
                    generation.add([item.request])
                elif item is not None:
                    generation.cancel(item.request)
                    jobs.pop(item.request, None)
                try:
                    action, item = self._inbox.get_nowait()
                except queue.Empty:
                    if not generation.busy:
                        return self._calls.popleft() if self._calls else None
                    ended = generation.advance()
                    self._report(jobs, ended, generation.scheduler.running)
                    action, item = "", None
        except Exception as error:  # no memory, or logits that are NaN: these jobs fail, and the next ones may not
            traceback.print_exc()
            self._send([(job, error) for job in jobs.values()])
            return None

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
