"""Rewards for length and repetition: DAPO's soft overlong punishment and the n-gram penalty."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from r1kit.rewards.inputs import RewardFunction, column, configured, texts

# Scripts without spaces: each character is a unit, and a word has so many of them on average. If characters counted as
# words, natural Chinese and Japanese would look five to ten times as repetitive as English.
_HAN, _KANA, _THAI = (
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",
    r"\u3041-\u30ff\uff66-\uff9d",
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff",  # Thai, Lao, Burmese, Khmer
)
_UNIT = re.compile(rf"(?P<han>[{_HAN}])|(?P<kana>[{_KANA}])|(?P<thai>[{_THAI}])|[^\s{_HAN}{_KANA}{_THAI}]+")
_WORD = 12  # the size of a word, in twelfths, so that characters have whole sizes
_SIZE = {None: _WORD, "han": _WORD // 2, "kana": _WORD // 3, "thai": _WORD // 4}


def get_soft_overlong_punishment(*, max_length: int, cache: int) -> RewardFunction:
    """DAPO, equation 13, in tokens: 0 up to max_length - cache, then falling to -1 at max_length, and -1 beyond."""
    if not 0 <= cache <= max_length:
        raise ValueError(f"cache is {cache} with max_length {max_length}: it must be between 0 and max_length")
    return configured(soft_overlong_punishment, max_length=max_length, cache=cache)


def get_repetition_penalty_reward(*, ngram_size: int = 3, max_penalty: float = -0.1) -> RewardFunction:
    """(1 - unique / all n-grams of lower-cased words) * max_penalty; 0 for texts with fewer words than n.

    `repetition` defines words in scripts without spaces.
    """
    if ngram_size < 1:
        raise ValueError(f"ngram_size is {ngram_size}: it must be at least 1")
    if max_penalty > 0:
        raise ValueError(f"max_penalty is {max_penalty}: a penalty is 0 or negative")
    return configured(repetition_penalty_reward, ngram_size=ngram_size, max_penalty=max_penalty)


def soft_overlong_punishment(completions: Sequence[Any], *, max_length: int, cache: int, **columns: Any) -> list[float]:
    """Punishment for length alone: see `get_soft_overlong_punishment`."""
    start = max_length - cache

    def punishment(length: int) -> float:
        if length <= start:
            return 0.0
        return (start - length) / cache if length <= max_length else -1.0

    ids = column("completion_ids", columns, len(completions), "soft_overlong_punishment")
    return [punishment(len(token_ids)) for token_ids in ids]


def repetition_penalty_reward(
    completions: Sequence[Any], *, ngram_size: int, max_penalty: float, **columns: Any
) -> list[float]:
    """Penalty for repeated n-grams: see `get_repetition_penalty_reward`."""
    return [repetition(text, ngram_size) * max_penalty for text in texts(completions)]


def repetition(text: str, ngram_size: int = 3) -> float:
    """Fraction of n-grams of lower-cased words that occurred before; 0 for fewer words than n.

    `repetition("a b a b a b", 2) == 0.6`. Two Chinese characters count as a word, and so do three Japanese kana or four
    Thai letters.
    """
    units = [(match[0], _SIZE[match.lastgroup]) for match in _UNIT.finditer(text.lower())]
    seen: set[tuple[str, ...]] = set()
    total = end = size = 0
    for start, (_, first) in enumerate(units):
        while size < ngram_size * _WORD and end < len(units):
            size += units[end][1]
            end += 1
        if size < ngram_size * _WORD:
            break
        seen.add(tuple(unit for unit, _ in units[start:end]))
        total += 1
        size -= first
    return 1 - len(seen) / total if total else 0.0
