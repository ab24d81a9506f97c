"""Room for the ranks of one stage: a placement group of Ray, with a bundle of devices for each of its nodes.

The task in the first bundle attends to the stage, and starts one for the agent of each other node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from r1kit.cluster.shares import Share
from r1kit.pipeline import Stage
from r1kit.pipeline.agent import Part, ranks_of


@dataclass(frozen=True, slots=True)
class Place:
    """The bundle for one part of a stage's ranks, from `first` on; `ranks` names them."""

    group: PlacementGroup
    number: int
    resources: Mapping[str, int]
    first: int
    ranks: str

    @property
    def options(self) -> dict[str, Any]:
        """Of a Ray task that runs there."""
        strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=self.number)
        return {"num_cpus": self.resources["CPU"], "num_gpus": self.resources["GPU"], "scheduling_strategy": strategy}


class Gang:
    """The nodes of a stage's ranks: as few as have room for all of them, from when Ray has reserved it."""

    def __init__(self, share: Share, stage: Stage) -> None:
        self._share, self._stage = share, stage
        self._sizes: tuple[int, ...] = ()  # ranks by node
        self._group: PlacementGroup | None = None
        self._nodes: list[Mapping[str, Any]] = []  # of the parts

    def has_place(self, nodes: Sequence[Mapping[str, Any]]) -> bool:
        """Whether Ray has reserved room. `nodes` are those of the cluster now: others are asked for if some have gone
        or come."""
        sizes = self._share.spread(self._stage, nodes)
        if sizes != self._sizes:
            self.leave()
            self._sizes = sizes
            if sizes:
                bundles = [{name: n for name, n in self._of(size).items() if n} for size in sizes]
                self._group = placement_group(bundles, strategy="PACK")
        if self._group is None:
            return False
        table, known = placement_group_table(self._group), {node["NodeID"]: node for node in nodes}
        places = table["bundles_to_node_id"]
        if table["state"] != "CREATED" or not known.keys() >= {*places.values()}:
            return False
        self._nodes = [known[places[number]] for number in range(len(sizes))]
        return True

    @property
    def is_possible(self) -> bool:
        """Whether the nodes had room when none of it was in use."""
        return self._group is not None

    @property
    def places(self) -> list[Place]:
        """The bundles, once there is a place."""
        assert self._group is not None, "Ray has reserved room"
        places = []
        for number, size in enumerate(self._sizes):
            ranks = ranks_of(self.parts, number)
            name = f"rank {ranks[0]}" if size == 1 else f"ranks {ranks[0]}-{ranks[-1]}"
            places.append(Place(self._group, number, self._of(size), ranks[0], name))
        return places

    @property
    def parts(self) -> tuple[Part, ...]:
        """The ranks by node, once there is a place."""
        return tuple(
            Part(size, f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]})", node["NodeManagerAddress"])
            for size, node in zip(self._sizes, self._nodes, strict=True)
        )

    def dead(self, nodes: Sequence[Mapping[str, Any]]) -> Part | None:
        """A part whose node is not among `nodes`."""
        alive = {node["NodeID"] for node in nodes}
        pairs = zip(self.parts, self._nodes, strict=True)
        return next((part for part, node in pairs if node["NodeID"] not in alive), None)

    def leave(self) -> None:
        """Give the room back; what still runs there is killed."""
        if self._group is not None:
            remove_placement_group(self._group)
        self._group, self._sizes, self._nodes = None, (), []

    def _of(self, size: int) -> dict[str, int]:
        return self._share.of_ranks(self._stage, size)


def alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]
