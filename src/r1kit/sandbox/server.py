"""`r1kit sandbox serve`: offers this machine's sandbox to others, by the protocol of `r1kit.sandbox.remote`.

All that it holds is bounded: connections, open requests, the bytes of their bodies together, and the time of each step.
A body is read only after the token was checked, and a program ends when its client goes away.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from r1kit.net.connection import until_disconnect
from r1kit.net.requests import Refused, check_host, check_origin, declared_length, has_key, read_body
from r1kit.net.server import MAX_WAITING, StoppableServer
from r1kit.sandbox.interface import Abandon
from r1kit.sandbox.local import LocalSandbox
from r1kit.sandbox.probes import Finding
from r1kit.sandbox.program_requests import Answer, Work, answer_body, converse, error_answer, run

MAX_BODY_BYTES = 32 << 20
MAX_BODIES_BYTES = 256 << 20  # of all requests together, as far as they have arrived
MAX_OPEN = 512  # requests that run or wait
BEAT_S = 15.0  # seconds between signs of life while a request waits or its program runs


class Service:
    """The handlers for one sandbox. It runs as many programs at a time as there are processors; others wait in turn.

    Without a token, the server answers to plain addresses, `localhost` and `names` only.
    """

    def __init__(
        self, sandbox: LocalSandbox, findings: list[Finding], token: str = "", names: frozenset[str] = frozenset()
    ) -> None:
        self.sandbox, self.token, self.names = sandbox, token, names
        self.facts = {"kind": sandbox.kind, "findings": [dataclasses.asdict(finding) for finding in findings]}
        self.num_open = self.bodies_bytes = 0
        processors = len(os.sched_getaffinity(0))
        self.turns = asyncio.Semaphore(processors)
        self.threads = ThreadPoolExecutor(processors, thread_name_prefix="program")
        routes = [
            Route("/health", self.health),
            Route("/run", Programs(self, run), methods=["POST"]),
            Route("/converse", Programs(self, converse), methods=["POST"]),
        ]
        handlers: dict[Any, Any] = {
            Refused: lambda request, error: _refusal(error.status, str(error)),
            ClientDisconnect: lambda request, error: Response(),  # nobody reads it
            404: lambda request, error: _refusal(404, f"there is no {request.url.path}: expected /run or /converse"),
            405: lambda request, error: _refusal(405, f"{request.url.path} does not take {request.method}"),
        }
        self.app = Starlette(routes=routes, exception_handlers=handlers)

    def server(self) -> StoppableServer:
        """The server for this process. At the first signal it ends running programs and stops."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        waiting = min(MAX_WAITING, most // 4)  # the rest is for requests and for the programs' pipes
        return StoppableServer(self.app, waiting=waiting, log_level="error", timeout_graceful_shutdown=1)

    def check(self, request: Request) -> None:
        """Raises `Refused` for requests of web pages, and of clients without the token."""
        if not self.token:
            check_host(request, self.names)
        check_origin(request)
        if not has_key(request, self.token):
            raise Refused(401, "the token is missing or wrong")

    async def health(self, request: Request) -> JSONResponse:
        self.check(request)
        return JSONResponse(self.facts)

    async def in_turn(self, body: bytes, work: Work) -> Answer:
        """The answer to a body. If this task is cancelled, the program ends, and then its turn."""
        async with self.turns:
            abandon = Abandon()
            arguments = (self.sandbox, body, work, abandon)
            running = asyncio.get_running_loop().run_in_executor(self.threads, answer_body, *arguments)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                abandon.set()
                await asyncio.wait({running})
                raise
            finally:
                abandon.close()


class Programs:
    """ASGI application: answers requests of one kind, and stops working on one when its client goes away."""

    def __init__(self, service: Service, work: Work) -> None:
        self.service, self.work = service, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, request = self.service, Request(scope, receive)
        service.check(request)
        length = declared_length(request)
        if length is None:
            raise Refused(411, "expected the header Content-Length")
        if length > MAX_BODY_BYTES:
            raise Refused(413, f"the body has {length} bytes, and at most {MAX_BODY_BYTES} are read")
        if service.num_open >= MAX_OPEN:
            raise Refused(429, f"{MAX_OPEN} requests run or wait: try again later")
        received = 0

        def count(size: int) -> None:
            nonlocal received
            if service.bodies_bytes + size > MAX_BODIES_BYTES:
                raise Refused(429, f"open requests hold {service.bodies_bytes} bytes: try again later")
            service.bodies_bytes += size
            received += size

        service.num_open += 1
        try:
            body = await read_body(request, MAX_BODY_BYTES, "send less", count)
            await until_disconnect(receive, _send_patiently(send, service.in_turn(body, self.work)))
        except ClientDisconnect:
            pass
        finally:
            service.num_open -= 1
            service.bodies_bytes -= received


async def _send_patiently(send: Send, work: Awaitable[Answer]) -> None:
    """Send a JSON answer. If it takes longer than `BEAT_S`, status 200 and a space every `BEAT_S` come before it.

    So the client knows that the server is alive, and the server learns of a client that has gone. The status of an
    error is in the body too.
    """
    working = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({working}, timeout=BEAT_S)
        if done:
            status, answer = working.result()
            await JSONResponse(answer, status)({"type": "http"}, _nothing, send)
            return
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while not done:
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            done, _ = await asyncio.wait({working}, timeout=BEAT_S)
        body = JSONResponse(working.result()[1]).body
        await send({"type": "http.response.body", "body": body, "more_body": False})
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _nothing() -> Any:
    raise AssertionError("a JSONResponse reads nothing")


def _refusal(status: int, reason: str) -> JSONResponse:
    return JSONResponse(error_answer(status, reason)[1], status, {"retry-after": "1"} if status == 429 else None)
