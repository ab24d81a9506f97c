"""The value of an answer, so that answers can be counted whatever their spelling."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

from r1kit.verifiers import exact, number


@lru_cache(maxsize=4096)
def meaning(answer: str) -> Hashable:
    """The value of an answer: a number, or its text as `exact.normalise` writes it."""
    return number.parse_in_prose(answer) or exact.normalise(answer[: exact.MAX_CHARS])
