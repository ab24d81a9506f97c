"""Rewards from verdicts: accuracy, and accuracy scaled by length (open-r1's cosine reward)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from r1kit import verifiers
from r1kit.rewards.inputs import RewardFunction, column, configured, problem_keys, texts
from r1kit.rewards.verdicts import report_verdicts, verdicts_of
from r1kit.types import Verdict


def accuracy_reward(
    completions: Sequence[Any],
    solution: Sequence[str] | None = None,
    answer: Sequence[str] | None = None,
    verifier: Sequence[str] | None = None,
    *,
    default_verifier: str = "math",
    unknown: float | None = 0.5,
    false_positives: float = 0.0,
    false_negatives: float = 0.0,
    **columns: Any,
) -> list[float | None]:
    """1.0 for right, 0.0 for wrong, `unknown` for an unusable reference (None: the sample does not count).

    References are in the column `answer` or `solution`; the column `verifier` names each row's verifier. None if a row
    has no reference or its verifier failed. With the verifier's error rates, the values are those of
    `expected_correctness` instead of 1.0 and 0.0.
    """
    named = {"answer": answer, "solution": solution, "verifier": verifier}
    verdicts = verdicts_of(completions, named, default_verifier, "accuracy_reward")
    report_verdicts(verdicts, columns)
    right = [None if verdict is None else verdict.correct for verdict in verdicts]
    values = [float(is_right is True) for is_right in right]
    if false_positives or false_negatives:
        keys = problem_keys(columns, len(right), "accuracy_reward")
        values = expected_correctness(right, keys, false_positives, false_negatives)
    return [_reward_for(verdict, value, unknown) for verdict, value in zip(verdicts, values, strict=True)]


def expected_correctness(
    right: Sequence[bool | None], problems: Sequence[str], false_positives: float, false_negatives: float
) -> list[float]:
    """The chance that each answer is right given its verdict, by the verifier's error rates.

    The prior is the group's own accuracy, corrected for these rates: (share judged right - fp) / (1 - fp - fn) (Rogan
    and Gladen 1978). So a right verdict counts little in a group where errors alone would explain it. Undecided
    verdicts give 0.0.
    """
    verdicts: dict[str, list[bool]] = {}
    for verdict, problem in zip(right, problems, strict=True):
        if verdict is not None:
            verdicts.setdefault(problem, []).append(verdict)
    values = []
    for verdict, problem in zip(right, problems, strict=True):
        if verdict is None:
            values.append(0.0)
            continue
        judged_right = sum(verdicts[problem]) / len(verdicts[problem])
        prior = min(1.0, max(0.0, (judged_right - false_positives) / (1 - false_positives - false_negatives)))
        # Bayes: how likely this verdict is for a right answer, and for a wrong one
        of_right = prior * (1 - false_negatives if verdict else false_negatives)
        of_wrong = (1 - prior) * (false_positives if verdict else 1 - false_positives)
        values.append(of_right / (of_right + of_wrong) if of_right + of_wrong else float(verdict))
    return values


def get_accuracy_reward(
    *, verifier: str = "math", unknown: float | None = 0.5, false_positives: float = 0.0, false_negatives: float = 0.0
) -> RewardFunction:
    """`accuracy_reward` with a default verifier, the value of rows with an unusable reference, and the verifier's error
    rates: the shares of wrong answers that it takes for right, and of right ones for wrong."""
    verifiers.find(verifier)  # raises now, not at the first step
    if min(false_positives, false_negatives) < 0 or false_positives + false_negatives >= 1:
        rates_given = f"false_positives is {false_positives} and false_negatives {false_negatives}"
        raise ValueError(f"{rates_given}: give shares whose sum is below 1, or verdicts say nothing about answers")
    rates = {"false_positives": false_positives, "false_negatives": false_negatives}
    return configured(accuracy_reward, default_verifier=verifier, unknown=unknown, **rates)


def get_cosine_scaled_reward(
    *,
    min_value_wrong: float = -0.5,
    max_value_wrong: float = -0.1,
    min_value_correct: float = 0.8,
    max_value_correct: float = 1.0,
    max_len: int = 1000,
    unit: Literal["characters", "tokens"] = "characters",
    verifier: str = "math",
    unknown: float | None = None,
) -> RewardFunction:
    """Along half a cosine, right answers fall from 1.0 (short) to 0.8 (long) and wrong ones rise from -0.5 to -0.1.

    value = min + 0.5 (max - min) (1 + cos(pi * length / max_len)); `unit="tokens"` takes lengths from `completion_ids`.
    """
    verifiers.find(verifier)
    if max_len < 1:
        raise ValueError(f"max_len is {max_len}: it must be at least 1")
    # those of wrong answers are swapped: a short wrong answer is the worst
    ranges = {"correct": (min_value_correct, max_value_correct), "wrong": (max_value_wrong, min_value_wrong)}
    options = {"max_len": max_len, "unit": unit, "default_verifier": verifier, "unknown": unknown}
    return configured(cosine_scaled_reward, **ranges, **options)


def cosine_scaled_reward(
    completions: Sequence[Any],
    *,
    correct: tuple[float, float],
    wrong: tuple[float, float],
    max_len: int,
    unit: str,
    default_verifier: str,
    unknown: float | None,
    **columns: Any,
) -> list[float | None]:
    """Accuracy scaled by length: see `get_cosine_scaled_reward`."""
    verdicts = verdicts_of(completions, columns, default_verifier, "cosine_scaled_reward")
    report_verdicts(verdicts, columns, prefix="cosine_")
    bodies: Sequence[Any] = texts(completions)  # whose lengths count
    if unit == "tokens":
        bodies = column("completion_ids", columns, len(bodies), "cosine_scaled_reward")

    values: list[float | None] = []
    for verdict, body in zip(verdicts, bodies, strict=True):
        low, high = correct if verdict is not None and verdict.correct else wrong
        progress = min(len(body) / max_len, 1.0)  # beyond the limit the cosine would rise again
        scaled = low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * progress))
        values.append(_reward_for(verdict, scaled, unknown))
    return values


def _reward_for(verdict: Verdict | None, decided: float, unknown: float | None) -> float | None:
    """`decided` for a verdict of right or wrong; None if the verifier failed, whatever `unknown` is."""
    if verdict is None or verdict.outcome == "failed":
        return None
    return unknown if verdict.correct is None else decided
