"""DeepSeek-R1-Zero, section 2: GRPO on a base model with rule-based rewards, measured before and after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe, Stage
from r1kit.recipes.builder import Builder, Model
from r1kit.recipes.scale import Sizes
from r1kit.recipes.scales import scale_for
from r1kit.rewards import weighted
from r1kit.stages.rl import RL


def r1_zero(
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    scale: str | None = None,
    model: str | None = None,
    data: Mapping[str, Any] | None = None,
    hardware: str | None = None,
    devices: int = 1,
    rehearse: bool = False,
) -> Recipe:
    """Measure the base, train it, measure again. `eval` in `overrides` stands for both measurements.

    Without a scale, a model is trained at the one made for it, or at `gpu`. Without a model either, it is `tiny`.
    """
    size = scale_for("r1-zero", scale, model, data=data, hardware=hardware, devices=devices, rehearse=rehearse)
    build = Builder("R1-Zero", size, {"eval": size.eval}, overrides, seed, model, rehearse)
    before = build.measure({"base": build.base})
    zero = zero_stage(build, "rl", build.base, size.zero)
    after = build.measure({"zero": zero / "model"})
    return build.recipe(f"r1-zero-{size.name}", [*before.values(), zero, *after.values()], before | after)


def zero_stage(build: Builder, name: str, base: Model, sizes: Sizes) -> Stage:
    """RL on a base model for accuracy and format (section 2.2)."""
    departures = build.scale.departures
    return build(
        name,
        RL,
        {"model": base},
        sizes,
        rewards=weighted(("accuracy", *departures.zero_format), (1.0, *departures.zero_format.values())),
        algorithm=departures.zero_algorithm,
        temperature=departures.temperature,
    )
