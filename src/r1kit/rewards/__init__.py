"""What a completion is worth, by TRL's convention: `f(completions, **columns) -> list[float | None]`.

None means not applicable. Completions are texts or message lists; columns are lists of one value per completion. The
functions plug into TRL's trainers as they are, and functions written for TRL plug in here by dotted path. To add one:
a function that makes it from keyword options, and a line in `REWARDS`.
"""

from __future__ import annotations

from r1kit.rewards.accuracy import accuracy_reward, get_accuracy_reward, get_cosine_scaled_reward
from r1kit.rewards.code import code_reward, get_code_reward
from r1kit.rewards.columns import RewardFunction
from r1kit.rewards.combinations import PREFERENCE_WEIGHTS, REASONING, REASONING_WEIGHTED, weighted
from r1kit.rewards.consistency import (
    get_graded_language_reward,
    get_language_consistency_reward,
    graded_language_reward,
    language_consistency_reward,
)
from r1kit.rewards.judged import (
    JudgedReward,
    get_harmlessness_judged_reward,
    get_helpfulness_judged_reward,
    get_reasoning_quality_judged_reward,
    get_voting_judged_reward,
)
from r1kit.rewards.length import get_repetition_penalty_reward, get_soft_overlong_punishment
from r1kit.rewards.r1_format import format_reward, reasoning_steps_reward, tag_count_reward
from r1kit.rewards.reasoning import reasoning_quality_reward
from r1kit.rewards.registry import REWARDS
from r1kit.rewards.scorer import RewardSpec, Scorer, build, source_file

__all__ = [
    "PREFERENCE_WEIGHTS",
    "REASONING",
    "REASONING_WEIGHTED",
    "REWARDS",
    "JudgedReward",
    "RewardFunction",
    "RewardSpec",
    "Scorer",
    "accuracy_reward",
    "build",
    "code_reward",
    "format_reward",
    "get_accuracy_reward",
    "get_code_reward",
    "get_cosine_scaled_reward",
    "get_graded_language_reward",
    "get_harmlessness_judged_reward",
    "get_helpfulness_judged_reward",
    "get_language_consistency_reward",
    "get_reasoning_quality_judged_reward",
    "get_repetition_penalty_reward",
    "get_soft_overlong_punishment",
    "get_voting_judged_reward",
    "graded_language_reward",
    "language_consistency_reward",
    "reasoning_quality_reward",
    "reasoning_steps_reward",
    "source_file",
    "tag_count_reward",
    "weighted",
]
