"""Weighted sums of rewards.

`REASONING` is R1's first RL stage: accuracy, format and equation 7, each with weight 1. `REASONING_WEIGHTED` has the
same parts at 0.4 / 0.3 / 0.3. For general prompts, `weighted((helpfulness, harmlessness), PREFERENCE_WEIGHTS)` combines
reward models or judges at 0.6 / 0.4. Weights compare only parts of one range; all of these give 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from r1kit.rewards.spec import RewardSpec
from r1kit.settings import SettingsError

PREFERENCE_WEIGHTS = (0.6, 0.4)


def weighted(specs: Sequence[RewardSpec | str], weights: Sequence[float]) -> tuple[RewardSpec, ...]:
    """The specs (or names) with one weight each, in order; raises `SettingsError` if their numbers differ."""
    if len(specs) != len(weights):
        raise SettingsError(f"{len(specs)} rewards but {len(weights)} weights: give one for each")
    parsed = [RewardSpec(name=spec) if isinstance(spec, str) else spec for spec in specs]
    return tuple(spec.replace(weight=weight) for spec, weight in zip(parsed, weights, strict=True))


REASONING = weighted(("accuracy", "format", "language_consistency"), (1.0, 1.0, 1.0))
REASONING_WEIGHTED = weighted(("accuracy", "format", "language_consistency"), (0.4, 0.3, 0.3))
