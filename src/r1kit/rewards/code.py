"""Code: the share of the tests that a program passes, or all of them or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from r1kit.rewards.columns import RewardFunction, column, configured, texts
from r1kit.rewards.verdicts import outcome, tell
from r1kit.verifiers.code import Grade, grade_code_batch


def get_code_reward(*, partial: bool = True, unknown: float | None = None) -> RewardFunction:
    """1.0 where all tests pass; else their share with `partial` (below 1), 0.0 without.

    The tests (see `r1kit.verifiers.code_tests`) stand in the column `answer` or `solution`. Rows whose column
    `verifier` names another verifier than `code` get None, and so do those for which the sandbox fails; tests that
    cannot be used give `unknown`.
    """
    return configured(_code_reward, partial=partial, unknown=unknown)


def _code_reward(
    completions: Sequence[Any],
    *,
    partial: bool,
    unknown: float | None,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """The share of passed tests: see `get_code_reward`."""
    responses = texts(completions)
    source = "solution" if columns.get("answer") is None and columns.get("solution") is not None else "answer"
    references = column(source, columns, len(responses), "code_reward")
    named = columns.get("verifier") or ["code"] * len(responses)
    rows = [row for row, name in enumerate(named) if name in ("code", None, "") and references[row]]
    graded = grade_code_batch([responses[row] for row in rows], [references[row] for row in rows], thorough=partial)
    grades = dict(zip(rows, graded, strict=True))
    verdicts = [grades[row].verdict if row in grades else None for row in range(len(responses))]
    tell(verdicts, log_metric, log_extra, "code_")
    return [_value(grades.get(row), partial, unknown) for row in range(len(responses))]


def _value(grade: Grade | None, partial: bool, unknown: float | None) -> float | None:
    if grade is None:
        return None
    if grade.share is None:
        return None if outcome(grade.verdict) == "failed" else unknown
    return grade.share if partial else float(grade.verdict.correct is True)
