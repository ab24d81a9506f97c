"""Code: the share of the tests that a program passes, or all of them or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit.rewards.columns import RewardFunction, configured, names, references, texts
from r1kit.rewards.verdicts import report_verdicts
from r1kit.verifiers.code.grading import Grade, grade_code_batch
from r1kit.verifiers.code.tests import DEFAULTS, TestDefaults


def get_code_reward(*, partial: bool = True, unknown: float | None = None, **defaults: float) -> RewardFunction:
    """`code_reward` with its options; `defaults` are for tests that say nothing of them.

    They are `time_s`, `total_s`, `memory_mb`, `tolerance` and `indent`. Raises ValueError for others.
    """
    settings = TestDefaults.parse(defaults)
    return configured(code_reward, partial=partial, unknown=unknown, defaults=settings)


def code_reward(
    completions: Sequence[Any],
    *,
    partial: bool = True,
    unknown: float | None = None,
    defaults: TestDefaults = DEFAULTS,
    **columns: Any,
) -> list[float | None]:
    """1.0 where a program passes all tests; else their share with `partial` (below 1), 0.0 without.

    The tests (see `r1kit.verifiers.code.tests`) stand in the column `answer`, or `solution` in rows where that holds
    none. None where a row has no tests or its column `verifier` names another verifier than `code`, and where the
    sandbox fails or the machine is too busy to tell; tests that cannot be used give `unknown`.
    """
    responses = texts(completions)
    tests = references(columns, len(responses), "code_reward")
    named = names("verifier", columns, len(responses), "code", "code_reward")
    rows = [row for row, name in enumerate(named) if name == "code" and tests[row]]
    graded = grade_code_batch(
        [responses[row] for row in rows], [tests[row] for row in rows], thorough=partial, defaults=defaults
    )
    grades = dict(zip(rows, graded, strict=True))
    verdicts = [grades[row].verdict if row in grades else None for row in range(len(responses))]
    report_verdicts(verdicts, columns, prefix="code_")
    return [_value(grades.get(row), partial, unknown) for row in range(len(responses))]


def _value(grade: Grade | None, partial: bool, unknown: float | None) -> float | None:
    if grade is None:
        return None
    if grade.share is None:
        return None if grade.verdict.outcome == "failed" else unknown
    return grade.share if partial else float(grade.verdict.outcome == "right")
