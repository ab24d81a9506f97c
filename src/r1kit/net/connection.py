"""Connections with bounds on time: of clients that send no request, and of clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive
from uvicorn.protocols.http.h11_impl import H11Protocol

T = TypeVar("T")
HEADERS_S = 20.0  # seconds in which the headers of a request must arrive


class Impatient(H11Protocol):
    """uvicorn's protocol, which closes a connection whose next request does not begin within `HEADERS_S`.

    It also ends a refused client that goes on sending its body. At most `most` connections wait for a request at a
    time: a new one closes the one that has waited longest. So clients that come back for ever push out each other, and
    not those whose request is answered. `waiting` is shared by the connections of a server, the oldest first.
    """

    def __init__(self, *args: Any, waiting: dict[Impatient, None], most: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self.waiting, self.most = waiting, most
        self.patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_waiting()

    def handle_events(self) -> None:
        super().handle_events()
        cycle: Any = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._end_waiting()

    def on_response_complete(self) -> None:
        self._await_request()  # first: a request that waits in the pipe begins in uvicorn's part
        super().on_response_complete()

    def _await_request(self) -> None:
        self._end_waiting()
        if self.transport.is_closing():  # the client has gone before its answer
            return
        self.waiting[self] = None
        self.patience = self.loop.call_later(HEADERS_S, self.transport.close)
        if len(self.waiting) > self.most:
            oldest = next(iter(self.waiting))
            oldest._end_waiting()
            oldest.transport.close()

    def _end_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self.patience is not None:
            self.patience.cancel()  # its timer would keep the connection in memory


async def until_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises `ClientDisconnect`, and cancels the work, if the client goes away before."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    running, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            raise ClientDisconnect
        return running.result()
    finally:
        for task in (running, gone):
            task.cancel()
        await asyncio.gather(running, gone, return_exceptions=True)
