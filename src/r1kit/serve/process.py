"""The process of a server: it listens, and it completes what it has begun before it stops."""

from __future__ import annotations

import logging
import sys
from socket import socket
from types import FrameType

import uvicorn

from r1kit.net.server import configured
from r1kit.serve.app import Service


class Server(uvicorn.Server):
    """Runs a service. The first SIGTERM or Ctrl+C drains it, the second one ends running answers too."""

    def __init__(self, service: Service) -> None:
        # the service refuses new requests itself while it drains, so the socket stays open until the end
        super().__init__(configured(service.app))
        self.service = service
        self.stopped_by = 0  # the signal that cut answers off

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.service.draining:
            self.force_exit = self.should_exit = True
            self.stopped_by = sig
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # cut answers are no errors now
            return
        self.service.draining = True
        if self.service.weights:
            self.service.weights.end_pause()
        left = self.service.num_open
        print(f"stopping after {left} open requests; a second signal stops at once", file=sys.stderr, flush=True)

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or (self.service.draining and not self.service.num_open)

    def serve_until_stopped(self, opened: socket) -> None:
        """Returns when it has drained. Raises KeyboardInterrupt after a second signal: `stopped_by` is that one."""
        self.run(sockets=[opened])
        if self.stopped_by:
            raise KeyboardInterrupt("stopped: running answers were cut off")
        self.service.close()
