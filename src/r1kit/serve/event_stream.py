"""Answers in pieces, which end when their client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from r1kit.net.connection import until_disconnect

WRITE_S = 60.0  # seconds in which a client must take a chunk


class EventStream:
    """A response of server-sent events. `finish` is called at the end, however it comes."""

    HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"))

    def __init__(self, events: AsyncIterator[str], finish: Callable[[], None]) -> None:
        self.events, self.finish = events, finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_disconnect(receive, self._send(send))
        finally:
            self.finish()

    async def _send(self, send: Send) -> None:
        await _within_limit(send({"type": "http.response.start", "status": 200, "headers": list(self.HEADERS)}))
        async for event in self.events:
            body = f"data: {event}\n\n".encode()
            await _within_limit(send({"type": "http.response.body", "body": body, "more_body": True}))
        await _within_limit(send({"type": "http.response.body", "body": b"", "more_body": False}))


async def _within_limit(sending: Awaitable[None]) -> None:
    """Raise `ClientDisconnect` for a client that reads nothing: a server that drains would wait for it without end."""
    try:
        async with asyncio.timeout(WRITE_S):
            await sending
    except TimeoutError:
        raise ClientDisconnect from None
