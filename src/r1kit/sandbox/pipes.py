"""The event loop over the pipes of sandboxed processes: feeds them, reads them, and stops them at their limits."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from r1kit.sandbox.interface import Abandon, Abandoned, SandboxError

if TYPE_CHECKING:
    from r1kit.sandbox.process import Running

END_SECONDS = 30.0  # a killed process that still exists after this time hangs in the kernel
_PIECE_BYTES = 65536


def drive(processes: Sequence[Running], abandon: Abandon | None) -> None:
    """Feed and read the processes until all have ended; stop each at its limits. Raises `Abandoned` on request."""
    with selectors.DefaultSelector() as selector:
        if abandon is not None:
            selector.register(abandon, selectors.EVENT_READ, _raise_abandoned)
        watches = [_Watch(running, selector) for running in processes]
        while any(running.ended is None for running in processes):
            wake_at = min(min(running.deadline, running.next_look) for running in processes if running.ended is None)
            for key, _ in selector.select(max(0.0, wake_at - time.monotonic())):
                key.data(key.fd)  # does nothing if an earlier callback has dropped this descriptor
            for watch in watches:
                watch.check_clock()


def _raise_abandoned(_: int) -> None:
    raise Abandoned


class _Watch:
    """Registers the file descriptors of one process, and handles their events."""

    def __init__(self, running: Running, selector: selectors.BaseSelector) -> None:
        self.running, self.selector = running, selector
        self.open: set[int] = set()
        self._register(running.exit, selectors.EVENT_READ, self._ended)
        self._register(running.ready, selectors.EVENT_READ, self._ready)
        for descriptor in running.read:
            self._register(descriptor, selectors.EVENT_READ, self._read)
        if running.process.stdin is not None:
            self._register(running.process.stdin.fileno(), selectors.EVENT_WRITE, self._feed)

    def check_clock(self) -> None:
        running = self.running
        if running.ended is None and time.monotonic() >= running.next_look:
            running.look()
        if running.ended is not None or time.monotonic() < running.deadline:
            return
        if running.stopped:
            raise SandboxError(f"process {running.process.pid} is still alive {END_SECONDS:g} s after it was killed")
        running.stop("wall" if running.started is not None else None)

    def _register(self, descriptor: int, event: int, function: Callable[[int], object]) -> None:
        def if_open(ready: int) -> None:  # `_ended` drains and drops all pipes, even if the selector reported them too
            if ready in self.open:
                function(ready)

        self.selector.register(descriptor, event, if_open)
        self.open.add(descriptor)

    def _drop(self, descriptor: int) -> None:
        if descriptor in self.open:
            self.open.remove(descriptor)
            self.selector.unregister(descriptor)

    def _ready(self, descriptor: int) -> None:
        if os.read(descriptor, 1):
            self.running.start_clock()
        self._drop(descriptor)

    def _read(self, descriptor: int) -> bool:
        """Read one piece; returns whether there may be more."""
        output, room = self.running.read[descriptor], self.running.limits.output_kb * 1024
        try:
            piece = os.read(descriptor, _PIECE_BYTES)
        except BlockingIOError:
            return False
        if not piece:
            self._drop(descriptor)
            return False
        if len(output) + len(piece) > room:
            self.running.stop("output")
            self._drop(descriptor)
        output += piece[: room - len(output)]
        return descriptor in self.open

    def _feed(self, descriptor: int) -> None:
        running = self.running
        stdin = running.process.stdin
        assert stdin is not None
        try:
            if running.feed:
                running.feed = running.feed[os.write(descriptor, running.feed[:_PIECE_BYTES]) :]
        except BrokenPipeError:  # the program does not read its input, which is no error
            running.feed = running.feed[:0]
        if not running.feed:
            self._drop(descriptor)
            stdin.close()

    def _ended(self, _: int) -> None:
        """Drain the pipes, without waiting for a child process that keeps them open."""
        if self.running.ready in self.open and self.running.started is None:
            os.set_blocking(self.running.ready, False)
            with contextlib.suppress(BlockingIOError):
                self._ready(self.running.ready)
        self.running.ended = time.monotonic()
        self.running.kill()
        self.running.process.wait()
        for pipe in list(self.running.read):
            while pipe in self.open and self._read(pipe):
                pass
        for descriptor in list(self.open):
            self._drop(descriptor)
        if self.running.when_ended is not None:
            self.running.when_ended()
