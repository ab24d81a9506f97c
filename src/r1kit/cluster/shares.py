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
    """`cpus`: of every stage, which computes with as many threads. `gpus`: of a stage that computes on a device.
    `devices` share a training stage, on one node."""

    cpus: int
    gpus: int
    devices: int = 1

    def of(self, stage: Stage) -> dict[str, int]:
        """A stage's resources, as Ray names them.

        None for a stage whose engines run as actors: if such stages held CPUs, their actors could wait for each other.
        """
        if getattr(stage.settings, "engines", 1) > 1:
            return {"num_cpus": 0, "num_gpus": 0}
        gpus = self.gpus if stage.uses_device else 0
        if not stage.kind.shards:
            return {"num_cpus": self.cpus, "num_gpus": gpus}
        return {"num_cpus": self.threads_of(stage), "num_gpus": gpus * self.devices}

    def threads_of(self, stage: Stage) -> int:
        """The threads of a stage, which its ranks divide: with GPUs each has its GPU's CPUs, as `--devices` gives it on
        a machine alone; without, they share those of a stage."""
        if not stage.kind.shards:
            return self.cpus
        return self.cpus * self.devices if self.gpus and stage.uses_device else max(self.cpus, self.devices)

    def __str__(self) -> str:
        cpus = f"{self.cpus} CPU{'s' * (self.cpus > 1)}"
        text = f"{cpus}, and {self.gpus} GPU if it computes on one" if self.gpus else cpus
        what = "GPUs" if self.gpus else "processes with a CPU each"
        return f"{text}; training stages for {self.devices} {what} on a node" if self.devices > 1 else text


def share_of(nodes: Sequence[Mapping[str, Any]], light: bool, devices: int = 1) -> Share:
    """How much each stage gets, from what `ray.nodes()` says, if `devices` share each training stage.

    CPUs: OMP_NUM_THREADS if it is set, one if the recipe's stages are light, and otherwise a GPU's share of its node's
    CPUs, or without GPUs all CPUs of a node. All stages get the same number, because results depend on it. Raises
    `ClusterError` if no node has so many.
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
    room = max(min(count, have // cpus) if gpus else have for have, count in workers)
    if devices > room:
        what = f"GPUs with {cpus} CPUs each" if gpus else "CPUs"
        raise ClusterError(
            f"devices is {devices}, and the largest node has {room} {what}: the devices of a stage are on one node, so "
            f"give at most --devices {max(1, room)}, or larger nodes"
        )
    return Share(cpus, gpus, devices)
