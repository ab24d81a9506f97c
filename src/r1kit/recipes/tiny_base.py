"""The tiny base model and one of half its layers for students: pre-trained from scratch, measured, reported.

`make base` puts their weights into the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe, Stage
from r1kit.recipes.overrides import Overrides
from r1kit.recipes.scales import TINY
from r1kit.recipes.sources import externals, world_sources
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.pretrain import PRETRAIN, PretrainSettings
from r1kit.stages.report import REPORT, ReportSettings


def tiny_base(*, overrides: Mapping[str, Any] | None = None, seed: int = 0) -> Recipe:
    """Pre-train both models (`pretrain`, `half`) on the generated corpus and measure them in the R1-Zero prompt."""
    changes = Overrides(overrides or {}, stages=("pretrain", "half", "eval"))
    whole = PretrainSettings(seed=seed)
    sizes = {"pretrain": whole, "half": whole.replace(layers=whole.layers // 2)}
    made = {name: Stage(name, PRETRAIN, changes.apply(name, size), world_sources()) for name, size in sizes.items()}
    measuring = changes.apply("eval", TINY.evaluate)
    held_out = externals(measuring.tasks)
    tables = {
        column: Stage(f"eval-{column}", EVALUATE, measuring, {"model": made[name] / "model", **held_out})
        for column, name in (("base", "pretrain"), ("half", "half"))
    }
    title = f"The tiny base models, seed {seed}"
    shown = {name: stage / "." for name, stage in (made | tables).items()}
    report = Stage("report", REPORT, ReportSettings(title=title), shown)
    return Recipe("tiny-base", (*made.values(), *tables.values(), report), title)
