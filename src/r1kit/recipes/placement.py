"""When and where the stages of a recipe run on a cluster, by their estimates, and what the plan says about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from r1kit.evaluate.table import align
from r1kit.pipeline import Recipe, Stage, longest_chains
from r1kit.recipes.estimate import Estimate
from r1kit.recipes.hardware import LINK_SHARE, SAMPLING_SHARE, TRAINING_SHARE, hardware_named
from r1kit.recipes.links import Layout
from r1kit.settings import SettingsError

Device = tuple[int, int]  # its node and its number there, from 0


@dataclass(frozen=True, slots=True)
class Placed:
    """A stage on its devices, from `start` to `end`, in hours after the run's start."""

    stage: str
    start: float
    end: float
    devices: tuple[Device, ...]

    def where(self, layout: Layout) -> str:
        """`node 3: 0-1`, `nodes 1-64`."""
        nodes = sorted({node + 1 for node, _ in self.devices})
        if len(nodes) == 1 and len(self.devices) < layout.per_node:
            return f"node {nodes[0]}: {_ranges(sorted(number for _, number in self.devices))}"
        return f"node{'s' * (len(nodes) > 1)} {_ranges(nodes)}" if nodes else "no device"


def place(recipe: Recipe, estimates: Mapping[str, Estimate], layout: Layout) -> list[Placed]:
    """Stages start when those that they read have ended and their devices are free, those first whose chains of later
    stages take longest, as `pipeline.side_by_side` runs them. A stage with as many devices as a node, or fewer, has
    them on one.

    Raises `SettingsError` for a stage that needs more devices than the cluster has.
    """
    nodes = [set(range(layout.per_node)) for _ in range(layout.cluster)]
    left = {stage.name: stage for stage in recipe.stages}
    chain = longest_chains(recipe.stages, {name: each.hours for name, each in estimates.items()})
    order = sorted(left, key=lambda name: -chain[name])
    running: list[Placed] = []
    placed: list[Placed] = []
    now = 0.0
    while left or running:
        for name in [name for name in order if name in left]:
            busy = left.keys() | {each.stage for each in running}
            if any(parent.name in busy for parent in left[name].parents):
                continue
            taken = _take(nodes, _devices_of(left[name], estimates[name]), layout)
            if taken is None and not running:
                size = f"{layout.cluster} nodes of {layout.per_node}"
                raise SettingsError(f"stage {name} takes {estimates[name].devices} devices, more than {size} have")
            if taken is not None:
                del left[name]
                running.append(Placed(name, now, now + estimates[name].hours, taken))
        ended = min(running, key=lambda each: each.end)
        now = ended.end
        running.remove(ended)
        placed.append(ended)
        for node, number in ended.devices:
            nodes[node].add(number)
    return sorted(placed, key=lambda each: (each.start, order.index(each.stage)))


def _devices_of(stage: Stage, estimate: Estimate) -> int:
    return estimate.devices if stage.uses_device and estimate.hours else 0


