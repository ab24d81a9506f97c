"""Distillation, section 2.4: a smaller model learns from a reasoning model, and is compared with RL on it alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe
from r1kit.recipes.boxes import Boxes, Made
from r1kit.recipes.r1 import reasoner, students
from r1kit.stages.generate import GENERATE


def distill(
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    scale: str = "tiny",
    model: str | None = None,
    teacher: str | None = None,
) -> Recipe:
    """Students of `teacher`, which writes the traces; without one, of R1, whose stages run first (and are shared with
    the recipe r1: what is done there is not done again). The data are then those of SFT 2, as in the paper.
    """
    box = Boxes("distill", scale, overrides, seed, model)
    if teacher is None:
        made = reasoner(box)
        known = Made({"r1": made.models["r1"]}, made.stages)
        pupils = students(box, made.models["r1"], made.stages["mix"] / "mixed.jsonl")
        return box.finish(known | pupils, "r1", teacher="r1")
    model_of = box.external(teacher)
    traces = box("traces", GENERATE, model=model_of)
    known = Made({"teacher": model_of}, {"traces": traces})
    return box.finish(known | students(box, model_of, traces / "kept.jsonl"), "distill", teacher="teacher")
