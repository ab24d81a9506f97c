"""DeepSeek-R1-Zero, section 2: GRPO on a base model with rule-based rewards, measured before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe, Stage
from r1kit.recipes.boxes import refuse_peeking
from r1kit.recipes.overrides import Overrides
from r1kit.recipes.scales import scale_for, scale_of
from r1kit.recipes.sources import externals, model_input
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.report import REPORT, ReportSettings
from r1kit.stages.rl import RL_STAGE


def r1_zero(
    *, overrides: Mapping[str, Any] | None = None, seed: int = 0, scale: str | None = None, model: str | None = None
) -> Recipe:
    """Measure the base, train it, measure again. `eval` in overrides means both measurements.

    Where no scale is named it is `tiny`, and for another model the one made for it, else `gpu`.
    """
    scale = scale or scale_for(model)
    size = scale_of(scale)
    changes = Overrides(overrides or {}, stages=("rl", "eval"))
    evaluation = changes.apply("eval", size.evaluate)
    training = changes.apply("rl", size.rl.replace(seed=seed))
    name = size.model if model is None else model
    base = model_input(name)

    held_out = externals(evaluation.tasks)
    before = Stage("eval-base", EVALUATE, evaluation, {"model": base, **held_out})
    zero = Stage("rl", RL_STAGE, training, {"model": base, **externals(training.tasks, training.rewards)})
    refuse_peeking([zero], evaluation.tasks)
    after = Stage("eval-zero", EVALUATE, evaluation, {"model": zero / "model", **held_out})
    title = f"R1-Zero, scale {scale}, {name}, seed {training.seed}"
    stages = {"base": before / ".", "rl": zero / ".", "zero": after / "."}
    report = Stage("report", REPORT, ReportSettings(title=title), stages)
    return Recipe(f"r1-zero-{scale}", (before, zero, after, report), title)
