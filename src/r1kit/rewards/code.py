"""Code: the share of the tests that a program passes, or all of them or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from r1kit.rewards.columns import RewardFunction, column, configured, texts
from r1kit.rewards.verdicts import outcome, tell
from r1kit.verifiers.code import Grade, grade_code_batch
from r1kit.verifiers.code_tests import DEFAULTS, TestDefaults


def get_code_reward(*, partial: bool = True, unknown: float | None = None, **defaults: float) -> RewardFunction:
    """`code_reward` with its options; `defaults` (`time_s`, `total_s`, `memory_mb`, `tolerance`) are for tests that say
    nothing of them. Raises ValueError for others."""
    settings = TestDefaults.parse(defaults)
    return configured(code_reward, partial=partial, unknown=unknown, defaults=settings)


def code_reward(
    completions: Sequence[Any],
    *,
    partial: bool = True,
    unknown: float | None = None,
    defaults: TestDefaults = DEFAULTS,
    log_metric: Callable[[str, float], None] | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1.0 where a program passes all tests; else their share with `partial` (below 1), 0.0 without.

    The tests (see `r1kit.verifiers.code_tests`) stand in the column `answer` or `solution`. None where a row has no
    tests or its column `verifier` names another verifier than `code`, and where the sandbox fails or the machine is
    too busy to tell; tests that cannot be used give `unknown`.
    """
    responses = texts(completions)
    source = "solution" if columns.get("answer") is None and columns.get("solution") is not None else "answer"
    references = column(source, columns, len(responses), "code_reward")
    given = columns.get("verifier")
    named = ["code"] * len(responses) if given is None else column("verifier", columns, len(responses), "code_reward")
    rows = [row for row, name in enumerate(named) if name in ("code", None, "") and references[row]]
    graded = grade_code_batch(
        [responses[row] for row in rows], [_tests(references[row]) for row in rows], thorough=partial, defaults=defaults
    )
    grades = dict(zip(rows, graded, strict=True))
    verdicts = [grades[row].verdict if row in grades else None for row in range(len(responses))]
    tell(verdicts, log_metric, log_extra, "code_")
    return [_value(grades.get(row), partial, unknown) for row in range(len(responses))]


def _tests(reference: Any) -> str:
    """Tests as text; columns may hold them as data too."""
    return reference if isinstance(reference, str) else json.dumps(reference, default=str)


def _value(grade: Grade | None, partial: bool, unknown: float | None) -> float | None:
    if grade is None:
        return None
    if grade.share is None:
        return None if outcome(grade.verdict) == "failed" else unknown
    return grade.share if partial else float(grade.verdict.correct is True)
