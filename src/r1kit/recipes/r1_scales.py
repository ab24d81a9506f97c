"""How large the whole recipe is: the settings of every stage of R1, by scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from r1kit.curate import presets
from r1kit.curate.mix import MixSettings
from r1kit.recipes.scales import TINY, TINY_CHAT
from r1kit.rewards import RewardSpec, weighted
from r1kit.settings import Settings, SettingsError
from r1kit.stages.evaluate import EvaluateSettings
from r1kit.stages.generate import GenerateSettings
from r1kit.stages.reward_model import RewardModelSettings
from r1kit.stages.rl import RLSettings
from r1kit.stages.sft import SFTSettings
from r1kit.tasks import TaskSpec
from r1kit.train.learner import OptimizerSettings
from r1kit.train.supervised import cosine


@dataclass(frozen=True)
class R1Scale:
    """A base model's name, and the settings of each stage by the name that `--set` takes.

    `eval` measures answers to problems and `everyday` replies to requests, of every model.
    """

    model: str
    settings: Mapping[str, Settings]


# Requests are answered without reasoning: there the reply is what equation 7 looks at.
REQUESTS = ("tiny/general", "tiny/harmful")
LANGUAGE = RewardSpec(name="language_consistency", options={"detect": "script"})
# The paper adds the three with weight 1 each. At that weight the tiny policy gives accuracy for language: from 0.89 to
# 0.78 in 15 steps while its language goes from 0.88 to 0.97.
RULES = weighted(("accuracy", "format", LANGUAGE), (1.0, 0.2, 0.3))
REPLY_LANGUAGE = LANGUAGE.override(
    {"options": {"detect": "script", "part": "response"}, "only": REQUESTS, "label": "reply_language"}
)
ALL_SCENARIOS = (
    *(rule.override({"skip": REQUESTS}) for rule in RULES),
    RewardSpec(name="reward_model", label="helpfulness", only=("tiny/general",)),
    RewardSpec(name="reward_model", label="harmlessness", only=REQUESTS),
    REPLY_LANGUAGE,
)


def _tiny_rl(steps: int, learning_rate: float, **changes: Any) -> RLSettings:
    rates = OptimizerSettings(learning_rate=learning_rate, schedule="linear", final_ratio=0.05)
    return TINY.rl.model_copy(update={"steps": steps, "optimizer": rates, **changes})


def _tiny_problems(limit: int, seed: int) -> tuple[TaskSpec, ...]:
    """Problems for sampling; RL's come with seed 0."""
    return (TaskSpec(name="tiny/reasoning", limit=limit, seed=seed),)


_TINY_SFT = SFTSettings(chat=TINY_CHAT, epochs=2, batch_size=32, max_tokens=None, optimizer=cosine(5e-4, 5e-5))
_TINY_REWARD_MODEL = RewardModelSettings(
    chat=TINY_CHAT, epochs=2, batch_size=32, max_tokens=None, optimizer=cosine(3e-4, 3e-5)
)
_TINY_SAMPLING = GenerateSettings(tasks=_tiny_problems(400, 1), samples=4, max_tokens=160, max_rows=256)
_TINY_REASONING = TINY.rl.tasks[0]
R1_TINY = R1Scale(
    model="tiny",
    settings={
        "zero": TINY.rl,
        "cold-start": _TINY_SAMPLING.override(
            {"curate": presets.COLD_START.model_dump(), "curate.balance.per_problem": 2}
        ),
        "dev1": _TINY_SFT.model_copy(update={"epochs": 3}),
        "dev2": _tiny_rl(25, 2e-4, rewards=RULES),
        "rejection": _TINY_SAMPLING.override(
            {"tasks": _tiny_problems(400, 2), "curate": presets.REJECTION.model_dump()}
        ),
        "general": GenerateSettings(prompting="reference"),
        "mix": MixSettings(ratios={"reasoning": 3.0, "general": 1.0}),
        "dev3": _TINY_SFT,
        "helpfulness": _TINY_REWARD_MODEL.override({"objective": "helpfulness"}),
        "safety": _TINY_REWARD_MODEL.override({"objective": "safety"}),
        "rules": _tiny_rl(5, 1e-4, rewards=RULES, temperature=0.7),
        "r1": _tiny_rl(
            25, 1e-4, rewards=ALL_SCENARIOS, temperature=0.7, tasks=(
                _TINY_REASONING, TaskSpec(name="tiny/general", weight=0.5), TaskSpec(name="tiny/harmful", weight=0.5)
            ),
        ),
        "eval": TINY.evaluate,
        "everyday": EvaluateSettings(
            tasks=tuple(TaskSpec(name=f"tiny/{name}") for name in ("general", "harmful", "harmless")),
            chat=TINY_CHAT, samples=4, max_tokens=96, max_rows=256,
        ),
    },
)  # fmt: skip
R1_SCALES = {"tiny": R1_TINY}


def r1_scale_of(name: str) -> R1Scale:
    """A scale by name; raises `SettingsError` that lists them."""
    if name not in R1_SCALES:
        raise SettingsError(f"the recipe r1 has no scale {name!r}: give one of {', '.join(R1_SCALES)}")
    return R1_SCALES[name]
