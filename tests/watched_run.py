"""A small real run for tests of the live page: rollouts, selected samples, a model trained on them, its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import r1kit
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.recipes.scales.tiny import TINY_SYSTEM
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.generate import GENERATE
from r1kit.stages.mix import MIX
from r1kit.stages.review import REVIEW
from r1kit.stages.rl import RL
from r1kit.stages.sft import SFT

BASE = Path(r1kit.__file__).parent / "tiny" / "base"
TASKS = [{"name": "tiny/sums", "split": "train", "limit": 6}]
CHAT = {"template": "plain", "system": TINY_SYSTEM}
RIGHT_ONES = {"filters": [{"name": "not_correct"}], "quality": None, "near_duplicates": []}
RL_SETTINGS: dict[str, Any] = {
    "tasks": TASKS,
    "chat": CHAT,
    "rewards": [{"name": "accuracy"}, {"name": "format", "weight": 0.2}],
    "steps": 3,
    "prompts_per_step": 4,
    "group_size": 4,
    "max_tokens": 64,
    "rollouts_every": 1,
}


def recipe(name: str = "small", steps: int = 3) -> Recipe:
    """zero -> rejection -> review -> mix -> sft -> r1, and answers of r1 to the problems that it was trained on."""
    base = External(BASE)
    zero = Stage("zero", RL, RL.settings.parse(RL_SETTINGS | {"steps": steps}), {"model": base})
    sampling = {"tasks": TASKS, "samples": 4, "max_tokens": 64, "curate": RIGHT_ONES}
    rejection = Stage("rejection", GENERATE, GENERATE.settings.parse(sampling), {"model": zero / "model"})
    kept = {"rows": rejection / "kept.jsonl"}
    review = Stage("review", REVIEW, REVIEW.settings.parse({"auto_accept": True}), kept)
    parts = {"rows/reasoning": review / "kept.jsonl"}
    mix = Stage("mix", MIX, MIX.settings.parse({"ratios": {"reasoning": 1.0}}), parts)
    few = {"chat": CHAT, "epochs": 1, "batch_size": 4, "max_tokens": 256}
    sft = Stage("sft", SFT, SFT.settings.parse(few), {"model": base, "data": mix / "mixed.jsonl"})
    r1 = Stage("r1", RL, RL.settings.parse(RL_SETTINGS | {"steps": 2, "seed": 1}), {"model": sft / "model"})
    answers = {"tasks": TASKS, "chat": CHAT, "samples": 2, "max_tokens": 64}
    measured = Stage("eval-r1", EVALUATE, EVALUATE.settings.parse(answers), {"model": r1 / "model"})
    return Recipe(name, (zero, rejection, review, mix, sft, r1, measured), title="A small run")


def make(runs: Path, name: str = "small") -> Path:
    """The folder of a finished run."""
    execute(recipe(name), runs)
    return runs / name
