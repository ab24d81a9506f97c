"""Runs a web application until a signal ends it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from r1kit.net.connection import Impatient

QUIET: dict[str, Any] = {
    "http": Impatient,
    "log_level": "warning",
    "access_log": False,
    "lifespan": "off",
    "server_header": False,
    "timeout_graceful_shutdown": 3,
}


class StoppableServer(uvicorn.Server):
    """Calls `close` at the first signal, before open connections have ended."""

    def __init__(self, app: ASGIApp, close: Callable[[], None] = lambda: None, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, **QUIET | options))
        self.close = close

    def handle_exit(self, *signal: Any) -> None:
        self.close()
        super().handle_exit(*signal)

    def run_until_stopped(self, opened: socket.socket) -> None:
        """Answer requests until Ctrl+C or SIGTERM."""
        with contextlib.suppress(KeyboardInterrupt):
            self.run(sockets=[opened])
