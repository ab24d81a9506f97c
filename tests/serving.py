"""A server of `r1kit.serve` in a thread of this process, and a gate that holds its model between steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import openai

from r1kit.chat import ChatFormat
from r1kit.engines.local import LocalEngine
from r1kit.engines.local.engine import Generation
from r1kit.net.address import listening
from r1kit.serve.app import Service
from r1kit.serve.batch import Batch
from r1kit.serve.process import Server
from r1kit.serve.prompts import Renderer

PATIENCE_S = 60.0  # how long a test waits for another thread before it fails


class Served:
    """A running server, the engine that it uses, and a client."""

    def __init__(self, server: Server, address: str, key: str) -> None:
        self.server, self.service, self.url = server, server.service, f"{address}v1"
        self.key = key or "none"

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=self.key, max_retries=0, timeout=PATIENCE_S, **options)

    @property
    def engine(self) -> LocalEngine:
        return self.service.renderer.engine


@contextmanager
def served(
    engine: LocalEngine, chat: ChatFormat, *, limit: int = 600, key: str = "", weights: Path | None = None
) -> Iterator[Served]:
    """A server that drains at the end of the block; clients may replace its weights from the folder `weights`."""
    service = Service(Renderer("tested", engine, chat), Batch(engine, limit), key=key, weights_folder=weights)
    with listening("127.0.0.1", 0) as (opened, address):
        server = Server(service)

        def run() -> None:
            with suppress(KeyboardInterrupt):  # after a second signal
                server.serve_until_stopped(opened)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield Served(server, address, key)
        finally:
            if not service.draining:
                server.handle_exit(15, None)
            thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the server did not end"
    assert server.stopped_by or not service.batch.alive, "the model's thread did not end"


class Gate:
    """Lets the model take a number of steps, and stands still then. `reached` is set at the first one, and `cancelled`
    after a cancellation."""

    def __init__(self, patch: Callable[[Any, str, Any], None]) -> None:
        self.steps, self.reached, self.cancelled = threading.Semaphore(0), threading.Event(), threading.Event()
        advance, cancel = Generation.advance, Generation.cancel
        self.left = -1  # rows that a cancellation leaves

        def advance_at_gate(generation: Generation) -> Any:
            self.reached.set()
            assert self.steps.acquire(timeout=PATIENCE_S), "the gate stayed closed"
            return advance(generation)

        def cancel_and_tell(generation: Generation, request: Any) -> None:
            cancel(generation, request)
            self.left = len(generation.scheduler.running)
            self.cancelled.set()

        patch(Generation, "advance", advance_at_gate)
        patch(Generation, "cancel", cancel_and_tell)

    def open(self, steps: int = 100_000) -> None:
        self.steps.release(steps)

    def open_until_cancelled(self) -> bool:
        """Step by step: the server may notice only some steps later that a client has left."""
        for _ in range(round(PATIENCE_S / 0.05)):
            self.open(1)
            if self.cancelled.wait(0.05):
                return True
        return False
