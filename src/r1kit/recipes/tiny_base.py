"""The tiny base model: pre-trained from scratch, measured, reported. `make base` puts its weights into the package."""

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
    """Pre-train the tiny Llama on the generated corpus and measure it in the R1-Zero prompt."""
    changes = Overrides(overrides or {}, stages=("pretrain", "eval"))
    pretrain = Stage("pretrain", PRETRAIN, changes.apply("pretrain", PretrainSettings(seed=seed)), world_sources())
    measuring = changes.apply("eval", TINY.evaluate)
    held_out = externals(measuring.tasks)
    evaluate = Stage("eval-base", EVALUATE, measuring, {"model": pretrain / "model", **held_out})
    title = f"The tiny base model, seed {seed}"
    stages = {"pretrain": pretrain / ".", "base": evaluate / "."}
    return Recipe(
        "tiny-base", (pretrain, evaluate, Stage("report", REPORT, ReportSettings(title=title), stages)), title
    )
