"""Rewards that look at length and repetition: DAPO's soft overlong punishment, and the n-gram penalty."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from r1kit.rewards.columns import RewardFunction, column, configured, texts

# A character of a script without spaces (Han, kana, Thai) is a word of its own; else words end at white space.
_UNSPACED = r"\u0e00-\u0e7f\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def get_soft_overlong_punishment(*, max_length: int, cache: int) -> RewardFunction:
    """DAPO, equation 13, in tokens: 0 up to max_length - cache, then falling to -1 at max_length, and -1 beyond."""
    if not 0 <= cache <= max_length:
        raise ValueError(f"cache is {cache} with max_length {max_length}: it must be between 0 and max_length")
    return configured(_soft_overlong_punishment, max_length=max_length, cache=cache)


def get_repetition_penalty_reward(*, ngram_size: int = 3, max_penalty: float = -0.1) -> RewardFunction:
    """(1 - unique / all n-grams of lower-cased words) * max_penalty; 0 for texts with fewer words than n."""
    if ngram_size < 1:
        raise ValueError(f"ngram_size is {ngram_size}: it must be at least 1")
    if max_penalty > 0:
        raise ValueError(f"max_penalty is {max_penalty}: a penalty is 0 or negative")
    return configured(_repetition_penalty_reward, ngram_size=ngram_size, max_penalty=max_penalty)


def _soft_overlong_punishment(
    completions: Sequence[Any], *, max_length: int, cache: int, **columns: Any
) -> list[float]:
    """Punishment for length alone: see `get_soft_overlong_punishment`."""
    ids = column("completion_ids", columns, len(completions), "soft_overlong_punishment")
    return [_overlong(len(one), max_length, cache) for one in ids]


def _overlong(length: int, max_length: int, cache: int) -> float:
    start = max_length - cache
    if length <= start:
        return 0.0
    return (start - length) / cache if length <= max_length else -1.0


def _repetition_penalty_reward(
    completions: Sequence[Any], *, ngram_size: int, max_penalty: float, **columns: Any
) -> list[float]:
    """Penalty for n-grams that come again: see `get_repetition_penalty_reward`."""
    values = []
    for text in texts(completions):
        words = _WORD.findall(text.lower())
        total = len(words) - ngram_size + 1
        unique = len({tuple(words[start : start + ngram_size]) for start in range(total)})
        values.append((1 - unique / total) * max_penalty if total > 0 else 0.0)
    return values
