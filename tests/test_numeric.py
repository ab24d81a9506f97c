"""Numbers without bounds: one message each, with place and remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from r1kit.numeric import LARGEST, finite, shown
from r1kit.rewards import RewardSpec, build
from r1kit.rewards.part import RewardError, RewardPart
from r1kit.rewards.scorer import Scorer
from r1kit.settings import SettingsError
from r1kit.verifiers import verify_all


def scorer(function: Callable[..., Any], weight: float = 1.0) -> Scorer:
    return Scorer((RewardPart("mine", weight, function, is_own=True),))


@pytest.mark.parametrize(
    "value", [10**400, pytest.param(10**5000, id="endless"), Fraction(10**400), math.inf, math.nan]
)
def test_a_reward_beyond_all_numbers_names_itself(value: Any) -> None:
    with pytest.raises(RewardError, match=r"reward 'mine' returned .*: expected a finite number or None"):
        scorer(lambda completions, **_: [value])(["a"])


@pytest.mark.parametrize(("value", "weight"), [(1e300, 1.0), (10**12, 1.0), (1e6, 1e6), (-1e10, 1.0)])
def test_a_reward_that_would_overflow_later_names_value_and_weight(value: float, weight: float) -> None:
    with pytest.raises(RewardError, match=r"reward 'mine' is .* with the weight .*: expected at most 1e\+09"):
        scorer(lambda completions, **_: [value], weight)(["a"])


def test_large_rewards_within_the_bound_count() -> None:
    [reward] = scorer(lambda completions, **_: [LARGEST])(["a"])
    assert reward.total == LARGEST


def test_a_metric_beyond_all_numbers_is_left_out() -> None:
    logged: dict[str, Any] = {}

    def function(completions: Any, log_metric: Any, **_: Any) -> list[float]:
        log_metric("x", 10**400)
        return [0.0]

    with pytest.warns(UserWarning, match="'x' as 1000.*it is left out"):
        scorer(function)(["a"], log_metric=logged.__setitem__)
    assert logged == {}


@pytest.mark.parametrize("weight", [1e308, -1e308, 10**400, pytest.param(10**5000, id="endless"), "1e400"])
def test_a_weight_beyond_the_bound_is_one_line(weight: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        build([RewardSpec.parse({"name": "format", "weight": weight}, "rl.rewards.0")])
    message = str(caught.value)
    assert message.startswith("rl.rewards.0.weight is ") and "it must be" in message and "\n" not in message
    assert len(message) < 200


def test_numbers_of_any_kind_become_floats_or_nothing() -> None:
    assert [finite(value) for value in (1, 2.5, True, Fraction(1, 2), 10**300)] == [1.0, 2.5, 1.0, 0.5, 1e300]
    assert [finite(value) for value in (10**400, "1", None, 1j, math.nan)] == [None] * 5
    assert shown(10**5000) == "int of too many digits"


def test_a_reference_of_any_size_is_judged_or_unusable() -> None:
    [verdict] = verify_all("exact", [f"<answer>{10**400}</answer>"], [10**400])  # type: ignore[list-item]
    assert verdict.outcome == "right"
    [verdict] = verify_all("number", ["1"], [10**5000])  # type: ignore[list-item]
    assert verdict.outcome == "unknown"
