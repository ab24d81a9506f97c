"""Devices that share a training stage, and what they send each other: by formulas, before anything runs.

FSDP2 gathers the weights of each layer before its forward and its backward pass, and adds up its gradients after it. In
`models.shard` both are fp32, whatever the layer computes in, and each batch of an update does it again. Devices that
keep the weights whole (`shard = false`) add up their gradients once per update: a reduce-scatter and an all-gather.

All-gather of B bytes over D devices: each receives (D - 1)/D of them over the links of its node, and each node receives
the (nodes - 1)/nodes that it lacks once, over the network of all its devices. Both happen at the same time, so the
slower one counts. Reduce-scatter is the same in the other direction (the bandwidth terms of the ring in Thakur et al.
2005, "Optimization of Collective Communication Operations in MPICH"). What devices that share rows exchange around
attention is not counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil
from typing import Self

from r1kit.pipeline import ModelSize, Work
from r1kit.recipes.hardware import LINK_SHARE, PER_NODE, Hardware
from r1kit.settings import SettingsError

SENT_BYTES = 4.0  # of a weight or gradient between ranks
MOST_DEVICES = 100_000  # a plan places stages device by device
HANDED_BYTES = 2.0  # of a weight that engines with a part of the model each receive: bf16


@dataclass(frozen=True, slots=True)
class Layout:
    """`nodes` x `per_node` devices share each training stage. `cluster`: the nodes on which stages are placed, side by
    side; 0: on one machine, one after the other."""

    nodes: int = 1
    per_node: int = 1
    cluster: int = 0

    @classmethod
    def of(cls, devices: int | str, cluster: int = 0) -> Self:
        """From `8`, or `64x8` for nodes and the devices of each; more than `PER_NODE` are nodes of so many.

        Raises `SettingsError` for anything else, and for a cluster with fewer nodes.
        """
        form = re.fullmatch(r"(?:(\d{1,6})x)?(\d{1,6})", str(devices))
        if form is None or 0 in (numbers := [int(number) for number in form.groups("1")]):
            raise SettingsError(f"devices is {devices}: give at least 1, or nodes x devices of each, such as 64x8")
        nodes, per_node = numbers
        if form[1] is None and per_node > PER_NODE and per_node % PER_NODE == 0:
            nodes, per_node = per_node // PER_NODE, PER_NODE
        if max(nodes, cluster) * per_node > MOST_DEVICES:
            raise SettingsError(
                f"devices is {devices} on {max(nodes, cluster)} nodes: give at most {MOST_DEVICES} in all"
            )
        if 0 < cluster < nodes:
            raise SettingsError(f"nodes is {cluster}, and {nodes} of them share each stage: give at least {nodes}")
        return cls(nodes, per_node, cluster or (nodes if nodes > 1 else 0))

    @property
    def devices(self) -> int:
        """The devices that share a training stage."""
        return self.nodes * self.per_node

    def __str__(self) -> str:
        return f"{self.nodes}x{self.per_node}" if self.nodes > 1 else str(self.per_node)


def collective_seconds(size: float, layout: Layout, hardware: Hardware) -> float:
    """Seconds of an all-gather or a reduce-scatter of `size` bytes over all devices of the layout."""
    inside = size * (layout.devices - 1) / layout.devices if layout.per_node > 1 else 0.0
    between = size * (layout.nodes - 1) / layout.nodes / layout.per_node
    return max(inside / hardware.link, between / hardware.network) / LINK_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What each device of a training stage sends and receives.

    batches: forward and backward passes in an update. gathered, reduced: bytes per update of weights and gradients, and
    `seconds` their time on the links; `arithmetic` is the time to compute the update, which hides them if it overlaps.
    handed_over: bytes per rollout that a device receives so that it samples with the new weights. experts_in_place:
    seconds per update if routed experts stayed on their devices and tokens travelled to them; None without experts.
    """

    updates: int
    batches: int
    gathered: float
    reduced: float
    seconds: float
    arithmetic: float
    handed_over: float = 0.0
    handing_seconds: float = 0.0
    experts_in_place: float | None = None
    overlaps: bool = True

    @property
    def exposed(self) -> float:
        """Seconds of an update in which devices wait for the links: what arithmetic cannot hide."""
        return max(0.0, self.seconds - self.arithmetic) if self.overlaps else self.seconds


