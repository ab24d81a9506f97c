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

    It also ends a refused client that goes on sending its body.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_request()

    def on_response_complete(self) -> None:
        self._await_request()  # first: a request that waits in the pipe begins in uvicorn's part
        super().on_response_complete()

    def _await_request(self) -> None:
        self.loop.call_later(HEADERS_S, self._close_without_request, self.cycle)

    def _close_without_request(self, last: Any) -> None:
        if self.cycle is last:
            self.transport.close()


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
