"""Distillation, section 2.4: a smaller model learns from a reasoning model, and is compared with RL on it alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe
from r1kit.recipes.builder import Part
from r1kit.recipes.parts import PARTS
from r1kit.recipes.r1 import finish, r1_builder, reasoner, rejection_sampling, sft_2_data, students
from r1kit.recipes.scales import scale_for
from r1kit.settings import SettingsError


def distill(
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    scale: str | None = None,
    model: str | None = None,
    student: str | None = None,
    teacher: str | None = None,
    data: Mapping[str, Any] | None = None,
    hardware: str | None = None,
    devices: int = 1,
    rehearse: bool = False,
) -> Recipe:
    """Students of `teacher`, which writes the traces, or of the traces in `data`, if no problems are.

    `student` is their base, by default `model`. Without a teacher it is R1, whose stages run first, and the students
    learn from the data of SFT 2, as in the paper. Those stages share their folders with the recipe r1, so finished ones
    are not repeated.
    """
    if data and "traces" in data and "problems" not in data:
        if scale is not None:
            raise SettingsError("sizes for students of given traces depend on model and device: leave out scale")
        return PARTS["distill"](
            overrides=overrides,
            seed=seed,
            model=student or model,
            teacher=teacher,
            data=data,
            hardware=hardware,
            devices=devices,
            rehearse=rehearse,
        )
    size = scale_for(
        "distill",
        scale,
        model,
        student=student or (model if teacher else None),
        teacher=teacher,
        data=data,
        hardware=hardware,
        devices=devices,
        rehearse=rehearse,
    )
    build = r1_builder("distill", size, overrides, seed, model, rehearse)
    if teacher is None:
        r1 = reasoner(build)
        part = Part(r1.stages, {"r1": r1.models["r1"]}) | students(build, r1.models["r1"], sft_2_data(r1))
        return finish(build, "r1", part, teacher="r1")
    writer = build.model(teacher)
    traces = rejection_sampling(build, "traces", writer)
    part = Part((traces,), {"teacher": writer}) | students(build, writer, traces / "kept.jsonl")
    return finish(build, "distill", part, teacher="teacher")