def traffic_of(
    size: ModelSize,
    work: Work,
    tokens: float,
    operations: float,
    layout: Layout,
    hardware: Hardware,
    *,
    training: float,
    teacher: bool,
    engine: int,
) -> Traffic:
    """The traffic of a stage whose trained samples have `tokens` each, and `operations` in all.

    `training`: operations per second of a device. `teacher`: whether a forward pass is that of an input, which is whole
    on each device. `engine`: the devices that hold one copy of the model for sampling.
    """
    share, devices = (layout.devices - 1) / layout.devices, layout.devices
    update = min(work.update or work.samples, work.samples)
    updates = max(1, -(-work.samples // max(1, update)))
    parts = devices / work.sequence_devices  # of an update; devices that share rows have the same one
    batches = max(1, ceil(update * tokens / parts / max(work.tokens_per_batch, tokens)))
    backward, forward = work.passes // 6, work.passes % 6 // 2
    own_forward = max(0, forward - work.reference - work.teachers - teacher)  # other models are whole on each device
    gathers, weights = 2 * backward + own_forward, SENT_BYTES * size.parameters
    reduces = batches * backward
    if not work.shard:  # a sum of gradients, after the last batch, is a reduce-scatter and an all-gather
        gathers, reduces, weights = 0, 2 * backward, SENT_BYTES * (work.lora_rank * size.sides or size.parameters)
    seconds = (batches * gathers + reduces) * collective_seconds(weights, layout, hardware)
    handed = handing = 0.0
    if work.rollouts and engine > 1:
        handed = HANDED_BYTES * size.parameters / engine
        handing = handed / LINK_SHARE / (hardware.network if layout.nodes > 1 else hardware.link)
    elif work.rollouts and work.shard:  # every device takes the whole model
        handed, handing = share * weights, collective_seconds(weights, layout, hardware)
    return Traffic(
        updates=updates,
        batches=batches,
        gathered=batches * gathers * share * weights,
        reduced=reduces * share * weights,
        seconds=seconds,
        arithmetic=operations / updates / (training * devices),
        handed_over=handed,
        handing_seconds=handing,
        experts_in_place=(
            _in_place(size, update * tokens / devices, backward, layout, hardware) if work.shard else None
        ),
        overlaps=work.shard,
    )


def _in_place(size: ModelSize, tokens: float, backward: int, layout: Layout, hardware: Hardware) -> float | None:
    """Seconds per update if experts stay: other weights are gathered once, and each token goes to its experts and comes
    back, in both passes, in bf16. An upper bound: all experts of a token are on other nodes, and none share one."""
    if not size.routed:
        return None
    others = SENT_BYTES * (size.parameters - size.routed)
    travelling = tokens * 4 * 2.0 * size.chosen * size.width * size.layers
    speed = hardware.network if layout.nodes > 1 else hardware.link
    return backward * (3 * collective_seconds(others, layout, hardware) + travelling / LINK_SHARE / speed)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One step of a stage that samples: seconds of its parts on all devices, one after the other; and with the next
    rollout beside the training (`staleness = 1`), on `sampling` devices and all others."""

    rollout: float
    training: float
    handing: float
    one_off: float | None = None  # None: one engine takes all devices
    sampling: int = 0

    @property
    def step(self) -> float:
        return self.rollout + self.training + self.handing


def pipeline_of(
    together: float, alone: float, training: float, traffic: Traffic, layout: Layout, engine: int
) -> Pipeline:
    """The best split of the devices for one step off.

    `together`: device-seconds of all completions at full batches; `alone`: seconds of the longest one's steps;
    `training`: device-seconds of a step's updates. An engine takes `engine` devices, so the split goes by these.
    """
    devices, handing = layout.devices, traffic.handing_seconds
    splits = range(engine, devices, engine)
    times = {count: max(together / count + alone, training / (devices - count)) + handing for count in splits}
    best = min(times, key=lambda count: times[count], default=0)
    return Pipeline(together / devices + alone, training / devices, handing, times.get(best), best)
