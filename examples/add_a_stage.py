"""A kind of stage of your own, and a recipe that uses it: keep the shortest correct response of every problem.

Run it: python examples/add_a_stage.py. A kind needs no registration: a recipe names it, and that is all.
An edit of this file redoes the stage, since the file of a kind's `run` counts in the stage's fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import r1kit
from r1kit.curate import presets
from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.pipeline import Context, Kind, Recipe, Stage, Work
from r1kit.recipes.builder import Builder
from r1kit.recipes.scale import Sizes
from r1kit.recipes.scales.tiny import TINY
from r1kit.settings import Settings
from r1kit.stages.generate import GENERATE
from r1kit.tasks import TaskSpec


class ShortestSettings(Settings):
    max_characters: int = 400  # drop problems whose shortest row is longer


def run(context: Context) -> Mapping[str, Any]:
    """Reads rows from the input `data`, leaves shortest.jsonl, and returns metrics for the manifest."""
    shortest: dict[str, dict[str, Any]] = {}
    for row in read_rows(context.input("data")):
        best = shortest.setdefault(row["problem_id"], row)
        shortest[row["problem_id"]] = min(best, row, key=lambda each: len(each["messages"][-1]["content"]))
    short = [row for row in shortest.values() if len(str(row["messages"])) <= context.settings.max_characters]
    with RowWriter(context.folder / "shortest.jsonl") as file:
        for row in short:
            file.append(row)
    return {"problems": len(shortest), "kept": len(short)}


def cost(stage: Stage, rows: int) -> Work:
    """For `r1kit plan --hardware`: how many rows the stage leaves, of those it reads."""
    return Work(rows=rows // 2, samples=rows)


SHORTEST = Kind(name="shortest", run=run, settings=ShortestSettings, cost=cost)


def shortest_samples(*, overrides: Mapping[str, Any] | None = None, seed: int = 0) -> Recipe:
    build = Builder("Shortest samples", TINY, {}, overrides, seed)
    sizes = Sizes(tasks=(TaskSpec(name="tiny/sums", limit=20),), max_tokens=64)  # ten would leave nothing
    samples = build("samples", GENERATE, {"model": build.base}, sizes, curate=presets.REJECTION)
    shortest = build("shortest", SHORTEST, {"data": samples / "kept.jsonl"}, Sizes())
    return build.recipe("shortest", [samples, shortest], {})


if __name__ == "__main__":
    folder = r1kit.run("add_a_stage:shortest_samples", until="shortest", overrides={"shortest.max_characters": 300})
    print(folder, sum(1 for _ in read_rows(folder / "shortest.jsonl")), "rows")
