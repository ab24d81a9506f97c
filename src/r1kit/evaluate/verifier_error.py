"""Accuracy corrected for a verifier's known errors (Rogan and Gladen 1978), with an interval that carries both.

The share judged right is q = fp + (1 - fp - fn) p for an accuracy p, so p = (q - fp) / (1 - fp - fn).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Self

from r1kit.evaluate.intervals import critical, effective_size
from r1kit.evaluate.metrics import Scored
from r1kit.evaluate.statistics import Estimate
from r1kit.evaluate.statistics import group as group_rows
from r1kit.evaluate.table import show


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRates:
    """How often a verifier errs, as counts over answers whose truth is known: `false_positives` of the `wrong` ones are
    judged right, `false_negatives` of the `right` ones are not."""

    false_positives: int
    wrong: int
    false_negatives: int
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.false_positives <= self.wrong or not 0 <= self.false_negatives <= self.right:
            raise ValueError(f"{self}: there cannot be more errors than answers")
        if not self.wrong or not self.right:
            raise ValueError(f"{self}: give wrong and right answers, because each kind has errors of its own")

    @classmethod
    def of_audit(cls, right: int, wrong: int, disagreements: Iterable[Mapping[str, Any]]) -> Self | None:
        """The rates of a run's first verifier, if its second one judges correctly.

        `right` and `wrong` are the numbers of answers that the second one judged so, and `disagreements` the rows of
        audit.jsonl. None if there is no wrong or no right answer.
        """
        verdicts = [row["verdict"] for row in disagreements]
        if not right or not wrong:
            return None
        positives, negatives = verdicts.count("right"), verdicts.count("wrong")
        return cls(false_positives=positives, wrong=wrong, false_negatives=negatives, right=right)

    @property
    def are_hopeless(self) -> bool:
        """Whether verdicts say no more about answers than chance does."""
        return self.false_positives / self.wrong + self.false_negatives / self.right >= 1

    def text(self) -> str:
        return (
            f"{self.false_positives} of {self.wrong} wrong answers were judged right, "
            f"{self.false_negatives} of {self.right} right ones were not"
        )


def corrected(values: Sequence[float], draws: int, rates: ErrorRates) -> Estimate:
    """The accuracy behind `values`, the share judged right of each problem, with its 95 % interval.

    `draws` is the number of judged completions. The interval is that of Lang and Reiczigel (2014), which adjusts all
    three shares as Wilson and Agresti do, at the effective sample size between problems and with the t quantile.
    Raises ValueError if the verifier is no better than chance.
    """
    fp, fn = rates.false_positives / rates.wrong, rates.false_negatives / rates.right
    if rates.are_hopeless:
        raise ValueError(f"the accuracy cannot be corrected: {rates.text()}, so verdicts say nothing about answers")
    judged, problems = fmean(values), len(values)
    mean = min(1.0, max(0.0, (judged - fp) / (1 - fp - fn)))
    if problems < 2:
        return Estimate(mean=mean, low=0.0, high=1.0, problems=problems, samples=draws)
    z, size = critical(problems - 1), effective_size(values, draws)
    n, right, wrong = size + z * z, rates.right + 2, rates.wrong + 2
    q = (size * judged + z * z / 2) / n
    sensitivity, specificity = (
        (rates.right - rates.false_negatives + 1) / right,
        (rates.wrong - rates.false_positives + 1) / wrong,
    )
    youden = sensitivity + specificity - 1
    if youden <= 0:
        return Estimate(mean=mean, low=0.0, high=1.0, problems=problems, samples=draws)
    p = (q + specificity - 1) / youden
    of_right, of_wrong = sensitivity * (1 - sensitivity) / right, specificity * (1 - specificity) / wrong
    centre = p + 2 * z * z * (p * of_right - (1 - p) * of_wrong)
    margin = z * math.sqrt(q * (1 - q) / n + p * p * of_right + (1 - p) ** 2 * of_wrong) / youden
    low, high = (min(1.0, max(0.0, end)) for end in (centre - margin, centre + margin))
    return Estimate(mean=mean, low=min(low, mean), high=max(high, mean), problems=problems, samples=draws)


def corrected_accuracy(rows: Sequence[Scored], rates: ErrorRates) -> Estimate:
    """`corrected` for judged completions; undecided verdicts do not count."""
    by_problem = [[row.correct for row in group if row.correct is not None] for group in group_rows(rows).values()]
    known = [verdicts for verdicts in by_problem if verdicts]
    if not known:
        raise ValueError("the verifier could not judge any answer, so there is no accuracy to correct")
    return corrected([fmean(verdicts) for verdicts in known], sum(map(len, known)), rates)


def correction_line(estimate: Estimate, rates: ErrorRates, source: str) -> str:
    """One line for people: the corrected accuracy and the errors behind it."""
    return f"corrected for the verifier's errors: {show(estimate, 'pass@1')} ({source}: {rates.text()})"
