"""DeepSeek-V4's post-training: an expert for each domain, then on-policy distillation of all experts into one model.

Beside it are, at about the same compute, DeepSeek-V3's way (SFT on the experts' data) and RL on all domains at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Recipe, Stage
from r1kit.recipes.builder import Builder, Model, Part
from r1kit.recipes.r1 import finish, rule_rewards
from r1kit.recipes.scale import ExpertSizes
from r1kit.recipes.scales import scale_for
from r1kit.recipes.v3 import own_answers
from r1kit.rewards import RewardSpec
from r1kit.stages.generate import GENERATE
from r1kit.stages.on_policy import ON_POLICY
from r1kit.stages.rl import RL
from r1kit.stages.sft import SFT


def v4(
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
    """Experts by SFT and RL; `v4` learns from each on its own domain, starting from SFT on all domains (`start`)."""
    chosen = scale_for("v4", scale, model, data=data, hardware=hardware, devices=devices, rehearse=rehearse)
    build = Builder("v4", chosen, {"eval": chosen.for_r1.eval}, overrides, seed, model, rehearse)
    size = build.scale.for_v4
    experts = {domain: expert(build, domain, sizes) for domain, sizes in size.experts.items()}
    rl = {"rewards": rule_rewards(build.scale), "algorithm": build.scale.departures.v3_algorithm}

    originals = {f"data/{domain}": stages[0] / "kept.jsonl" for domain, stages in experts.items()}
    start = build("start", SFT, {"model": build.base, **originals}, size.start)
    merged = build(
        "v4",
        ON_POLICY,
        {"model": start / "model", **{f"teacher/{domain}": stages[2] / "model" for domain, stages in experts.items()}},
        size.merge,
        domains=size.domains,
        rewards=(RewardSpec(name="accuracy"),),
    )
    written = {f"data/{domain}": stages[3] / "kept.jsonl" for domain, stages in experts.items()}
    from_data = build("v4-sft", SFT, {"model": build.base, **written}, size.sft)
    mixed = build("v4-rl", RL, {"model": start / "model"}, size.rl, **rl)

    trained: dict[str, Stage] = {f"expert-{domain}": stages[2] for domain, stages in experts.items()}
    trained |= {"start": start, "v4": merged, "v4-sft": from_data, "v4-rl": mixed}
    models: dict[str, Model] = {"base": build.base} | {name: stage / "model" for name, stage in trained.items()}
    of_experts = tuple(stage for stages in experts.values() for stage in stages)
    return finish(build, "v4", Part((*of_experts, start, merged, from_data, mixed), models))


def expert(build: Builder, domain: str, size: ExpertSizes) -> tuple[Stage, Stage, Stage, Stage]:
    """A domain's expert: SFT on original responses, RL, and the data that it writes for V3's way."""
    ideas = build.scale.departures
    original = own_answers(build, domain, size)
    start = build(f"start-{domain}", SFT, {"model": build.base, "data": original / "kept.jsonl"}, size.start)
    trained = build(
        f"expert-{domain}",
        RL,
        {"model": start / "model"},
        size.rl,
        rewards=rule_rewards(build.scale),
        algorithm=ideas.v3_algorithm,
    )
    inputs = {"model": trained / "model"}
    data = build(f"data-{domain}", GENERATE, inputs, size.data, prompting="own", curate=ideas.rejection)
    return original, start, trained, data
