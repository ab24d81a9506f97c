"""Advantages from the rewards of a group: the baseline that replaces a value model."""

from __future__ import annotations

import math
from collections.abc import Sequence

BASELINES = ("group_std", "group_mean", "leave_one_out")
STD_EPS = 1e-4


def advantages(rewards: Sequence[float | None], baseline: str = "group_std") -> list[float | None]:
    """One advantage per rollout of a group. A reward of None gives None, and the baseline does not count it.

    `group_std`: (r - mean) / (std + 1e-4), sample standard deviation (DeepSeekMath section 4.1; R1 equation 3; TRL's
    convention). `group_mean`: r - mean (Dr. GRPO section 3.2). `leave_one_out`: r_i - mean of the others (RLOO).
    `advantages([1.0, 0.0], "group_mean") == [0.5, -0.5]`. Equal rewards give 0, and so does a single reward.
    Raises ValueError for a group of fewer than two rollouts.
    """
    assert baseline in BASELINES, baseline
    if len(rewards) < 2:
        raise ValueError(f"a group of {len(rewards)} rollout(s) has no baseline: group_size must be at least 2")
    known = [reward for reward in rewards if reward is not None]
    if len(known) < 2 or max(known) == min(known):  # exact, where 0 / (0 + eps) could leave a rounding error
        return [None if reward is None else 0.0 for reward in rewards]
    # fsum: the sum does not depend on the order of the group
    mean = math.fsum(known) / len(known)
    scale = 1.0  # Dr. GRPO: a division by std would weigh easy and hard problems up
    if baseline == "group_std":
        # n - 1, as TRL divides; the paper does not say which
        scale = 1.0 / (math.sqrt(math.fsum((r - mean) ** 2 for r in known) / (len(known) - 1)) + STD_EPS)
    elif baseline == "leave_one_out":
        scale = len(known) / (len(known) - 1)  # r_i - mean of the others = (r_i - mean) * n / (n - 1)
    return [None if reward is None else (reward - mean) * scale for reward in rewards]
