"""Rewards by TRL's convention: `f(completions, **columns) -> list[float | None]`; None means not applicable.

Completions are texts or message lists, columns are lists with one value per completion. The functions work in TRL's
trainers as they are, and TRL's functions work here by dotted path. To add one: write a function that makes it from
keyword options, and add a line to `registry.REWARDS`.
"""

from __future__ import annotations

from r1kit.rewards.combinations import weighted
from r1kit.rewards.inputs import RewardFunction
from r1kit.rewards.loading import build
from r1kit.rewards.registry import REWARDS
from r1kit.rewards.scorer import Scorer
from r1kit.rewards.spec import RewardSpec

__all__ = ["REWARDS", "RewardFunction", "RewardSpec", "Scorer", "build", "weighted"]
