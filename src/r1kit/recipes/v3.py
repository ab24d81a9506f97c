"""DeepSeek-V3's post-training, section 5: an expert for each domain makes the data that the model is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe, Stage
from r1kit.recipes.boxes import Boxes, Made, Model
from r1kit.recipes.r1 import as_rewards, reasoner, reward_models
from r1kit.stages.generate import GENERATE
from r1kit.stages.mix import MIX
from r1kit.stages.rl import RL_STAGE
from r1kit.stages.sft import SFT


def v3(
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    scale: str = "tiny",
    model: str | None = None,
    teacher: str | None = None,
) -> Recipe:
    """Experts, SFT on what they make with general data (2 epochs, cosine 5e-6 to 1e-6 at paper scale), RL with rules
    and reward models.

    `teacher` writes the R1 responses; without one it is R1, whose stages run first, shared with the recipe r1. With one
    the reward models start from the V3 SFT checkpoint (section 5.2.1), else they are R1's.
    """
    box = Boxes("v3", scale, overrides, seed, model)
    if teacher is None:
        made = reasoner(box)
        writer, before = made.models["r1"], made.stages
    else:
        requests = box.requests()
        general = box("general", GENERATE, requests=requests / "general.jsonl")
        writer, before = box.external(teacher), {"requests": requests, "general": general}
    parts = {domain: expert(box, domain, writer) for domain in box.size.domains}
    rows = {f"rows/reasoning/{domain}": part[-1] / "kept.jsonl" for domain, part in parts.items()}
    mix = box("v3-mix", MIX, **{**rows, "rows/general": before["general"] / "kept.jsonl"})
    tuned = box("v3-sft", SFT, model=box.base, data=mix / "mixed.jsonl")
    judges = (
        (before["helpfulness"], before["safety"])
        if teacher is None
        else reward_models(box, tuned / "model", before["requests"])
    )
    last = box("v3", RL_STAGE, model=tuned / "model", **as_rewards(*judges))

    stages = {**before} | {stage.name: stage for part in parts.values() for stage in part}
    stages |= {stage.name: stage for stage in (mix, tuned, *judges, last)}
    experts = {f"expert-{domain}": part[-2] / "model" for domain, part in parts.items()}
    models: dict[str, Model] = {"base": box.base, **experts, "v3-sft": tuned / "model", "v3": last / "model"}
    return box.finish(Made(models, stages), "r1" if teacher is None else "v3")


def expert(box: Boxes, domain: str, writer: Model) -> tuple[Stage, ...]:
    """A domain's expert: SFT on both kinds of samples, RL at a high temperature that blends them, and what it makes.

    The kinds are <problem, original response> and <system prompt that asks for reflection and verification, problem,
    R1's response>. The expert is asked without the system prompt in RL and for the data, as in the report.
    """
    original = box(f"original-{domain}", GENERATE, model=box.base)  # not asked where the data have responses
    reflected = box(f"reflected-{domain}", GENERATE, model=writer)
    rows = {"data/original": original / "kept.jsonl", "data/reflected": reflected / "kept.jsonl"}
    start = box(f"start-{domain}", SFT, model=box.base, **rows)
    trained = box(f"expert-{domain}", RL_STAGE, model=start / "model")
    return original, reflected, start, trained, box(f"data-{domain}", GENERATE, model=trained / "model")
