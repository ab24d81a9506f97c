"""Rewards by name: each entry makes a reward function from keyword options."""

from __future__ import annotations

from collections.abc import Callable

from r1kit.rewards.accuracy import get_accuracy_reward, get_cosine_scaled_reward
from r1kit.rewards.code import get_code_reward
from r1kit.rewards.columns import RewardFunction
from r1kit.rewards.consistency import get_graded_language_reward, get_language_consistency_reward
from r1kit.rewards.judged import (
    get_harmlessness_judged_reward,
    get_helpfulness_judged_reward,
    get_reasoning_quality_judged_reward,
    get_voting_judged_reward,
)
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
    "reasoning_quality_judged": get_reasoning_quality_judged_reward,
    "helpfulness_judged": get_helpfulness_judged_reward,
    "harmlessness_judged": get_harmlessness_judged_reward,
    "voting_judged": get_voting_judged_reward,
}
