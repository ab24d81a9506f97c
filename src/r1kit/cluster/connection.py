"""The connection to a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from r1kit.cluster import ClusterError

DEATHS = {
    WorkerCrashedError: "its worker process died",
    NodeDiedError: "its node died",
    OutOfMemoryError: "its node ran out of memory",
}


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to the cluster, or start Ray on this machine if there is none. Uses a connection that exists already."""
    if ray.is_initialized():
        yield
        return
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):  # of a Ray that we start; its default is 15
        os.environ.setdefault(name, "0")
    handler = signal.getsignal(signal.SIGTERM)  # Ray replaces it by one that ends the process
    try:
        ray.init(
            None if address == "ray" else address,
            log_to_driver=False,  # each stage has its log
            logging_level=logging.ERROR,
            include_dashboard=False,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        start = "start one with `ray start --head`" if address == "ray" else "check the address, and that its head runs"
        raise ClusterError(f"no connection to the cluster {address} ({error}): {start}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def ended_among(tasks: Sequence[Any], seconds: float) -> list[Any]:
    """The tasks that have ended, and if there are none, those that have after some time.

    The time passes outside of Ray, whose own wait would lose the number of a signal that arrives meanwhile.
    """
    ended = _ended(tasks)
    if not ended:
        time.sleep(seconds)
        ended = _ended(tasks)
    return ended


def _ended(tasks: Sequence[Any]) -> list[Any]:
    return list(ray.wait([*tasks], num_returns=len(tasks), timeout=0)[0]) if tasks else []


def outcome_of(task: Any) -> tuple[str | None, bool]:
    """The first line of the error of a task that has ended, and whether its process or node was killed.

    The task returns those of a process that it attends to.
    """
    try:
        error, was_killed = ray.get(task)
        return error, was_killed
    except RayTaskError as error:  # of the node: a stage's own errors are returned
        return first_line(error.cause), False
    except RayError as error:
        return DEATHS.get(type(error)) or first_line(error), True


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
