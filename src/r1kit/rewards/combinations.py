"""Rewards put together with weights: sums as the paper has them, and the weighted forms.

`REASONING` is R1's first RL stage, equation 7 added to accuracy and format with weight 1 each. `REASONING_WEIGHTED` is
the same at 0.4 / 0.3 / 0.3. For general prompts, `weighted((helpfulness, harmlessness), PREFERENCE_WEIGHTS)` puts
reward models or judges together at 0.6 / 0.4. Weights of a sum are only comparable where the parts have one range: all
of these give 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from r1kit.rewards.scorer import RewardSpec
from r1kit.settings import SettingsError

PREFERENCE_WEIGHTS = (0.6, 0.4)


def weighted(specs: Sequence[RewardSpec | str], weights: Sequence[float]) -> tuple[RewardSpec, ...]:
    """The specs (or names) with one weight each, in order; raises `SettingsError` where their numbers differ."""
    if len(specs) != len(weights):
        raise SettingsError(f"{len(specs)} rewards but {len(weights)} weights: give one for each")
    named = [RewardSpec(name=spec) if isinstance(spec, str) else spec for spec in specs]
    return tuple(spec.override({"weight": weight}) for spec, weight in zip(named, weights, strict=True))


REASONING = weighted(("accuracy", "format", "language_consistency"), (1.0, 1.0, 1.0))
REASONING_WEIGHTED = weighted(("accuracy", "format", "language_consistency"), (0.4, 0.3, 0.3))
