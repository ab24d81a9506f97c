"""Checks on every request before a handler sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1kit.net.requests import Refused, check_host, check_origin, has_key
from r1kit.serve.errors import APIError

if TYPE_CHECKING:
    from r1kit.serve.app import Service


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
        if not has_key(request, self.key):
            raise APIError(401, "the API key is missing or wrong", code="invalid_api_key")
        if self.service.draining:
            error = APIError(503, "the server is shutting down: it completes what it has begun")
            error.headers["retry-after"] = "10"
            raise error
