"""Rewards by name: each entry makes a reward function from keyword options."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from r1kit.rewards.accuracy import get_accuracy_reward, get_cosine_scaled_reward
from r1kit.rewards.code import get_code_reward
from r1kit.rewards.consistency import get_graded_language_reward, get_language_consistency_reward
from r1kit.rewards.controls import get_majority_reward, get_random_reward
from r1kit.rewards.inputs import RewardFunction
from r1kit.rewards.judged import get_rubric_judged_reward, get_voting_judged_reward
from r1kit.rewards.length import get_repetition_penalty_reward, get_soft_overlong_punishment
from r1kit.rewards.modelled import get_reward_model
from r1kit.rewards.r1_format import format_reward, reasoning_steps_reward, tag_count_reward
from r1kit.rewards.reasoning import reasoning_quality_reward

REWARDS: dict[str, Callable[..., RewardFunction]] = {
    "accuracy": get_accuracy_reward,
    "code": get_code_reward,
    "reward_model": get_reward_model,
    "format": lambda: format_reward,
    "tag_count": lambda: tag_count_reward,
    "reasoning_steps": lambda: reasoning_steps_reward,
    "cosine_scaled": get_cosine_scaled_reward,
    "repetition_penalty": get_repetition_penalty_reward,
    "language_consistency": get_language_consistency_reward,
    "graded_language": get_graded_language_reward,
    "reasoning_quality": lambda: reasoning_quality_reward,
    "soft_overlong": get_soft_overlong_punishment,
    # how much the final answer helps; whether the reasoning or the answer can do harm (paper, section 3.1)
    "helpfulness_judged": partial(get_rubric_judged_reward, "helpfulness"),
    "harmlessness_judged": partial(get_rubric_judged_reward, "harmlessness"),
    "reasoning_quality_judged": partial(get_rubric_judged_reward, "reasoning_quality"),
    "voting_judged": get_voting_judged_reward,
    # control arms: what training gains without any reference
    "random": get_random_reward,
    "majority": get_majority_reward,
}
# rewards that ask a model: a call costs seconds or money
MODELLED = tuple(name for name in REWARDS if name == "reward_model" or name.endswith("_judged"))
