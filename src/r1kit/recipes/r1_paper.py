"""The whole recipe as DeepSeek ran it, for `r1kit plan`: nobody runs it from here.

Numbers are the paper's (V2, sections 2 and 3, B.4) where it gives them. Assumed, since nobody published them: lengths
of completions between the points of the figures, the steps of the first RL stage on Dev1, samples per problem, how much
of the cold start came from prompting.
"""

from __future__ import annotations

from typing import Any

from r1kit.curate import presets
from r1kit.curate.mixing import MixSettings
from r1kit.recipes import exemplars
from r1kit.recipes.r1_scales import R1Scale
from r1kit.recipes.r1_tiny import all_scenarios
from r1kit.recipes.scales import PAPER
from r1kit.rewards.combinations import REASONING
from r1kit.settings import Settings
from r1kit.stages.data_requests import DataRequestsSettings
from r1kit.stages.distill import DistillSettings
from r1kit.stages.evaluate import EvaluateSettings
from r1kit.stages.generate import GenerateSettings
from r1kit.stages.review import ReviewSettings
from r1kit.stages.reward_model import REWARD_MODEL_PRESETS
from r1kit.stages.rl import RLSettings
from r1kit.stages.sft import SFT_PRESETS
from r1kit.tasks import TaskSpec
from r1kit.train.supervised import cosine

PROBLEMS = 150_000  # asked in rejection sampling; assumed: a quarter of 16 samples of each is kept, 600k
REASONING_TASK = TaskSpec(name="tiny/reasoning", limit=80_000)  # stands for prompts that are not public
ROLLOUT = 16  # updates of each rollout of 8,192 outputs


def _rl(updates: int, **changes: Any) -> RLSettings:
    kept = {"tasks": (REASONING_TASK,), "rewards": REASONING}
    return PAPER.rl.replace(**{**kept, "steps": updates // ROLLOUT, **changes})


# Equations 8 to 10: accuracy where a rule can judge, reward models elsewhere; format and language on everything, since
# R1 thinks before it answers requests too.
ACCURACY, FORMAT, LANGUAGE = REASONING
SCENARIOS = (*all_scenarios((ACCURACY,), LANGUAGE), FORMAT)
SAMPLING = GenerateSettings(tasks=(TaskSpec(name="tiny/reasoning", limit=PROBLEMS),), samples=16, max_tokens=32_768)
COLD_START = SAMPLING.override(
    {
        "tasks": [{"name": "tiny/reasoning", "limit": 1_000}],
        "samples": 4,
        "curate": presets.COLD_START.model_dump(),
        "may_be_empty": True,
    }
)
R1: dict[str, Settings] = {
    "requests": DataRequestsSettings(rows=200_000),
    "zero": PAPER.rl.replace(tasks=(REASONING_TASK,)),
    "few-shot": COLD_START.override({"prompting": "few_shot", "exemplars": exemplars.MATH}),
    "reflect": COLD_START.override({"prompting": "reflect"}),
    "cold-start": SAMPLING.override({"tasks": [{"name": "tiny/reasoning", "limit": 5_000}]}),
    "review": ReviewSettings(),
    "dev1": SFT_PRESETS["cold-start"],
    "dev2": _rl(3_000),
    "rejection": SAMPLING,
    "general": GenerateSettings(prompting="reference"),
    "mix": MixSettings(size=804_745),
    "dev3": SFT_PRESETS["sft-2"],
    "helpfulness": REWARD_MODEL_PRESETS["helpfulness"],
    "safety": REWARD_MODEL_PRESETS["safety"],
    "rules": _rl(1_300, temperature=0.7),
    "r1": _rl(400, rewards=SCENARIOS, temperature=0.7),
    "student-rl": PAPER.rl.replace(tasks=(REASONING_TASK,), steps=625),
    "student-sft": SFT_PRESETS["distill-qwen-32b"],
    "student-logits": DistillSettings(epochs=2, optimizer=cosine(6e-5, 6e-6)),
    "eval": PAPER.evaluate,
    "everyday": EvaluateSettings(
        tasks=(TaskSpec(name="r1kit.tasks.public_requests:harmful", limit=1_120),), max_tokens=8192
    ),
}
DISTILL: dict[str, Settings] = {"traces": SAMPLING}
DOMAINS = ("math", "code", "logic")
V3: dict[str, Settings] = {
    name: one
    for domain in DOMAINS
    for name, one in {
        f"original-{domain}": GenerateSettings(prompting="reference", tasks=SAMPLING.tasks),
        f"reflected-{domain}": SAMPLING.override({"samples": 1}),
        f"start-{domain}": SFT_PRESETS["v3"],
        f"expert-{domain}": _rl(400, temperature=1.2),
        f"data-{domain}": SAMPLING,
    }.items()
}
V3 |= {"v3-mix": MixSettings(size=1_500_000), "v3-sft": SFT_PRESETS["v3"], "v3": _rl(1_600, rewards=SCENARIOS)}

# Means over a stage, read from V1's figure 3 and V2's table 5.
R1_PAPER = R1Scale(
    model="deepseek-ai/DeepSeek-V3-Base",
    by_recipe={"r1": R1, "distill": DISTILL, "v3": V3},
    student="Qwen/Qwen2.5-32B",
    planned=True,
    domains=DOMAINS,
    requests={"general": "general", "preferences": "preferences", "safety": "safety"},
    lengths={
        "zero": 5_800,
        "few-shot": 5_800,
        "reflect": 5_800,
        "cold-start": 5_800,
        "dev1": 5_800,
        "dev2": 6_000,
        "rejection": 5_900,
        "dev3": 5_355,
        "rules": 6_000,
        "r1": 5_000,
        "helpfulness": 1_500,
        "safety": 1_500,
        "student-rl": 4_000,
        "student-sft": 5_355,
        "student-logits": 5_355,
        "eval": 8_800,
        "everyday": 1_500,
    },
)
