"""The nodes of a cluster as a pool of processes for `run_side_by_side`. Ray chooses the node of each stage."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import ray
from ray import cloudpickle  # unlike pickle, it sends functions of a script or a notebook
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from r1kit.cluster import RESTARTS, ClusterError
from r1kit.cluster.connection import connected, ended_among, first_line, outcome_of
from r1kit.cluster.gangs import Gang, alive_nodes
from r1kit.cluster.on_node import Beacon, Board, Errand, attend, enter
from r1kit.cluster.shares import share_of
from r1kit.cluster.site import Site
from r1kit.pipeline import Display, Recipe
from r1kit.pipeline.job import Job, run_job
from r1kit.pipeline.worker import STOP_S, UNSENDABLE
from r1kit.store import held, storing, write_text

LOOK_EVERY_S = 0.2  # at the stages' progress
PROBE_S = 120.0  # for a node to start a process that looks at the run's folder
LOCK_PATIENCE_S = 120.0  # an NFS server frees the locks of a node that lost power after 90 s
ON_HEAD = {"node:__internal_head__": 0.001}  # losing the head ends the run in any case


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try to run a job; `restarts` were before it. A job that several devices share has a `gang`."""

    job: Job
    restarts: int = 0
    gang: Gang | None = None


class Nodes:
    """A `Pool`: at most `limit` stages at a time, or as many as Ray has room for; Ray queues the others."""

    def __init__(self, address: str, limit: int | None, recipe: Recipe, folder: Path, display: Display) -> None:
        self._address, self._limit, self._light, self._devices = address, limit, recipe.light, recipe.devices
        self._folder, self._display = folder, display
        self._waiting: list[Attempt] = []  # for the room of their gangs
        self._running: dict[Any, Attempt] = {}  # by task
        self._killed: dict[Any, str] = {}  # why tasks were cancelled
        self._short: set[str] = set()  # stages that wait for nodes to join
        self._unsendable: list[tuple[Job, str]] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            lock, token = self._folder / ".cluster.lock", secrets.token_hex(8)
            with storing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
            refusal = f"{{holder}} runs the recipe in {self._folder} on a cluster: wait for it or stop it first"
            stack.enter_context(held(lock, f"process {os.getpid()} on {socket.gethostname()}", refusal))
            for left in self._folder.glob(".beacon-*"):  # of a driver that was killed: the lock is ours now
                left.unlink(missing_ok=True)
            self._beacon = Beacon((self._folder / f".beacon-{token}").absolute(), token, lock.absolute())
            write_text(self._beacon.file, token)
            stack.callback(self._beacon.file.unlink, missing_ok=True)
            stack.enter_context(connected(self._address))
            self._site = Site.here()
            nodes = alive_nodes()
            self._share = share_of(nodes, self._light, self._devices)
            _probe(nodes, self._site, self._beacon)
            self._board: Any = ray.remote(Board).options(num_cpus=0, resources=ON_HEAD).remote()
            self._task = ray.remote(attend)
            resources = ray.cluster_resources()
            size = f"{len(nodes)} nodes, {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
            self._display.say(f"Ray {ray.__version__}: {size}; each stage asks for {self._share}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop all stages. Those that do not end in time are killed when the connection closes."""
        with self._stack, contextlib.suppress(RayError):
            for task in self._running:
                ray.cancel(task)
            if self._running:
                ray.wait([*self._running], num_returns=len(self._running), timeout=STOP_S)
            for attempt in (*self._waiting, *self._running.values()):
                if attempt.gang is not None:
                    attempt.gang.leave()
            self._show()

    @property
    def busy(self) -> list[Job]:
        attempts = (*self._waiting, *self._running.values())
        return [attempt.job for attempt in attempts] + [job for job, _ in self._unsendable]

    @property
    def has_room(self) -> bool:
        return self._limit is None or len(self.busy) < self._limit

    def start(self, job: Job) -> None:
        try:
            _content(job)
        except Exception as error:
            self._unsendable.append((job, UNSENDABLE.format(error=error)))
        else:
            self._begin(Attempt(job))

    def _begin(self, attempt: Attempt) -> None:
        stage = attempt.job.row.stage
        if self._share.shards(stage):
            self._waiting.append(replace(attempt, gang=Gang(self._share, stage)))
        else:
            resources = self._share.of(stage)
            self._submit(attempt, num_cpus=resources["CPU"], num_gpus=resources["GPU"])

    def _submit(self, attempt: Attempt, **options: Any) -> None:
        job, gang = attempt.job, attempt.gang
        others = [] if gang is None else gang.places[1:]
        errand = Errand(job.title, job.log, _content(job), self._share.threads_of(job.row.stage), others)
        # max_retries=0: Ray's own restarts would neither be shown nor, after a lack of memory, be bounded
        task = self._task.options(name=job.name, max_retries=0, **options)
        self._running[task.remote(self._site, self._beacon, errand, self._board)] = attempt

    def ended(self) -> tuple[Job, str | None]:
        """Show progress until a job ends, and return it with the first line of its error, if it failed."""
        if self._unsendable:
            return self._unsendable.pop()
        while True:
            try:
                self._look_after_gangs()
                tasks = ended_among([*self._running], LOOK_EVERY_S)
                self._show()
            except RayError as lost:
                reason = first_line(lost)
                raise ClusterError(f"the head of the cluster was lost ({reason}): the same command resumes") from lost
            for task in tasks:
                attempt = self._running.pop(task)
                if attempt.gang is not None:
                    attempt.gang.leave()
                error, is_lost = outcome_of(task)
                killed = self._killed.pop(task, None)
                if killed is not None and error is not None:  # it may have ended well just before
                    error, is_lost = killed, True
                if not is_lost:
                    return attempt.job, error
                if attempt.restarts == RESTARTS:
                    return attempt.job, f"{error}, for the {RESTARTS + 1}th time"
                again = f"starts again, {attempt.restarts + 1} of at most {RESTARTS} times"
                self._display.say(f"{attempt.job.title}: {error}; {again}")
                self._begin(Attempt(attempt.job, attempt.restarts + 1))

    def _look_after_gangs(self) -> None:
        """Start those that have got room, and end those that have lost a node."""
        gangs = {task: attempt.gang for task, attempt in self._running.items() if attempt.gang is not None}
        if not (self._waiting or gangs):
            return
        nodes = alive_nodes()
        for attempt in [*self._waiting]:
            assert attempt.gang is not None
            if attempt.gang.has_place(nodes):
                self._waiting.remove(attempt)
                placed = replace(attempt, job=replace(attempt.job, parts=attempt.gang.parts))
                self._submit(placed, **attempt.gang.places[0].options)
            elif attempt.gang.is_possible:
                self._short.discard(attempt.job.name)
            elif attempt.job.name not in self._short:
                self._short.add(attempt.job.name)
                text = f"waits for nodes: those that are left have too few devices for {self._devices} ranks"
                self._display.say(f"{attempt.job.title}: {text}")
        for task, gang in gangs.items():
            if task not in self._killed and (part := gang.dead(nodes)) is not None:
                self._killed[task] = f"{part.node} died"
                ray.cancel(task)

    def _show(self) -> None:
        """Show what the stages have reported since the last call."""
        for method, *values in ray.get(self._board.take.remote()):
            getattr(self._display, method)(*values)


def _probe(nodes: list[dict[str, Any]], site: Site, beacon: Beacon) -> None:
    """Raise `ClusterError` unless stages can run on every node."""
    task, looks = ray.remote(enter), {}
    for node in nodes:
        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        look = task.options(num_cpus=0, max_retries=0, scheduling_strategy=place).remote(site, beacon)
        looks[look] = node["NodeManagerHostname"]
    _, late = ray.wait([*looks], num_returns=len(looks), timeout=PROBE_S)
    if late:
        hosts = ", ".join(looks[look] for look in late)
        raise ClusterError(f"no answer from {hosts} within {PROBE_S:g} s: check `ray status`, or remove the node")
    for look, host in looks.items():
        try:
            ray.get(look)
        except RayTaskError as error:
            if isinstance(error.cause, ClusterError):
                raise error.cause from None
            reason = f"cannot run r1kit ({first_line(error.cause)})"
            raise ClusterError(f"node {host} {reason}: install the same r1kit[ray] there") from None
        except RayError as error:
            raise ClusterError(f"node {host} was lost ({first_line(error)})") from error


def _content(job: Job) -> bytes:
    """What a worker process on a node does; raises an error of pickle."""
    content: bytes = cloudpickle.dumps(partial(run_job, replace(job.portable(), patience_s=LOCK_PATIENCE_S)))
    return content