def _take(nodes: list[set[int]], count: int, layout: Layout) -> tuple[Device, ...] | None:
    """Free devices: on the first node with room for all, or whole nodes; None if there are too few."""
    if not count:
        return ()
    if count <= layout.per_node:
        fitting = [index for index, free in enumerate(nodes) if len(free) >= count][:1]
    else:
        whole = [index for index, free in enumerate(nodes) if len(free) == layout.per_node]
        fitting = whole[: -(-count // layout.per_node)]
    taken = [(index, number) for index in fitting for number in sorted(nodes[index])][:count]
    if len(taken) < count:
        return None
    for index, number in taken:
        nodes[index].discard(number)
    return tuple(taken)


def _ranges(numbers: Iterable[int]) -> str:
    """`1-4, 7`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def as_text(estimates: Mapping[str, Estimate], placed: Sequence[Placed], layout: Layout, hardware: str) -> str:
    """What devices send each other, when and where stages run, and what the plan assumes; empty for one device."""
    if layout.devices == 1 and not placed:
        return ""
    tables = [traffic_rows(estimates), placement_rows(placed, layout)]
    texts = ["\n" + align([[*rows[0]], *([*row.values()] for row in rows)]) for rows in tables if rows]
    texts += [placement_summary(placed, layout, hardware)] if placed else []
    return "".join(f"{text}\n" for text in [*texts, *remarks(estimates, hardware, layout)])


def placement_rows(placed: Sequence[Placed], layout: Layout) -> list[dict[str, str]]:
    """Stages that work, with their hours and devices."""
    return [
        {"stage": each.stage, "from h": f"{each.start:.2f}", "to h": f"{each.end:.2f}", "on": each.where(layout)}
        for each in placed
        if each.end > each.start
    ]


def placement_summary(placed: Sequence[Placed], layout: Layout, hardware: str) -> str:
    """How long the whole takes, and how much of the devices' time it uses."""
    end = max(each.end for each in placed)
    worked = sum((each.end - each.start) * len(each.devices) for each in placed)
    share = worked / end / (layout.cluster * layout.per_node) if end else 0.0
    size = f"{layout.cluster} nodes of {layout.per_node} {hardware}"
    return f"{size}: {end:.1f} hours from start to end, {worked:,.0f} device-hours, devices busy {share:.0%}"


def traffic_rows(estimates: Mapping[str, Estimate]) -> list[dict[str, str]]:
    """Stages on several devices: what an update sends per device and how long that and the arithmetic take, and the
    seconds of a step that also samples."""
    rows = []
    for name, each in estimates.items():
        if (traffic := each.traffic) is None:
            continue
        row = {
            "stage": name,
            "updates": str(traffic.updates),
            "batches": str(traffic.batches),
            "gathered GB": f"{traffic.gathered / 1e9:.3g}",
            "reduced GB": f"{traffic.reduced / 1e9:.3g}",
            "links s": f"{traffic.seconds:.3g}",
            "arithmetic s": f"{traffic.arithmetic:.3g}",
        }
        steps = dict.fromkeys(("handed over GB", "rollout s", "train s", "hand-over s", "step s", "one step off s"), "")
        if (pipeline := each.pipeline) is not None:
            values = (pipeline.rollout, pipeline.training, pipeline.handing, pipeline.step)
            seconds = [f"{value:.3g}" for value in values]
            off = "-" if pipeline.one_off is None else f"{pipeline.one_off:.3g} ({pipeline.sampling} sample)"
            steps = dict(zip(steps, [f"{traffic.handed_over / 1e9:.3g}", *seconds, off], strict=True))
        rows.append(row | steps)
    return rows


def remarks(estimates: Mapping[str, Estimate], hardware: str, layout: Layout) -> list[str]:
    """What the plan assumes, and what r1kit cannot do of it."""
    device = hardware_named(hardware)
    if device.device == "cpu":
        return []
    lines = [
        f"assumed: {TRAINING_SHARE:.0%} of the peak in training and {SAMPLING_SHARE:.0%} in sampling; links of "
        f"{device.link / 1e9:g} GB/s in a node and {device.network / 1e9:g} GB/s per device between nodes, of which "
        f"collectives reach {LINK_SHARE:.0%}; in fp32, FSDP2 gathers and reduces for each batch, and devices with "
        "whole weights (shard = false) reduce once per update"
    ]
    engines = max((each.engine for each in estimates.values()), default=1)
    if engines > 1:
        lines.append(
            f"planned only: the model does not fit one device, so engines of up to {engines} devices sample, such as "
            "vLLM with tensor parallelism; r1kit's own engine needs the whole model on each device"
        )
    large = {each.stage: each.memory_gib for each in estimates.values() if each.memory_gib > device.memory_gib}
    if large:
        needs = ", ".join(f"{stage} {gib:.0f}" for stage, gib in large.items())
        lines.append(f"more than the {device.memory_gib:g} GiB of {hardware}: {needs} (docs/guides/memory.md)")
    waits = [each.traffic for each in estimates.values() if each.traffic and each.traffic.exposed]
    waited = sum(traffic.exposed * traffic.updates for traffic in waits) / 3600
    if waited > 0.01 * sum(each.hours for each in estimates.values()):
        worst = max(waits, key=lambda traffic: traffic.exposed * traffic.updates)
        counted = "the hours leave this out, and assume a parallelism that hides it" if engines > 1 else "in the hours"
        text = f"training waits {waited:.3g} hours for its links ({counted})"
        if worst.experts_in_place is not None:
            text += (
                f": an update takes {worst.seconds:.3g} s on the links, and {worst.experts_in_place:.3g} s if routed "
                "experts stayed on their devices and tokens travelled to them (not built)"
            )
        lines.append(text)
    return lines
