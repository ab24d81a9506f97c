"""Run the work of one stage in several processes, on one node or on several.

The process that runs the stage has the agent of the first ranks; agents of other nodes connect with it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from r1kit import ranks
from r1kit.pipeline.agent import Agent, Launch, Part
from r1kit.pipeline.context import Context
from r1kit.pipeline.failures import Failures
from r1kit.pipeline.other_nodes import OtherNodes
from r1kit.pipeline.progress import Display
from r1kit.pipeline.rank_process import Run
from r1kit.settings import SettingsError

if TYPE_CHECKING:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

TIME_LIMIT = "R1KIT_RANK_TIMEOUT_S"  # environment variable: seconds that a rank may keep the others waiting
TIME_LIMIT_S = 1800.0


def run_on_ranks(
    run: Run, context: Context, title: str, display: Display, parts: tuple[Part, ...] = ()
) -> Mapping[str, Any]:
    """Call `run(context)` in `context.devices` ranks; returns the result of the first one.

    `parts` are the ranks by node, those of this node first; by default all are here. Raises the error of a rank, or
    `RankError` if one was killed or does not answer. No rank is left behind.
    """
    import torch

    parts = parts or (Part(context.devices),)
    address, limit = parts[0].address, time_limit()
    store = shared_store(address)
    portable = replace(context, progress=None)  # type: ignore[arg-type]  # its display stays in this process
    launch = Launch(
        name=uuid.uuid4().hex,
        parts=parts,
        endpoint=f"[{address}]:{store.port}" if ":" in address else f"{address}:{store.port}",
        content=pickle.dumps((run, portable, title)),
        threads=max(1, torch.get_num_threads() // context.devices),
        limit=limit,
    )
    failures = Failures(parts)

    def receive(rank: int, message: tuple[Any, ...]) -> None:
        method, *values = message
        if method == "fails":
            (failures.errors[rank],) = values
        else:
            getattr(display, method)(*values)

    agent = Agent(launch, 0, receive)
    try:
        with OtherNodes(launch, agent, receive, failures, display):
            failures.exitcodes.update(agent.run())
    finally:
        context.progress.take_over()  # the first rank has written the steps
    if failures:
        raise failures.cause(context.folder, limit)
    return agent.results[0]


def shared_store(address: str) -> TCPStore:
    """A store at a free port, which the agent in this process finds by the port and shares.

    No other process can take the port in between. torch 2.13 remembers the ports of all such stores that a process ever
    had: if the system gives one of them again, torch does not find the new store at first, and the agent would start a
    second one there and fail. So another port is taken.
    """
    from torch.distributed import DistNetworkError, TCPStore  # type: ignore[attr-defined]

    while True:
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False, multi_tenant=True)
        with contextlib.suppress(DistNetworkError):
            TCPStore(address, store.port, is_master=True, wait_for_workers=False, multi_tenant=True)
            return store


def time_limit() -> float:
    """Seconds that a rank may keep the others waiting; raises `SettingsError` if the variable holds something else."""
    text = os.environ.get(TIME_LIMIT, str(TIME_LIMIT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < ranks.LONG_S:
        raise SettingsError(f"{TIME_LIMIT} is {text!r}: give seconds, more than 0 and less than {ranks.LONG_S:g}")
    return seconds
