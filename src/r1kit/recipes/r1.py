"""DeepSeek-R1, section 2.3: cold start, reasoning RL, rejection sampling with SFT 2, RL for all scenarios; section 2.4:
distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Output, Recipe, Stage
from r1kit.recipes.boxes import Boxes, Made, Model
from r1kit.stages.distill import DISTILL
from r1kit.stages.generate import GENERATE
from r1kit.stages.mix import MIX
from r1kit.stages.review import REVIEW
from r1kit.stages.reward_model import REWARD_MODEL
from r1kit.stages.rl import RL_STAGE
from r1kit.stages.sft import SFT


def r1(
    *, overrides: Mapping[str, Any] | None = None, seed: int = 0, scale: str = "tiny", model: str | None = None
) -> Recipe:
    """R1-Zero, Dev1 to Dev3, R1 and its students, each measured.

    `eval` and `everyday` in overrides mean every measurement.
    """
    box = Boxes("r1", scale, overrides, seed, model)
    made = reasoner(box)
    return box.finish(made | students(box, made.models["r1"], made.stages["mix"] / "mixed.jsonl"), "r1", teacher="r1")


def reasoner(box: Boxes) -> Made:
    """From the base to R1.

    RL for all scenarios is two stages: `rules` with rule rewards alone, then `r1` with the preference rewards too. The
    paper has these in the last 400 of 1,700 steps, lest the policy find the reward models' weak spots. Reward models
    start from the SFT checkpoint, as V3's do (section 5.2.1): it knows what a good reply looks like. Cold-start
    samples are Zero's own, and what it writes after exemplars (`few-shot`) and asked to reflect and verify (`reflect`)
    unless `engine` of these names a teacher. They pass the review queue, which accepts them all unless
    `review.auto_accept=false` asks for people.
    """
    base, requests = box.base, box.requests()
    zero = box("zero", RL_STAGE, model=base)
    sources = [box(name, GENERATE, model=zero / "model") for name in ("few-shot", "reflect", "cold-start")]
    review = box("review", REVIEW, **{f"rows/{one.name}": one / "kept.jsonl" for one in sources})
    dev1 = box("dev1", SFT, model=base, data=review / "kept.jsonl")
    dev2 = box("dev2", RL_STAGE, model=dev1 / "model")
    rejection = box("rejection", GENERATE, model=dev2 / "model")
    general = box("general", GENERATE, requests=requests / "general.jsonl")
    mix = box("mix", MIX, **{"rows/reasoning": rejection / "kept.jsonl", "rows/general": general / "kept.jsonl"})
    dev3 = box("dev3", SFT, model=base, data=mix / "mixed.jsonl")
    rules = box("rules", RL_STAGE, model=dev3 / "model")
    helpfulness, safety = reward_models(box, dev3 / "model", requests)
    last = box("r1", RL_STAGE, model=rules / "model", **as_rewards(helpfulness, safety))

    order = (zero, *sources, review, dev1, dev2, rejection, requests, general, mix, dev3, rules, helpfulness, safety)
    trained = {"zero": zero, "dev1": dev1, "dev2": dev2, "dev3": dev3, "r1": last}
    models: dict[str, Model] = {"base": base} | {key: stage / "model" for key, stage in trained.items()}
    return Made(models, {stage.name: stage for stage in (*order, last)})


def reward_models(box: Boxes, model: Model, requests: Stage) -> tuple[Stage, Stage]:
    """Helpfulness and safety, from an SFT checkpoint."""
    helpfulness = box("helpfulness", REWARD_MODEL, model=model, data=requests / "preferences.jsonl")
    return helpfulness, box("safety", REWARD_MODEL, model=model, data=requests / "safety.jsonl")


def as_rewards(helpfulness: Stage, safety: Stage) -> dict[str, Output]:
    """Reward models as inputs of RL for all scenarios."""
    return {"reward/helpfulness": helpfulness / "model", "reward/harmlessness": safety / "model"}


def students(box: Boxes, teacher: Model, data: Output) -> Made:
    """A smaller base three ways: RL alone, SFT on the data that the teacher made, and the teacher's logits on it."""
    base = box.external(box.size.student)
    alone = box("student-rl", RL_STAGE, model=base)
    traces = box("student-sft", SFT, model=base, data=data)
    logits = box("student-logits", DISTILL, model=base, teacher=teacher, data=data)
    stages = (alone, traces, logits)
    return Made(
        {"student": base} | {stage.name: stage / "model" for stage in stages}, {stage.name: stage for stage in stages}
    )
