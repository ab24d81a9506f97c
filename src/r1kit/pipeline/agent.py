"""The ranks of a stage on one node, which torch's elastic agent starts and ends.

Each rank has a pipe to the process of its agent. Progress and errors come through it; when it closes, because that
process was killed, the rank stops too.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import multiprocessing
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.pipeline.rank_process import GRACE_S, serve_rank

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

MEET_S = 300  # for all agents to meet
ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR of Linux


@dataclass(frozen=True, slots=True)
class Part:
    """The ranks of a stage that are on one node, which has the name `node` in messages.

    Other nodes reach it at `address`.
    """

    ranks: int
    node: str = ""
    address: str = "localhost"


@dataclass(frozen=True, slots=True)
class Launch:
    """What all agents of a stage know. The first part has the first ranks, and its agent the store at `endpoint`.

    `content`, `threads` and `limit` are for the ranks (`rank_process.serve_rank`).
    """

    name: str
    parts: tuple[Part, ...]
    endpoint: str
    content: bytes
    threads: int
    limit: float


def ranks_of(parts: tuple[Part, ...], number: int) -> range:
    """The ranks of the part with this number."""
    first = sum(part.ranks for part in parts[:number])
    return range(first, first + parts[number].ranks)


class Agent:
    """Runs the ranks of one part. `receive` is called, in another thread, with each rank and what it reports."""

    def __init__(self, launch: Launch, number: int, receive: Callable[[int, tuple[Any, ...]], None]) -> None:
        self._launch, self._number, self._receive = launch, number, receive
        self._ranks = ranks_of(launch.parts, number)
        spawn = multiprocessing.get_context("spawn")
        self._ours, self._theirs = zip(*(spawn.Pipe() for _ in self._ranks), strict=True)
        self.results: Mapping[int, Mapping[str, Any]] = {}

    def run(self) -> Mapping[int, int]:
        """Return when all ranks have ended: `results` by rank, or the exit codes of those that failed."""
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import elastic_launch

        launch = self._launch
        arguments = (self._theirs, self._ranks.start, launch.content, launch.threads, launch.limit)
        with self._listening(), _undisturbed():
            try:
                self.results = elastic_launch(self._config(), serve_rank)(*arguments)
            except ChildFailedError as failed:
                return {rank: failure.exitcode for rank, failure in failed.failures.items()}
        return {}

    def stop(self) -> None:
        """End all ranks, also those that start later."""
        for pipe in self._ours:
            with contextlib.suppress(OSError):  # it has ended
                pipe.send(None)

    def _config(self) -> LaunchConfig:
        import torch
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.launcher.api import LaunchConfig

        parts = self._launch.parts
        if len(parts) > 1 and (interface := interface_of(parts[self._number].address)):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)  # else gloo takes what the host's name resolves to
        return LaunchConfig(
            min_nodes=len(parts),
            max_nodes=len(parts),
            nproc_per_node=len(self._ranks),
            logs_specs=DefaultLogsSpecs(os.devnull),  # each rank has a log; the agent would leave empty folders
            run_id=self._launch.name,
            rdzv_backend="static",  # takes the numbers of agents as given; c10d sorts them by address
            rdzv_endpoint=self._launch.endpoint,
            rdzv_configs={"rank": self._number, "timeout": MEET_S},
            max_restarts=0,
            virtual_local_rank=torch.cuda.is_available(),  # each rank sees its own GPU only
            signals_to_handle="SIGQUIT",  # Ctrl-C and SIGTERM are handled by `stop_on_signals`
            shutdown_timeout=int(GRACE_S),
        )

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """A block in which the ranks have their pipes; it ends when the last message of every rank is read."""
        listener = threading.Thread(target=self._listen, daemon=True)
        listener.start()
        try:
            yield
        finally:
            for end in self._theirs:
                end.close()
            listener.join(GRACE_S)
            for end in self._ours:
                end.close()

    def _listen(self) -> None:
        """Pass on what the ranks report, until all pipes are closed."""
        left = dict(zip(self._ours, self._ranks, strict=True))
        while left:
            ready = connection.wait(left)
            for pipe in [each for each in left if each in ready]:
                try:
                    message = pipe.recv()
                except (EOFError, OSError):
                    del left[pipe]
                else:
                    self._receive(left[pipe], message)


def family_of(address: str) -> socket.AddressFamily:
    """Of a numeric address; a name is looked up as IPv4."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def interface_of(address: str) -> str | None:
    """The network interface that has this address; None if none has it as its own, or elsewhere than on Linux."""
    if family_of(address) == socket.AF_INET6:
        number, table = socket.inet_pton(socket.AF_INET6, address).hex(), Path("/proc/net/if_inet6")
        rows = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
        return next((row[-1] for row in rows if row[0] == number), None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no address
                found = fcntl.ioctl(any_socket, ADDRESS_OF_INTERFACE, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A block in which the agent logs nothing and leaves signals as they were: the error says all that it would."""
    before = logging.root.manager.disable
    on_quit = signal.getsignal(signal.SIGQUIT)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGQUIT, on_quit)
