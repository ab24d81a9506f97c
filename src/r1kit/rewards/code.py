"""Code: the fraction of tests that a program passes, or all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit.rewards.inputs import RewardFunction, configured, names_column, references, texts
from r1kit.rewards.verdicts import report_verdicts
from r1kit.verifiers.code.grading import grade_code_batch
from r1kit.verifiers.code.tests import DEFAULTS, TestDefaults


def get_code_reward(*, partial: bool = True, unknown: float | None = None, **defaults: float) -> RewardFunction:
    """`code_reward` with its options.

    `defaults` apply to tests that do not set them: `time_s`, `total_s`, `memory_mb`, `tolerance` and `indent`. Raises
    ValueError for others.
    """
    return configured(code_reward, partial=partial, unknown=unknown, defaults=TestDefaults.parse(defaults))


def code_reward(
    completions: Sequence[Any],
    *,
    partial: bool = True,
    unknown: float | None = None,
    defaults: TestDefaults = DEFAULTS,
    **columns: Any,
) -> list[float | None]:
    """1.0 if a program passes all tests, otherwise the fraction it passes with `partial`, or 0.0 without.

    The tests (see `r1kit.verifiers.code.tests`) are in the column `answer`, or in `solution` for rows whose `answer` is
    empty. None if a row has no tests, if its column `verifier` names another verifier than `code`, if the sandbox fails
    or if the machine is too busy to tell. Unusable tests give `unknown`.
    """
    responses = texts(completions)
    tests = references(columns, len(responses), "code_reward")
    named = names_column("verifier", columns, len(responses), "code", "code_reward")
    rows = [row for row, name in enumerate(named) if name == "code" and tests[row]]
    graded = grade_code_batch(
        [responses[row] for row in rows], [tests[row] for row in rows], thorough=partial, defaults=defaults
    )
    by_row = dict(zip(rows, graded, strict=True))
    grades = [by_row.get(row) for row in range(len(responses))]
    report_verdicts([None if grade is None else grade.verdict for grade in grades], columns, prefix="code_")
    values: list[float | None] = []
    for grade in grades:
        if grade is None or grade.share is None:
            values.append(None if grade is None or grade.verdict.outcome == "failed" else unknown)
        else:
            values.append(grade.share if partial else float(grade.verdict.outcome == "right"))
    return values
