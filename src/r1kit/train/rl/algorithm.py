"""The loss and the advantages of an algorithm: the built-in ones, or functions of your own by dotted path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import Any

from torch import Tensor

from r1kit.models.batch import Targets, Totals
from r1kit.models.policy_net import Loss, LossOutput
from r1kit.numeric import finite, shown
from r1kit.settings import SettingsError, import_function
from r1kit.train.advantages import BASELINES, advantages, length_rewards, whiten
from r1kit.train.losses.policy_gradient import grpo
from r1kit.train.losses.policy_settings import GRPOSettings
from r1kit.types import Group

Baseline = Callable[[Sequence[float | None]], Sequence[float | None]]  # of the rewards of one group
# sums of the built-in loss that a loss of your own can replace
SUMS = ("kl", "ratio", "clip_fraction", "masked", "importance", "capped", "logprob_gap")


def loss_of(settings: GRPOSettings, entropy_coef: Callable[[], float] | None = None) -> Loss:
    """The built-in policy loss, or the loss that the function behind `settings.loss` returns for these settings."""
    if not settings.loss:
        return grpo(settings, entropy_coef)
    maker = import_function(settings.loss, "loss")
    _require_arguments(maker, f"loss {settings.loss!r}", "f(settings) -> loss", "the algorithm's settings")
    loss: Loss = maker(settings)
    expected = "f(logprobs, targets, totals) -> LossOutput"
    if not callable(loss):
        returned = f"loss {settings.loss!r} returned {type(loss).__name__} for the algorithm's settings"
        raise SettingsError(f"{returned}: expected a loss, a function {expected}")
    _require_arguments(loss, f"the loss of {settings.loss!r}", expected, "logprobs", "targets", "totals")

    @wraps(loss)  # keeps the mark of `per_token`
    def checked(logprobs: Tensor, targets: Targets, totals: Totals) -> LossOutput:
        output: Any = loss(logprobs, targets, totals)  # a user's function: the type is checked here
        if not isinstance(output, LossOutput) or output.loss.numel() != 1:
            remedy = "expected a LossOutput with one number, from r1kit.models.policy_net"
            raise ValueError(f"loss {settings.loss!r} returned {output!r:.80}: {remedy}")
        if logprobs.requires_grad and not output.loss.requires_grad:
            cause = "expected a number computed from `logprobs`, without `detach`, `item` or `no_grad`"
            raise ValueError(f"loss {settings.loss!r} returned a loss without a gradient: {cause}")
        # sums of other names are metrics loss/NAME, so they replace none of the loop's
        return output._replace(sums={name if name in SUMS else f"loss/{name}": v for name, v in output.sums.items()})

    return checked


def group_advantages(
    groups: Sequence[Group], baseline: Baseline, settings: GRPOSettings, *, skip_truncated: bool = False
) -> list[list[float | None]]:
    """The advantages of a rollout's groups, a list for each: the baseline's, and with `whiten` these whitened.

    Whitening is over the tokens that are trained on: with `skip_truncated`, not those of truncated completions.
    """
    by_group = [list(baseline(_rewards(group, settings.length_penalty))) for group in groups]
    if not settings.whiten:
        return by_group
    completions = [rollout.completion for group in groups for rollout in group.rollouts]
    flat = [advantage for row in by_group for advantage in row]
    lengths = [
        0 if advantage is None or (skip_truncated and each.finish_reason == "length") else len(each.token_ids)
        for advantage, each in zip(flat, completions, strict=True)
    ]
    # None counts no token, so its value here does not matter
    whitened = iter(whiten([advantage or 0.0 for advantage in flat], lengths))
    pairs = [[(advantage, next(whitened)) for advantage in row] for row in by_group]
    return [[None if advantage is None else white for advantage, white in row] for row in pairs]


def _rewards(group: Group, length_penalty: float) -> list[float | None]:
    """The rewards of a group, with Kimi's reward for short answers; a completion without a verdict counts as wrong."""
    totals = [rollout.reward.total for rollout in group.rollouts]
    if not length_penalty:
        return totals
    verdicts = [rollout.reward.verdict for rollout in group.rollouts]
    right = [verdict is not None and verdict.correct is True for verdict in verdicts]
    bonuses = length_rewards([len(rollout.completion.token_ids) for rollout in group.rollouts], right)
    pairs = zip(totals, bonuses, strict=True)
    return [None if total is None else total + length_penalty * bonus for total, bonus in pairs]


def baseline_of(settings: GRPOSettings) -> Baseline:
    """The function from the rewards of a group to its advantages; one of your own is checked at each call."""
    if settings.baseline in BASELINES:
        return partial(advantages, baseline=settings.baseline, pass_k=settings.pass_k)
    function = import_function(settings.baseline, "baseline")
    _require_arguments(function, f"baseline {settings.baseline!r}", "f(rewards) -> advantages", "a group's rewards")

    def checked(rewards: Sequence[float | None]) -> Sequence[float | None]:
        returned: Any = function(list(rewards))
        values = returned.tolist() if hasattr(returned, "tolist") else returned  # an array or tensor
        # NaN would reach every weight
        if (
            not isinstance(values, list | tuple)
            or len(values) != len(rewards)
            or not all(value is None or finite(value) is not None for value in values)
        ):
            message = f"baseline {settings.baseline!r} returned {shown(returned)} for {len(rewards)} rewards"
            raise ValueError(f"{message}: expected a list of finite numbers or None, one for each")
        return values

    return checked


def _require_arguments(function: Callable[..., Any], name: str, expected: str, *arguments: str) -> None:
    """Raise `SettingsError` unless the function can be called with as many arguments, before any work starts."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise SettingsError(f"{name} is called with {', '.join(arguments)}: {error}; expected {expected}") from None


def algorithm_files(settings: GRPOSettings) -> dict[str, Path]:
    """The files with the code of a loss or baseline of your own, by setting."""
    paths = {"loss": settings.loss, "baseline": settings.baseline if settings.baseline not in BASELINES else ""}
    return {name: Path(inspect.getfile(import_function(path, name))) for name, path in paths.items() if path}
