"""The language consistency reward of R1 (paper, equation 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit import chat
from r1kit.rewards.columns import RewardFunction, configured, texts
from r1kit.verifiers import language as scripts


def language_consistency_reward(
    completions: Sequence[Any], language: Sequence[str] | None = None, *, default_language: str = "en", **columns: Any
) -> list[float | None]:
    """Words in the problem's language over all words of the reasoning, by script; code, LaTeX and digits are masked.

    0.0 without any reasoning; None (not applicable) for reasoning without words, such as bare formulas. Rows without
    a language take `default_language`. Raises ValueError for a language that is not known.
    """
    responses = texts(completions)
    targets = [default_language] * len(responses) if language is None else [one or default_language for one in language]
    if len(targets) != len(responses):
        raise ValueError(f"language_consistency_reward: {len(targets)} languages for {len(responses)} completions")
    return [_value(response, target) for response, target in zip(responses, targets, strict=True)]


def get_language_consistency_reward(*, default_language: str = "en") -> RewardFunction:
    """`language_consistency_reward` with a language for rows that name none."""
    scripts.share("", default_language)
    return configured(language_consistency_reward, default_language=default_language)


def _value(response: str, language: str) -> float | None:
    reasoning = chat.parse(response).reasoning
    share = scripts.share(reasoning or "", language)
    return 0.0 if reasoning is None else share
