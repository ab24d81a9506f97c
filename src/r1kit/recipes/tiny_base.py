"""The tiny base model and one of half its layers for students: pre-trained from scratch, measured, reported.

`make base` puts their weights into the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe
from r1kit.recipes.builder import Builder
from r1kit.recipes.scale import Sizes
from r1kit.recipes.scales.tiny import TINY
from r1kit.stages.pretrain import PRETRAIN, PretrainSettings


def tiny_base(*, overrides: Mapping[str, Any] | None = None, seed: int = 0) -> Recipe:
    """Pre-train both models (`pretrain`, `half`) on the generated corpus and measure them in the R1-Zero prompt."""
    build = Builder("The tiny base models", TINY, {"eval": TINY.eval}, overrides, seed)
    whole = build("pretrain", PRETRAIN, {}, Sizes())
    half = build("half", PRETRAIN, {}, Sizes(layers=PretrainSettings().layers // 2))
    tables = build.measure({"base": whole / "model", "half": half / "model"})
    return build.recipe("tiny-base", [whole, half, *tables.values()], tables)
