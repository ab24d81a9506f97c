"""The whole recipe on the tiny world: minutes on two cores."""

from __future__ import annotations

from typing import Any

from r1kit.curate import presets
from r1kit.curate.curation import CurateSettings
from r1kit.curate.mixing import MixSettings
from r1kit.recipes import exemplars
from r1kit.recipes.r1_scales import R1Scale
from r1kit.recipes.scales import TINY, TINY_CHAT
from r1kit.rewards import RewardSpec, weighted
from r1kit.settings import Settings
from r1kit.stages.distill import DistillSettings
from r1kit.stages.evaluate import EvaluateSettings
from r1kit.stages.generate import GenerateSettings
from r1kit.stages.review import ReviewSettings
from r1kit.stages.reward_model import RewardModelSettings
from r1kit.stages.rl import RLSettings
from r1kit.stages.sft import SFTSettings
from r1kit.stages.shared.probe import ProbeSettings
from r1kit.stages.tiny_requests import TinyRequestsSettings
from r1kit.tasks import TaskSpec
from r1kit.tiny.frame import TINY_SYSTEM
from r1kit.train.learner import OptimizerSettings
from r1kit.train.losses.policy_gradient import PRESETS
from r1kit.train.supervised import cosine

LANGUAGE = RewardSpec(name="language_consistency", options={"detect": "script"})
# The paper adds the three with weight 1 each. At that weight the tiny policy gives accuracy for language: from 0.89 to
# 0.78 in 15 steps while its language goes from 0.88 to 0.97.
RULES = weighted(("accuracy", "format", LANGUAGE), (1.0, 0.2, 0.3))
# Requests are answered without reasoning: there the reply is what equation 7 looks at.
REPLY_LANGUAGE = LANGUAGE.override(
    {"options": {"detect": "script", "part": "response"}, "only": ("*/general", "*/harmful"), "label": "reply_language"}
)


def all_scenarios(rules: tuple[RewardSpec, ...], reply_language: RewardSpec) -> tuple[RewardSpec, ...]:
    """Rules for problems, reward models for requests, language for both (V2, equations 8 to 10).

    Helpfulness is the score itself: between replies that are all likely to be preferred, a sigmoid sees no difference.
    """
    return (
        *(rule.override({"skip": ("*/general", "*/harmful")}) for rule in rules),
        RewardSpec(
            name="reward_model",
            label="helpfulness",
            only=("*/general",),
            weight=0.2,
            options={"scale": "raw", "missing": -5.0},
        ),
        RewardSpec(name="reward_model", label="harmlessness", only=("*/general", "*/harmful")),
        reply_language,
    )


ALL_SCENARIOS = all_scenarios(RULES, REPLY_LANGUAGE)


def _rl(steps: int, learning_rate: float, warmup_steps: int = 0, **changes: Any) -> RLSettings:
    rates = OptimizerSettings(
        learning_rate=learning_rate, warmup_steps=warmup_steps, schedule="linear", final_ratio=0.05
    )
    return TINY.rl.replace(**{"steps": steps, "optimizer": rates, **changes})


def _refine(steps: int, **changes: Any) -> RLSettings:
    """RL on a policy that knows how to reason. Its first updates must be small: at 2e-4 without warm-up it loses ten
    points in three steps. And unscaled: else a group of right answers learns as much from a stray word of another
    language as others do from a wrong answer."""
    return _rl(steps, 1e-4, warmup_steps=3, **{"algorithm": PRESETS["dr_grpo"], "rewards": RULES, **changes})


def _problems(limit: int, seed: int, *names: str) -> tuple[TaskSpec, ...]:
    """Problems for sampling; RL's come with seed 0."""
    return tuple(TaskSpec(name=f"tiny/{name}", limit=limit, seed=seed) for name in names or ("reasoning",))


def _curated(preset: CurateSettings, **changes: Any) -> dict[str, Any]:
    return {"curate": preset.model_dump(), **{f"curate.{name}": value for name, value in changes.items()}}


