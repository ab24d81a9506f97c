"""Runs a web application until a signal ends it."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from r1kit.net.connection import Impatient

MAX_WAITING = 512  # connections that wait for a request
QUIET: dict[str, Any] = {
    "log_level": "warning",
    "access_log": False,
    "lifespan": "off",
    "server_header": False,
    "timeout_graceful_shutdown": 3,
}


def configured(app: ASGIApp, waiting: int = MAX_WAITING, **options: Any) -> uvicorn.Config:
    """A server's configuration. At most `waiting` connections wait for a request; the oldest one makes room."""
    http: Any = functools.partial(Impatient, waiting={}, most=waiting)
    return uvicorn.Config(app, **{**QUIET, "http": http, **options})


class StoppableServer(uvicorn.Server):
    """Calls `close` at the first signal, before open connections have ended."""

    def __init__(self, app: ASGIApp, close: Callable[[], None] = lambda: None, **options: Any) -> None:
        super().__init__(configured(app, **options))
        self.close = close

    def handle_exit(self, *signal: Any) -> None:
        self.close()
        super().handle_exit(*signal)

    def run_until_stopped(self, opened: socket.socket) -> None:
        """Answer requests until Ctrl+C or SIGTERM."""
        with contextlib.suppress(KeyboardInterrupt):
            self.run(sockets=[opened])
