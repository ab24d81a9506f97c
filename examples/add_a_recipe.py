"""A recipe and a scale of your own: the base model samples, and SFT trains it on its own correct samples.

The kinds of stage are the `Kind` constants in r1kit/stages, such as GENERATE and RL; `RL.settings.model_fields` lists
its settings. Sizes and data come from a scale, or `Sizes(steps=2, ...)`. What a stage is for stands beside them, as
`prompting` here, or `rewards=["accuracy", "mine:f"]` for RL. An input is a model or a file (`samples / "kept.jsonl"`).

Run it: python examples/add_a_recipe.py. With this folder on PYTHONPATH the command line runs it too:
r1kit run add_a_recipe:expert_iteration --scale add_a_recipe:SHORT --set tuned.epochs=2
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import r1kit
from r1kit.curate import presets
from r1kit.pipeline import Recipe
from r1kit.recipes.builder import Builder
from r1kit.recipes.scale import Sizes
from r1kit.recipes.scales import scale_of
from r1kit.recipes.scales.tiny import TINY
from r1kit.stages.generate import GENERATE
from r1kit.stages.sft import SFT
from r1kit.tasks import TaskSpec

# A scale says sizes and data. This one is the scale `tiny` with less of everything.
FEW = (TaskSpec(name="tiny/sums", limit=20, seed=1),)
SHORT = replace(
    TINY,
    name="short",
    eval=TINY.eval | Sizes(tasks=(TaskSpec(name="tiny/sums", limit=10),), samples=1),
    r1=replace(TINY.for_r1, rejection=Sizes(tasks=FEW, samples=4, max_tokens=64)),
)


def expert_iteration(
    *, overrides: Mapping[str, Any] | None = None, seed: int = 0, scale: str = "tiny", model: str | None = None
) -> Recipe:
    """A recipe is a function that returns stages; it says what each is for, and takes its sizes from the scale."""
    size = scale_of(scale)
    build = Builder("Expert iteration", size, {"eval": size.eval}, overrides, seed, model)
    samples = build(
        "samples", GENERATE, {"model": build.base}, size.for_r1.rejection, prompting="own", curate=presets.REJECTION
    )
    tuned = build("tuned", SFT, {"model": build.base, "data": samples / "kept.jsonl"}, size.for_r1.dev1)
    tables = build.measure({"base": build.base, "tuned": tuned / "model"})
    return build.recipe(f"expert-iteration-{size.name}", [samples, tuned, *tables.values()], tables)


def main() -> None:
    folder = r1kit.run("add_a_recipe:expert_iteration", scale="add_a_recipe:SHORT")
    print(json.loads((folder / "summary.json").read_text())["table"])


if __name__ == "__main__":
    main()