SFT_TINY = SFTSettings(chat=TINY_CHAT, epochs=2, batch_size=32, max_tokens=None, optimizer=cosine(5e-4, 5e-5))
REWARD_MODEL = RewardModelSettings(
    chat=TINY_CHAT, epochs=1, batch_size=32, max_tokens=None, optimizer=cosine(3e-4, 3e-5)
)
SAMPLING = GenerateSettings(tasks=_problems(400, 1), samples=4, max_tokens=160, max_rows=256)
REASONING = TINY.rl.tasks[0]
REPLIES = (TaskSpec(name="tiny/general", weight=0.6), TaskSpec(name="tiny/harmful", weight=0.4))
# The tiny world's own judgement, on requests and problems of no other use: reward models can be fooled, it can not.
WATCHED = ProbeSettings(
    tasks=(
        TaskSpec(name="tiny/reasoning", split="train", seed=9, limit=60),
        *(TaskSpec(name=f"tiny/{name}", split="validation") for name in ("general", "harmful")),
    ),
    max_tokens=160,
    max_rows=256,
)
SCENARIOS = _refine(
    20, rewards=ALL_SCENARIOS, temperature=0.7, tasks=(REASONING, *REPLIES), probe=WATCHED, probe_every=5, patience=3
)
COLD_START = SAMPLING.override({**_curated(presets.COLD_START), "may_be_empty": True})
CHECKING = "think, check each step, then answer: <think> steps </think> <answer> number </answer>"
# All of the tiny world's requests are alike ("say cat", "say dog"): as near duplicates most of them would go.
GENERAL = GenerateSettings(prompting="reference").override(_curated(presets.GENERAL, near_duplicates=[]))
R1: dict[str, Settings] = {
    "requests": TinyRequestsSettings(),
    "zero": TINY.rl,
    "few-shot": COLD_START.override(
        {
            "tasks": _problems(60, 5),
            "prompting": "few_shot",
            "exemplars": exemplars.TINY,
            "system": TINY_SYSTEM,
            "reply_format": "think_answer",
        }
    ),
    "reflect": COLD_START.override({"tasks": _problems(60, 6), "prompting": "reflect", "system": CHECKING}),
    "cold-start": SAMPLING.override({"tasks": _problems(2000, 1), "samples": 2} | _curated(presets.COLD_START)),
    "review": ReviewSettings(auto_accept=True),
    "dev1": SFT_TINY.replace(epochs=3),
    "dev2": _refine(40),
    "rejection": SAMPLING.override({"tasks": _problems(600, 2)} | _curated(presets.REJECTION)),
    "general": GENERAL,
    "mix": MixSettings(ratios={"reasoning": 3.0, "general": 1.0}),
    "dev3": SFT_TINY,
    "helpfulness": REWARD_MODEL.override({"objective": "helpfulness"}),
    "safety": REWARD_MODEL.override({"objective": "safety"}),
    "rules": _refine(5, temperature=0.7),
    "r1": SCENARIOS,
    "student-rl": _rl(40, 2e-4),
    "student-sft": SFT_TINY.replace(epochs=4),
    "student-logits": DistillSettings(
        chat=TINY_CHAT, epochs=2, batch_size=32, max_tokens=None, optimizer=cosine(5e-4, 5e-5)
    ),
    "eval": TINY.evaluate.replace(samples=2),  # ten models: intervals are by problem
    "everyday": EvaluateSettings(
        tasks=tuple(TaskSpec(name=f"tiny/{name}") for name in ("general", "instructions", "harmful", "harmless")),
        chat=TINY_CHAT,
        samples=2,
        max_tokens=64,
        max_rows=256,
    ),
}
DISTILL: dict[str, Settings] = {"traces": R1["rejection"]}

# V3's experts: arithmetic, and looking at things one by one.
DOMAINS = {"math": ("sums", "words"), "logic": ("compare", "count", "cups")}


def _expert(domain: str, names: tuple[str, ...]) -> dict[str, Settings]:
    problems = {"tasks": _problems(200, 3, *names)}
    original = SAMPLING.override(problems | _curated(presets.COLD_START))  # what the base says, where it is right
    return {
        f"original-{domain}": original,
        f"reflected-{domain}": original.override({"row_system": CHECKING}),
        f"start-{domain}": SFT_TINY,
        f"expert-{domain}": _refine(15, temperature=1.2, tasks=_problems(10_000, 0, *names)),
        f"data-{domain}": SAMPLING.override({"tasks": _problems(300, 4, *names)} | _curated(presets.REJECTION)),
    }


V3: dict[str, Settings] = {
    name: one for domain, names in DOMAINS.items() for name, one in _expert(domain, names).items()
}
V3 |= {"v3-mix": R1["mix"], "v3-sft": SFT_TINY, "v3": SCENARIOS}

R1_TINY = R1Scale(
    model="tiny",
    student="tiny-half",
    by_recipe={"r1": R1, "distill": DISTILL, "v3": V3},
    domains=tuple(DOMAINS),
    lengths={
        "zero": 50,
        "few-shot": 50,
        "reflect": 50,
        "cold-start": 50,
        "dev2": 50,
        "rejection": 50,
        "rules": 50,
        "r1": 40,
        "student-rl": 50,
    },
)
