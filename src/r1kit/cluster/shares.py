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
    `devices` share a training stage, on as few nodes as have them."""

    cpus: int
    gpus: int
    devices: int = 1

    def of(self, stage: Stage) -> dict[str, int]:
        """The resources of a stage that has no ranks, as Ray names them.

        None for a stage whose engines run as actors: if such stages held CPUs, their actors could wait for each other.
        """
        if getattr(stage.settings, "engines", 1) > 1:
            return {"CPU": 0, "GPU": 0}
        return {"CPU": self.cpus, "GPU": self.gpus if stage.uses_device else 0}

    def of_ranks(self, stage: Stage, count: int) -> dict[str, int]:
        """The resources of `count` ranks of a stage: with a GPU each has that GPU's CPUs, as `--devices` gives it on a
        machine alone; without, all ranks share the CPUs of a stage."""
        gpus = self.gpus if stage.uses_device else 0
        cpus = self.cpus if gpus else max(1, self.cpus // self.devices)
        return {"CPU": count * cpus, "GPU": count * gpus}

    def threads_of(self, stage: Stage) -> int:
        """The threads of a stage, which its ranks divide."""
        if not self.shards(stage):
            return self.cpus
        return self.cpus * self.devices if self.gpus and stage.uses_device else max(self.cpus, self.devices)

    def shards(self, stage: Stage) -> bool:
        """Whether the stage runs in several ranks."""
        return self.devices > 1 and stage.kind.shards

    def spread(self, stage: Stage, nodes: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """The number of ranks on each of the fewest nodes that have them all, the largest first; none if even all nodes
        together have too few devices."""
        one = self.of_ranks(stage, 1)
        parts: list[int] = []
        for room in sorted((room_of(node, one) for node in nodes), reverse=True):
            if part := min(room, self.devices - sum(parts)):
                parts.append(part)
        return tuple(parts) if sum(parts) == self.devices else ()

    def __str__(self) -> str:
        cpus = f"{self.cpus} CPU{'s' * (self.cpus > 1)}"
        text = f"{cpus}, and {self.gpus} GPU if it computes on one" if self.gpus else cpus
        what = "GPUs" if self.gpus else "processes with a CPU each"
        return f"{text}; training stages for {self.devices} {what}" if self.devices > 1 else text


def room_of(node: Mapping[str, Any], one: Mapping[str, int]) -> int:
    """How many times a node has the resources `one`."""
    return min(int(node["Resources"].get(name, 0)) // amount for name, amount in one.items() if amount)


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
    each = {"CPU": cpus if gpus else 1, "GPU": gpus}
    rooms = [room for node in nodes if (room := room_of(node, each))]
    if devices > sum(rooms):
        what = f"GPUs with {cpus} CPUs each" if gpus else "CPUs"
        raise ClusterError(
            f"devices is {devices}, and the cluster has {sum(rooms)} {what}, on {len(rooms)} of its nodes: give at "
            f"most --devices {max(1, sum(rooms))}, or more nodes"
        )
    return Share(cpus, gpus, devices)
