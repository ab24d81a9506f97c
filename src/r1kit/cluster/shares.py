"""The CPUs and GPUs that a stage asks the cluster for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.cluster import ClusterError
from r1kit.pipeline import Stage


@dataclass(frozen=True, slots=True)
class Share:
    """`cpus`: of every stage, which computes with as many threads. `gpus`: of a stage that computes on a device."""

    cpus: int
    gpus: int

    def of(self, stage: Stage) -> dict[str, int]:
        """A stage's resources, as Ray names them.

        None for a stage whose engines run as actors: if such stages held CPUs, their actors could wait for each other.
        """
        if getattr(stage.settings, "engines", 1) > 1:
            return {"num_cpus": 0, "num_gpus": 0}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus if stage.uses_device else 0}

    def __str__(self) -> str:
        cpus = f"{self.cpus} CPU{'s' * (self.cpus > 1)}"
        return f"{cpus}, and {self.gpus} GPU if it computes on one" if self.gpus else cpus


def share_of(nodes: Sequence[Mapping[str, Any]], light: bool) -> Share:
    """How much each stage gets, from what `ray.nodes()` says.

    CPUs: OMP_NUM_THREADS if it is set, one if the recipe's stages are light, and otherwise a GPU's share of its node's
    CPUs, or without GPUs all CPUs of a node. All stages get the same number, because results depend on it.
    """
    sizes = [(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))) for node in nodes]
    workers = [(cpus, gpus) for cpus, gpus in sizes if cpus]
    if not workers:
        raise ClusterError("no node of the cluster has a CPU for a stage: start nodes with --num-cpus of 1 or more")
    gpus = min(1, max(gpus for _, gpus in workers))
    cpus = min(cpus // max(1, count) for cpus, count in workers if bool(count) == bool(gpus)) or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "1" if light else "")
    if wanted.isdigit() and int(wanted):
        cpus = int(wanted)
    if cpus > (largest := max(cpus for cpus, _ in workers)):
        raise ClusterError(f"OMP_NUM_THREADS is {cpus}, and the largest node has {largest} CPUs: lower it")
    return Share(cpus, gpus)
