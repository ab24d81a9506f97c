"""Run stages whose inputs are ready side by side, those first whose chains of later stages cost most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from graphlib import TopologicalSorter
from typing import Protocol, Self

from r1kit.pipeline.graph import Stage
from r1kit.pipeline.job import Job
from r1kit.pipeline.progress import Display


class Pool(AbstractContextManager["Pool"], Protocol):
    """Runs jobs in other processes: workers on this machine, or the nodes of a cluster. Leaving it stops them all."""

    def __enter__(self) -> Self: ...

    @property
    def busy(self) -> Sized:
        """The jobs that were started and have not ended."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether another job may be started."""
        ...

    def start(self, job: Job) -> None: ...

    def ended(self) -> tuple[Job, str | None]:
        """Show progress until a job ends, and return it with the first line of its error, if it failed."""
        ...


class StagesFailed(ChildProcessError):
    """Some stages failed; all that need none of them are done. The message has the first line of each error."""


def longest_chains(stages: Sequence[Stage], costs: Mapping[str, float]) -> dict[str, float]:
    """What the most costly chain of stages costs that begins with each, by name; a stage without a cost counts 1.

    `stages` are in an order of execution.
    """
    own = {stage.name: costs.get(stage.name, 1.0) for stage in stages}
    chains = dict(own)
    for stage in reversed(stages):
        for parent in stage.parents:
            if parent.name in chains:
                chains[parent.name] = max(chains[parent.name], own[parent.name] + chains[stage.name])
    return chains


def run_side_by_side(jobs: Sequence[Job], pool: Pool, display: Display, costs: Mapping[str, float]) -> None:
    """Run all jobs, which are in the order of the plan; `costs` as in `longest_chains`. Raises `StagesFailed`."""
    left = {job.name: job for job in jobs}
    parents = {job.name: [stage.name for stage in job.row.stage.parents if stage.name in left] for job in jobs}
    order = TopologicalSorter(parents)
    order.prepare()
    chain = longest_chains([job.row.stage for job in jobs], costs)
    places = {name: place for place, name in enumerate(left)}
    failures: dict[str, str] = {}
    with pool:
        ready = [left.pop(name) for name in order.get_ready()]
        while ready or pool.busy:
            ready.sort(key=lambda job: (-chain[job.name], places[job.name]))
            while ready and pool.has_room:
                pool.start(ready.pop(0))
            job, error = pool.ended()
            display.end(job.title)
            if error is not None:
                failures[job.name] = f"{error} ({job.log})" if job.log.exists() else error
                display.say(f"{job.title}: failed: {error}")
                continue
            order.done(job.name)
            ready += [left.pop(name) for name in order.get_ready()]
    if failures:
        lines = [f"{len(failures)} of {len(jobs)} stages failed; the same command tries them again:"]
        lines += [f"  {name}: {error}" for name, error in failures.items()]
        lines += [f"not run, because they need one of these: {', '.join(left)}"] if left else []
        raise StagesFailed("\n".join(lines))
