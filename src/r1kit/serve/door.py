"""Checks on every request before a handler sees it."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1kit.serve.errors import APIError
from r1kit.web.guard import Refused, check_host, check_origin

if TYPE_CHECKING:
    from r1kit.serve.app import Service

MAX_BODY = 8 * 1024 * 1024  # bytes
BODY_S = 60.0  # seconds in which a body must arrive


class Door:
    """ASGI middleware: requests of other sites' pages, without the key, or while the server drains, are refused.

    `names` are accepted host names besides `localhost` and plain addresses. With a key, any name is: a page that points
    a name of its own at this server does not have the key.
    """

    def __init__(self, app: ASGIApp, *, service: Service, key: str, names: frozenset[str]) -> None:
        self.app, self.service, self.key, self.names = app, service, key, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        answer = self.app
        try:
            self._check(request)
        except APIError as error:
            answer = JSONResponse(error.body(), error.status, error.headers)

        async def send_with_header(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-content-type-options"] = "nosniff"
            await send(message)

        self.service.num_open += 1
        try:
            await answer(scope, receive, send_with_header)
        except ClientDisconnect:
            pass  # its work was cancelled
        finally:
            self.service.num_open -= 1

    def _check(self, request: Request) -> None:
        try:
            if not self.key:
                check_host(request, self.names)
            check_origin(request)
        except Refused as refused:
            raise APIError(refused.status, str(refused)) from None
        if request.url.path == "/health":
            return
        key = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if self.key and not hmac.compare_digest(key.encode("utf-8", "replace"), self.key.encode()):
            raise APIError(401, "the API key is missing or wrong", code="invalid_api_key")
        if self.service.draining:
            error = APIError(503, "the server is shutting down: it completes what it has begun")
            error.headers["retry-after"] = "10"
            raise error


async def read_body(request: Request) -> bytes:
    """The body. Raises `APIError` if it is too large, without reading the rest."""
    body = bytearray()
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY:
        raise APIError(413, f"the body has {length} bytes, and at most {MAX_BODY} are read: send fewer prompts at once")
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise APIError(413, f"the body is larger than {MAX_BODY} bytes: send fewer prompts at once")
    except TimeoutError:
        raise APIError(408, f"the body did not arrive within {BODY_S:.0f} seconds") from None
    return bytes(body)
