"""Ranks of one stage on several nodes: the agents of the other nodes are connected with the first one.

They pass on what their ranks report. When a connection closes, the ranks behind it stop: on a node whose first agent is
gone, and everywhere after a failure. Connections are those of `multiprocessing`, with a key of their own. Addresses are
IPv4 or IPv6.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError, connection
from types import TracebackType
from typing import Any, Self

from r1kit.pipeline.agent import Agent, Launch, family_of
from r1kit.pipeline.failures import Failures
from r1kit.pipeline.progress import Display
from r1kit.pipeline.rank_process import GRACE_S

Receive = Callable[[int, tuple[Any, ...]], None]
GREET_S = 30.0  # for a client to prove that it has the key
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Summons:
    """Where the agents of the other parts connect to."""

    address: tuple[str, int]
    key: bytes = field(repr=False)


def serve_part(summons: Summons, number: int, display: Display) -> None:
    """Run the ranks of another part, in a process on its node; returns when they have ended, well or not."""
    import torch.distributed.launcher.api  # noqa: F401 (takes seconds, so it is done before the agents meet)

    with connection.Connection(socket.create_connection(summons.address).detach()) as first:
        connection.answer_challenge(first, summons.key)
        connection.deliver_challenge(first, summons.key)
        first.send(number)
        launch: Launch = first.recv()
        lock = threading.Lock()

        def send(*message: Any) -> None:
            with lock, contextlib.suppress(OSError):  # the first agent is gone, so the ranks stop
                first.send(message)

        agent = Agent(launch, number, lambda rank, message: send("rank", rank, message))
        end = threading.Thread(target=_stop_after, args=(first, agent), daemon=True)
        end.start()
        send("ended", agent.run())
        end.join()


def _stop_after(first: connection.Connection, agent: Agent) -> None:
    """Stop the ranks when the connection with the first agent closes."""
    with contextlib.suppress(EOFError, OSError):
        first.recv()  # nothing is ever sent this way any more
    agent.stop()


class OtherNodes:
    """The agents of the other nodes, from when they have connected until their ranks have ended.

    `receive` gets what their ranks report, `failures` how they ended. After a failure, all ranks have `GRACE_S` to
    report theirs, and are stopped then.
    """

    def __init__(self, launch: Launch, agent: Agent, receive: Receive, failures: Failures, display: Display) -> None:
        self._launch, self._agent, self._receive = launch, agent, receive
        self._failures, self._display = failures, display
        self._connections: dict[connection.Connection, int] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        if len(self._launch.parts) > 1:
            try:
                self._gather()
            except BaseException:
                self._disconnect()
                raise
        self._listener.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self._listener.join(GRACE_S)
        self._stop()
        self._listener.join(GRACE_S)
        self._disconnect()

    def _gather(self) -> None:
        key, address = secrets.token_bytes(32), self._launch.parts[0].address
        with socket.create_server((address, 0), family=family_of(address)) as server:
            server.settimeout(LOOK_EVERY_S)
            self._display.summon(Summons((address, server.getsockname()[1]), key))
            while len(self._connections) < len(self._launch.parts) - 1:
                with contextlib.suppress(TimeoutError):
                    client, _ = server.accept()
                    # in a thread: others must not wait for a client that connects and says nothing
                    threading.Thread(target=self._greet, args=(client, key), daemon=True).start()
        for other in self._connections:
            other.send(self._launch)

    def _greet(self, client: socket.socket, key: bytes) -> None:
        """Add the agent that has connected. Anybody else is hung up on, at the latest after `GREET_S`."""
        with client:
            other = connection.Connection(client.dup().detach())
            hang_up = threading.Timer(GREET_S, client.shutdown, (socket.SHUT_RDWR,))
            hang_up.start()
            try:
                connection.deliver_challenge(other, key)
                connection.answer_challenge(other, key)
                self._connections[other] = other.recv()
            except (AuthenticationError, EOFError, OSError):  # not one of ours
                other.close()
            finally:
                hang_up.cancel()

    def _listen(self) -> None:
        left = dict(self._connections)
        while left:
            for other in connection.wait(left):
                assert isinstance(other, connection.Connection)
                try:
                    what, *values = other.recv()
                except (EOFError, OSError):
                    self._failures.lost.append(left.pop(other))
                else:
                    if what == "rank":
                        self._receive(*values)
                        continue
                    (exitcodes,) = values
                    self._failures.exitcodes.update(exitcodes)
                    del left[other]
                if self._failures:
                    threading.Timer(GRACE_S, self._stop).start()

    def _stop(self) -> None:
        """End all ranks of the stage."""
        self._agent.stop()
        for other in self._connections:
            with contextlib.suppress(OSError):
                other.send(None)

    def _disconnect(self) -> None:
        for other in self._connections:
            other.close()
