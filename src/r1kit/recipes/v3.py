"""DeepSeek-V3's post-training, section 5: an expert for each domain makes the data that the model is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe, Stage
from r1kit.recipes.builder import Builder, Model, Part
from r1kit.recipes.r1 import (
    REASONING_TO_GENERAL,
    finish,
    general_data,
    preference_rewards,
    r1_builder,
    reasoner,
    requests_stage,
    reward_models,
    rule_rewards,
    scenario_rewards,
)
from r1kit.recipes.scale import ExpertSizes
from r1kit.recipes.scales import scale_for
from r1kit.stages.generate import GENERATE
from r1kit.stages.mix import MIX
from r1kit.stages.rl import RL
from r1kit.stages.sft import SFT


def v3(
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
    """Experts, SFT on their data with general data, then RL with rules and reward models.

    `teacher` writes the R1 responses. Without one it is R1, whose stages run first and are shared with the recipe r1.
    With one, the reward models start from the V3 SFT checkpoint (section 5.2.1); without, they are R1's.
    """
    chosen = scale_for(
        "v3", scale, model, student=student, data=data, hardware=hardware, devices=devices, rehearse=rehearse
    )
    build = r1_builder("v3", chosen, overrides, seed, model, rehearse)
    size = build.scale.for_v3
    if teacher is None:
        r1 = reasoner(build)
        writer, before = r1.models["r1"], r1.stages
    else:
        requests = requests_stage(build)
        writer, before = build.model(teacher), (requests, general_data(build, requests))
    earlier = {stage.name: stage for stage in before}
    experts = {domain: expert(build, domain, writer, sizes) for domain, sizes in size.experts.items()}
    rows = {f"rows/reasoning/{domain}": stages[-1] / "kept.jsonl" for domain, stages in experts.items()}
    rows["rows/general"] = earlier["general"] / "kept.jsonl"
    mix = build("v3-mix", MIX, rows, size.mix, ratios=REASONING_TO_GENERAL)
    tuned = build("v3-sft", SFT, {"model": build.base, "data": mix / "mixed.jsonl"}, size.sft)
    if teacher is None:
        judges: tuple[Stage, ...] = (earlier["helpfulness"], earlier["safety"])
    else:
        judges = reward_models(build, tuned / "model", earlier["requests"])
    last = build(
        "v3",
        RL,
        {"model": tuned / "model", **preference_rewards(*judges[-2:])},
        size.rl,
        rewards=scenario_rewards(build.scale),
        algorithm=build.scale.departures.v3_algorithm,
        temperature=0.7,  # as R1's second stage: the report names none
    )

    of_experts = tuple(stage for stages in experts.values() for stage in stages)
    models: dict[str, Model] = {"base": build.base}
    models |= {f"expert-{domain}": stages[-2] / "model" for domain, stages in experts.items()}
    models |= {"v3-sft": tuned / "model", "v3": last / "model"}
    part = Part((*before, *of_experts, mix, tuned, *judges, last), models)
    return finish(build, "r1" if teacher is None else "v3", part)


def expert(build: Builder, domain: str, writer: Model, size: ExpertSizes) -> tuple[Stage, ...]:
    """A domain's expert: SFT on two kinds of samples, RL at a high temperature that blends them, and its data.

    The kinds are <problem, original response> and <system prompt that asks for reflection and verification, problem,
    R1's response>. RL and the final data ask the expert without that system prompt, as in the report.
    """
    ideas = build.scale.departures
    original = own_answers(build, domain, size)
    reflected = build(
        f"reflected-{domain}",
        GENERATE,
        {"model": writer},
        size.reflected,
        prompting="own",
        row_system=ideas.reflection,
        curate=ideas.cold_start,
    )
    rows = {"data/original": original / "kept.jsonl", "data/reflected": reflected / "kept.jsonl"}
    start = build(f"start-{domain}", SFT, {"model": build.base, **rows}, size.start)
    trained = build(
        f"expert-{domain}",
        RL,
        {"model": start / "model"},
        size.rl,
        rewards=rule_rewards(build.scale),
        algorithm=ideas.v3_algorithm,
        temperature=1.2,
    )
    inputs = {"model": trained / "model"}
    data = build(f"data-{domain}", GENERATE, inputs, size.data, prompting="own", curate=ideas.rejection)
    return original, reflected, start, trained, data


def own_answers(build: Builder, domain: str, size: ExpertSizes) -> Stage:
    """The original responses of a domain: those of the data, or right ones of the base."""
    ideas = build.scale.departures
    keep = ideas.general if ideas.original == "reference" else ideas.cold_start
    inputs = {"model": build.base}
    return build(f"original-{domain}", GENERATE, inputs, size.original, prompting=ideas.original, curate=keep)
