"""The steps that look at all rows at once: duplicates and balance, decided on facts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1kit.curate import balance, duplicates
from r1kit.curate.balance import BalanceSettings
from r1kit.curate.duplicates import NearDuplicates
from r1kit.curate.facts import KEPT, Facts
from r1kit.curate.filters.protocol import Rejection

SAME_ID, SAME_TEXT = "duplicate ids", "exact duplicates"
PER_PROBLEM, DIFFICULTY = "balance per problem", "balance of difficulty"


@dataclass(frozen=True, slots=True)
class Decisions:
    """For each row the step that dropped it (else `KEPT`), the row it was dropped for (else -1), and how alike.

    `bucket` is the row's pass-rate bucket, -1 where there is none.
    """

    steps: Sequence[str]
    step: NDArray[np.int16]
    partner: NDArray[np.int64]
    similarity: NDArray[np.float32]
    bucket: NDArray[np.int64]

    def why(self, row: int, settings: BalanceSettings, partner_id: str) -> Rejection:
        """The reason for a row that one of the steps here dropped."""
        step = self.steps[self.step[row]]
        if step == SAME_ID:
            return Rejection(reason="id seen before", detail=f"the first is kept: {partner_id}")
        if step == SAME_TEXT:
            return Rejection(reason="same text", detail=f"as {partner_id}")
        if step == PER_PROBLEM:
            return Rejection(reason=f"more than {settings.per_problem} of the problem", detail=f"not {settings.choose}")
        if step == DIFFICULTY:
            return Rejection(reason=f"too many of pass rate {settings.bucket_names()[self.bucket[row]]}")
        return Rejection(reason="near-duplicate", detail=f"{self.similarity[row]:.0%} alike: {partner_id}")


def step_names(near: Sequence[NearDuplicates], settings: BalanceSettings) -> list[str]:
    """The names of the steps that `decide` takes, in order."""
    names = [SAME_ID, SAME_TEXT, *(one.title for one in near)]
    if settings.per_problem is not None:
        names.append(PER_PROBLEM)
    return [*names, DIFFICULTY] if settings.shares else names


def decide(facts: Facts, steps: Sequence[str], near: Sequence[NearDuplicates], settings: BalanceSettings) -> Decisions:
    """Go through the steps on the rows that the first pass kept; `steps` are the names of all, those of it first.

    Which rows stay depends on their content and not on their order, but for rows that share an id.
    """
    step = facts.column("step").astype(np.int16)
    made = Decisions(
        steps=steps,
        step=step,
        partner=np.full(len(step), -1, dtype=np.int64),
        similarity=np.zeros(len(step), dtype=np.float32),
        bucket=balance.buckets(facts.column("pass_rate"), settings.edges),
    )
    if not len(step):
        return made
    _first_of_each(made, SAME_ID, facts.column("id"), np.flatnonzero(step == KEPT))
    order = _best_first(facts)
    _first_of_each(made, SAME_TEXT, facts.column("content"), _left(made, order))
    for number, search in enumerate(near):
        _near(made, facts, number, search, _left(made, order))
    _balance(made, facts, near, settings, order)
    return made


def _best_first(facts: Facts) -> NDArray[np.int64]:
    """Rows by quality, best first; equal ones by a hash of their ids, so that chance does not favour the first."""
    quality = facts.column("quality")
    return np.lexsort((facts.column("id"), -np.nan_to_num(quality, nan=-np.inf)))


def _left(made: Decisions, order: NDArray[np.int64]) -> NDArray[np.int64]:
    left: NDArray[np.int64] = order[made.step[order] == KEPT]
    return left


def _first_of_each(made: Decisions, name: str, keys: NDArray[Any], order: NDArray[np.int64]) -> None:
    """Drop rows whose key stands earlier in `order`."""
    _, first, place = np.unique(keys[order], return_index=True, return_inverse=True)
    partner = order[first[place]]
    again = partner != order
    made.step[order[again]] = made.steps.index(name)
    made.partner[order[again]] = partner[again]


def _near(made: Decisions, facts: Facts, number: int, search: NearDuplicates, order: NDArray[np.int64]) -> None:
    groups, banded, signatures = (facts.column(f"{name}{number}") for name in ("group", "bands", "signature"))
    near = duplicates.find_near(order, groups, banded, signatures, search.threshold)
    found = np.flatnonzero(near.partner >= 0)
    made.step[found] = made.steps.index(search.title)
    made.partner[found], made.similarity[found] = near.partner[found], near.similarity[found]


def _balance(
    made: Decisions, facts: Facts, near: Sequence[NearDuplicates], settings: BalanceSettings, order: NDArray[np.int64]
) -> None:
    problems = facts.column("problem")
    if settings.choose == "shortest":
        order = np.lexsort((facts.column("id"), facts.column("chars")))
    if settings.per_problem is not None:
        signatures = None
        if settings.choose == "diverse":
            signatures = facts.column(f"signature{[search.text for search in near].index('response')}")
        over = balance.within_problems(_left(made, order), problems, settings.per_problem, signatures)
        made.step[over] = made.steps.index(PER_PROBLEM)
    if settings.shares:
        over = balance.beyond_shares(_left(made, order), problems, made.bucket, settings)
        made.step[over] = made.steps.index(DIFFICULTY)
