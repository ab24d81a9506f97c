"""Distillation, section 2.4: a smaller model learns from a reasoning model, and is compared with RL on it alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe
from r1kit.recipes.builder import Part
from r1kit.recipes.r1 import finish, r1_builder, reasoner, rejection_sampling, sft_2_data, students
from r1kit.stages.shared.sources import model_input


def distill(
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    scale: str | None = None,
    model: str | None = None,
    teacher: str | None = None,
) -> Recipe:
    """Students of `teacher`, which writes the traces.

    Without a teacher it is R1, whose stages run first, and the students learn from the data of SFT 2, as in the paper.
    Those stages share their folders with the recipe r1, so finished ones are not repeated.
    """
    build = r1_builder("distill", scale, overrides, seed, model)
    if teacher is None:
        r1 = reasoner(build)
        part = Part(r1.stages, {"r1": r1.models["r1"]}) | students(build, r1.models["r1"], sft_2_data(r1))
        return finish(build, "r1", part, teacher="r1")
    writer = model_input(teacher)
    traces = rejection_sampling(build, "traces", writer)
    part = Part((traces,), {"teacher": writer}) | students(build, writer, traces / "kept.jsonl")
    return finish(build, "distill", part, teacher="teacher")
