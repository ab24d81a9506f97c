"""Numbers from outside, of any size and of any type that behaves as a number; functions that do not overflow."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeGuard

REAL = (float, int, Real)  # the first two are tested far faster than the class, and most values are of one of them
LARGEST = 1e9  # of rewards and weights in size: squares of larger ones overflow in fp32


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value from a file is a number; booleans are not."""
    return type(value) in (int, float)


def finite(value: Any) -> float | None:
    """A real number as a float; None for anything else, NaN, infinity, and integers beyond a float."""
    try:
        number = float(value) if isinstance(value, REAL) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def shown(value: Any, most: int = 80) -> str:
    """The beginning of a value's `repr`; Python refuses to write integers of more than 4,300 digits."""
    try:
        text = repr(value)
    except ValueError:
        text = f"{type(value).__name__} of too many digits"
    return text if len(text) <= most else text[: most - 3] + "..."


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)) without overflow."""
    return 0.5 * (1 + math.tanh(value / 2))


def softplus(value: float) -> float:
    """log(1 + exp(value)) without overflow; -log sigmoid(x) is softplus(-x)."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))
