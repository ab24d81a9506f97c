"""The coefficient of the entropy bonus, which may adapt to the entropy of the last update."""

from __future__ import annotations

from typing import Any

from r1kit.train.losses.policy_settings import EntropyBonus


class EntropyControl:
    """Skywork-OR1's adaptive coefficient (arXiv 2505.22312), as TRL applies it; without a target it is constant.

    `state` is what a checkpoint must hold.
    """

    def __init__(self, settings: EntropyBonus) -> None:
        self.settings = settings
        self.state: dict[str, Any] = {"coef": settings.coef, "entropy": None}  # None: before the first update

    def __call__(self) -> float:
        """The coefficient of the next update."""
        target, entropy = self.settings.target, self.state["entropy"]
        if target is None or (entropy is not None and entropy <= target):
            return float(self.state["coef"])
        return 0.0  # there is enough entropy

    def observe(self, entropy: float) -> None:
        """Adapt to the mean entropy of an update's tokens, in nats."""
        if self.settings.target is not None:
            change = self.settings.step if entropy <= self.settings.target else -self.settings.step
            self.state["coef"] = min(max(self.state["coef"] + change, 0.0), self.settings.max)
            self.state["entropy"] = entropy
