"""The whole recipe on SmolLM2 and public data, with numbers small enough for an hour on two cores: it shows that every
stage runs on a real model, not what such a model can learn."""

from __future__ import annotations

from typing import Any

from r1kit.chat import ChatFormat
from r1kit.curate.balance import BalanceSettings
from r1kit.curate.curation import CurateSettings
from r1kit.curate.filters import FilterSpec
from r1kit.curate.mixing import MixSettings
from r1kit.recipes import exemplars
from r1kit.recipes.r1_scales import R1Scale
from r1kit.recipes.r1_tiny import all_scenarios
from r1kit.recipes.scales import SMOLLM2, SMOLLM2_CHAT
from r1kit.rewards import RewardSpec, weighted
from r1kit.settings import Settings
from r1kit.stages.data_requests import DataRequestsSettings
from r1kit.stages.distill import DistillSettings
from r1kit.stages.evaluate import EvaluateSettings
from r1kit.stages.generate import GenerateSettings
from r1kit.stages.review import ReviewSettings
from r1kit.stages.reward_model import RewardModelSettings
from r1kit.stages.rl import RLSettings
from r1kit.stages.sft import SFTSettings
from r1kit.tasks import TaskSpec
from r1kit.tasks.public_requests import ALPACA
from r1kit.train.supervised import cosine

PREFERENCES, SAFETY = "llamafactory_demo/dpo_en_demo", "hh_rlhf/harmless_base_test"
# Once trained, the model is asked without exemplar and without the opening tag: requests are answered without one.
TALK = ChatFormat(template="chat", system=SMOLLM2_CHAT.system)
PROMPTS = 64
RULES = weighted(
    ("accuracy", "format", RewardSpec(name="language_consistency", options={"detect": "script"})), (1.0, 0.3, 0.3)
)
REPLY_LANGUAGE = RewardSpec(
    name="language_consistency",
    options={"detect": "script", "part": "response"},
    only=("*/general", "*/harmful"),
    label="reply_language",
)


def _gsm8k(order: str = "easiest", limit: int = PROMPTS) -> TaskSpec:
    return TaskSpec.parse({"name": "gsm8k", "order": order, "limit": limit, "calculations": True})


def _rl(**changes: Any) -> RLSettings:
    small = {
        "tasks": (_gsm8k(limit=200),),
        "chat": TALK,
        "rewards": RULES,
        "steps": 2,
        "prompts_per_step": 8,
        "group_size": 4,
    }
    return SMOLLM2.rl.replace(**{**small, **changes})


def _curated(*names: str) -> CurateSettings:
    """Fewer filters than the paper's: of 64 problems nothing would be left."""
    return CurateSettings(
        filters=tuple(FilterSpec(name=name) for name in names), balance=BalanceSettings(per_problem=2)
    )


TRAINING: dict[str, Any] = {"chat": TALK, "epochs": 1, "batch_size": 8, "max_tokens": 512, "tokens_per_batch": 2048}
SFT = SFTSettings(**TRAINING, optimizer=cosine(2e-5, 2e-6))
REWARD_MODEL = RewardModelSettings(**TRAINING, optimizer=cosine(1e-5, 1e-6))
SAMPLING = GenerateSettings(
    tasks=(_gsm8k(),),
    samples=8,
    temperature=0.8,
    max_tokens=48,
    max_rows=128,
    max_prompt_tokens=320,
    curate=_curated("not_correct", "truncated", "not_in_format", "repetition"),
)
CHECKING = SMOLLM2_CHAT.system + " Check each step."
COLD_START = SAMPLING.override({"tasks": [_gsm8k(limit=PROMPTS // 2)], "samples": 4, "may_be_empty": True})
REPLIES = tuple(
    TaskSpec(name=f"r1kit.tasks.public_requests:{name}", limit=PROMPTS, weight=0.5) for name in ("general", "harmful")
)
SCENARIOS = _rl(rewards=all_scenarios(RULES, REPLY_LANGUAGE), temperature=0.7, tasks=(_gsm8k(limit=200), *REPLIES))
R1: dict[str, Settings] = {
    "requests": DataRequestsSettings(rows=PROMPTS, max_chars=900),
    "zero": _rl(chat=SMOLLM2_CHAT, rewards=SMOLLM2.rl.rewards),
    "few-shot": COLD_START.override(
        {"prompting": "few_shot", "exemplars": exemplars.SMOLLM2, "reply_format": "think_answer", "prefill": "<think>"}
    ),
    "reflect": COLD_START.override({"prompting": "reflect", "system": CHECKING, "prefill": "<think>"}),
    "cold-start": SAMPLING,
    "review": ReviewSettings(auto_accept=True),
    "dev1": SFT,
    "dev2": _rl(),
    "rejection": SAMPLING.override({"chat": SMOLLM2_CHAT.model_dump()}),
    "general": GenerateSettings(prompting="reference", curate=_curated("repetition")),
    "mix": MixSettings(ratios={"reasoning": 3.0, "general": 1.0}),
    "dev3": SFT,
    "helpfulness": REWARD_MODEL.override({"objective": "helpfulness"}),
    "safety": REWARD_MODEL.override({"objective": "safety"}),
    "rules": _rl(steps=1, temperature=0.7),
    "r1": SCENARIOS,
    "student-rl": _rl(chat=SMOLLM2_CHAT, rewards=SMOLLM2.rl.rewards),
    "student-sft": SFT,
    "student-logits": DistillSettings(**TRAINING, optimizer=cosine(2e-5, 2e-6)),
    "eval": SMOLLM2.evaluate.override({"tasks": [{"name": "svamp", "limit": 32}], "samples": 1}),
    "everyday": EvaluateSettings(
        tasks=tuple(TaskSpec(name=f"r1kit.tasks.public_requests:{name}", limit=16) for name in ("harmful", "harmless")),
        chat=TALK,
        samples=1,
        max_tokens=48,
    ),
}
DISTILL: dict[str, Settings] = {"traces": R1["rejection"]}
V3: dict[str, Settings] = {
    "original-math": SAMPLING.override({"chat": SMOLLM2_CHAT.model_dump()}),
    "reflected-math": SAMPLING.override({"chat": SMOLLM2_CHAT.model_dump(), "row_system": CHECKING}),
    "start-math": SFT,
    "expert-math": _rl(temperature=1.2),
    "data-math": SAMPLING.override({"chat": SMOLLM2_CHAT.model_dump()}),
    "v3-mix": R1["mix"],
    "v3-sft": SFT,
    "v3": SCENARIOS,
}
# No smaller model is at hand: the student's base is SmolLM2 itself.
R1_SMOLLM2 = R1Scale(
    model="smollm2-135m",
    by_recipe={"r1": R1, "distill": DISTILL, "v3": V3},
    student="smollm2-135m",
    requests={"general": ALPACA, "preferences": PREFERENCES, "safety": SAFETY},
    domains=("math",),
)
