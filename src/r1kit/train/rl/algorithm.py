"""The loss and the advantages of an algorithm: the built-in ones, or functions of your own by dotted path."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from r1kit.models.policy_net import Loss
from r1kit.settings import SettingsError, import_function
from r1kit.train.advantages import BASELINES, advantages
from r1kit.train.losses.policy_gradient import GRPOSettings, grpo

Advantages = Callable[[Sequence[float | None]], Sequence[float | None]]  # of the rewards of one group


def loss_of(settings: GRPOSettings) -> Loss:
    """The built-in policy loss, or the loss that the function behind `settings.loss` returns for these settings."""
    if not settings.loss:
        return grpo(settings)
    loss: Loss = import_function(settings.loss, "loss")(settings)
    if not callable(loss):
        raise SettingsError(
            f"loss {settings.loss!r} returned {type(loss).__name__} for the algorithm's settings: expected a loss, a "
            "function f(logprobs, targets, totals) -> LossOutput"
        )
    return loss


def advantages_of(settings: GRPOSettings) -> Advantages:
    """The function from the rewards of a group to its advantages; one of your own is checked at each call."""
    if settings.baseline in BASELINES:
        return partial(advantages, baseline=settings.baseline)
    function = import_function(settings.baseline, "baseline")

    def checked(rewards: Sequence[float | None]) -> Sequence[float | None]:
        values: Sequence[float | None] = function(list(rewards))
        if not isinstance(values, list | tuple) or len(values) != len(rewards):
            raise ValueError(f"baseline {settings.baseline!r} returned {values!r:.80} for {len(rewards)} rewards")
        # NaN would reach every weight
        if not all(value is None or math.isfinite(value) for value in values):
            raise ValueError(f"baseline {settings.baseline!r} returned {values!r:.80}: expected finite numbers or None")
        return values

    return checked


def algorithm_files(settings: GRPOSettings) -> dict[str, Path]:
    """The files with the code of a loss or baseline of your own, by setting."""
    paths = {"loss": settings.loss, "baseline": settings.baseline if settings.baseline not in BASELINES else ""}
    return {name: Path(inspect.getfile(import_function(path, name))) for name, path in paths.items() if path}
