"""Error rates over labelled cases.

A false positive is an answer judged right that is not; a false negative is a right answer that is not judged right
(including "unknown", which earns no reward). For rewards, the two are values above and below the formula's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from r1kit.conformance.cases import CASES, RewardCase, cases, reward_cases
from r1kit.conformance.subject import subject
from r1kit.evaluate.intervals import NORMAL_FROM, critical, wilson
from r1kit.evaluate.verifier_error import ErrorRates
from r1kit.rewards import RewardSpec, build
from r1kit.sandbox import SandboxError, default_sandbox
from r1kit.settings import nearest
from r1kit.verifiers.extract import as_response

MAX_FALSE_NEGATIVES = 0.02
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`count` of `of` cases, and the 95 % interval (Wilson) of the share; None if there are no such cases."""

    count: int
    of: int
    low: float | None
    high: float | None

    @classmethod
    def among(cls, count: int, of: int) -> Rate:
        low, high = wilson(count / of, of, critical(NORMAL_FROM)) if of else (None, None)
        return cls(count=count, of=of, low=low, high=high)

    @property
    def share(self) -> float:
        """`count / of`; 0.0 if there are no cases."""
        return self.count / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A case that was not judged as labelled."""

    case: str
    kind: str
    given: str
    reference: str
    expected: bool | float | None
    found: bool | float | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The error rates of a verifier or reward. `cannot_tell` counts undecided verdicts on cases with a label."""

    name: str
    cases: int
    false_positives: Rate
    false_negatives: Rate
    cannot_tell: int
    failures: tuple[Failure, ...]

    @property
    def ok(self) -> bool:
        """No false positive and few false negatives."""
        return not self.false_positives.count and self.false_negatives.share <= MAX_FALSE_NEGATIVES

    @property
    def error_rates(self) -> ErrorRates:
        """The rates that correct an accuracy. Cases without a right verdict count as wrong ones.

        An accuracy is that of decided verdicts, so cases that the verifier could not decide do not count here.
        """
        positives, negatives = self.false_positives, self.false_negatives
        undecided = [failure.expected for failure in self.failures if failure.found is None]
        return ErrorRates(
            false_positives=positives.count,
            wrong=positives.of - undecided.count(False),
            false_negatives=negatives.count - undecided.count(True),
            right=negatives.of - undecided.count(True),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"ok": self.ok}


def measure(name: str, source: str | Path | None = None) -> Report:
    """Run cases on a verifier, by name or dotted path. `source` defaults to the cases of that name, or of math."""
    labelled = cases(source if source is not None else name if name in CASES else "math")
    responses = [as_response(case.prediction, name) for case in labelled]
    verdicts = subject(name).judge(responses, [case.answer for case in labelled])
    judged = list(zip(labelled, verdicts, strict=True))
    wrong = [verdict for case, verdict in judged if case.correct is not True]
    right = [verdict for case, verdict in judged if case.correct is True]
    return Report(
        name=name,
        cases=len(labelled),
        false_positives=Rate.among(sum(verdict.correct is True for verdict in wrong), len(wrong)),
        false_negatives=Rate.among(sum(verdict.correct is not True for verdict in right), len(right)),
        cannot_tell=sum(verdict.correct is None and case.correct is not None for case, verdict in judged),
        failures=tuple(
            Failure(
                case=case.id,
                kind=case.kind,
                given=case.prediction,
                reference=case.answer,
                expected=case.correct,
                found=verdict.correct,
                detail=verdict.detail,
            )
            for case, verdict in judged
            if verdict.correct is not case.correct
        ),
    )


def obstacle(name: str) -> str:
    """Why a verifier cannot be measured on this machine; "" if it can."""
    if name == "code":
        try:
            default_sandbox()
        except SandboxError as error:
            return str(error)
    return ""


def measure_rewards(names: Sequence[str] | None = None) -> list[Report]:
    """Run the cases of all rewards, or of those named, and compare with the values of the formulas."""
    by_name: dict[str, list[RewardCase]] = {}
    for case in reward_cases():
        by_name.setdefault(case.reward, []).append(case)
    for name in names or ():
        if name not in by_name:
            raise ValueError(f"there are no cases for a reward {name!r}: {nearest(name, by_name)}")
    return [_reward_report(name, by_name[name]) for name in names or by_name]


def _reward_report(name: str, labelled: Sequence[RewardCase]) -> Report:
    faults = []
    for case in labelled:
        scorer = build([RewardSpec(name=case.reward, options=dict(case.options))])
        columns = {column: [value] for column, value in case.columns.items()}
        value, expected = scorer([case.completion], **columns)[0].parts[case.reward], case.expected
        if value is None or expected is None:
            same = value is expected
        else:
            same = math.isclose(value, expected, rel_tol=0.0, abs_tol=_CLOSE)
        if not same:
            faults.append((case, value))
    too_high = [case for case, value in faults if value is not None and value > (case.expected or 0.0)]
    return Report(
        name=name,
        cases=len(labelled),
        false_positives=Rate.among(len(too_high), len(labelled)),
        false_negatives=Rate.among(len(faults) - len(too_high), len(labelled)),
        cannot_tell=sum(value is None and case.expected is not None for case, value in faults),
        failures=tuple(
            Failure(
                case=case.id,
                kind=case.kind,
                given=case.completion,
                reference=str(dict(case.columns)),
                expected=case.expected,
                found=value,
                detail=str(dict(case.options)),
            )
            for case, value in faults
        ),
    )
