"""The steps that compare rows: duplicates and balance, decided on facts alone."""

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
    """For each row, the step that dropped it (or `KEPT`), the row that it duplicates (or -1), and their similarity.

    `bucket` is the row's pass-rate bucket, -1 without a pass rate.
    """

    steps: Sequence[str]
    step: NDArray[np.int16]
    partner: NDArray[np.int64]
    similarity: NDArray[np.float32]
    bucket: NDArray[np.int64]

    def why(self, row: int, settings: BalanceSettings, partner_id: str) -> Rejection:
        """The reason for a row that one of these steps dropped."""
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
    names = [SAME_ID, SAME_TEXT, *(search.title for search in near)]
    if settings.per_problem is not None:
        names.append(PER_PROBLEM)
    return [*names, DIFFICULTY] if settings.shares else names


def decide(facts: Facts, steps: Sequence[str], near: Sequence[NearDuplicates], settings: BalanceSettings) -> Decisions:
    """Apply the steps to the rows that the first pass kept. `steps` names all steps, those of the first pass first.

    The choice depends on the content of the rows, not on their order, except for rows that share an id.
    """
    step = facts.column("step").astype(np.int16)
    decisions = Decisions(
        steps=steps,
        step=step,
        partner=np.full(len(step), -1, dtype=np.int64),
        similarity=np.zeros(len(step), dtype=np.float32),
        bucket=balance.buckets(facts.column("pass_rate"), settings.edges),
    )
    if not len(step):
        return decisions
    _first_of_each(decisions, SAME_ID, facts.column("id"), np.flatnonzero(step == KEPT))
    # by quality, best first; ties in the order of a hash of their ids, so that the first row has no advantage
    order = np.lexsort((facts.column("id"), -np.nan_to_num(facts.column("quality"), nan=-np.inf)))
    _first_of_each(decisions, SAME_TEXT, facts.column("content"), _kept(decisions, order))
    for number, search in enumerate(near):
        groups, banded, signatures = (facts.column(f"{name}{number}") for name in ("group", "bands", "signature"))
        nearest = duplicates.find_near(_kept(decisions, order), groups, banded, signatures, search.threshold)
        rows = np.flatnonzero(nearest.partner >= 0)
        decisions.step[rows] = steps.index(search.title)
        decisions.partner[rows], decisions.similarity[rows] = nearest.partner[rows], nearest.similarity[rows]
    _balance(decisions, facts, near, settings, order)
    return decisions


def _kept(decisions: Decisions, order: NDArray[np.int64]) -> NDArray[np.int64]:
    kept: NDArray[np.int64] = order[decisions.step[order] == KEPT]
    return kept


def _first_of_each(decisions: Decisions, name: str, keys: NDArray[Any], order: NDArray[np.int64]) -> None:
    """Drop each row whose key occurs earlier in `order`."""
    _, first, place = np.unique(keys[order], return_index=True, return_inverse=True)
    partner = order[first[place]]
    again = partner != order
    decisions.step[order[again]] = decisions.steps.index(name)
    decisions.partner[order[again]] = partner[again]


def _balance(
    decisions: Decisions,
    facts: Facts,
    near: Sequence[NearDuplicates],
    settings: BalanceSettings,
    order: NDArray[np.int64],
) -> None:
    problems = facts.column("problem")
    if settings.choose == "shortest":
        order = np.lexsort((facts.column("id"), facts.column("chars")))
    if settings.per_problem is not None:
        signatures = None
        if settings.choose == "diverse":
            signatures = facts.column(f"signature{[search.text for search in near].index('response')}")
        over = balance.within_problems(_kept(decisions, order), problems, settings.per_problem, signatures)
        decisions.step[over] = decisions.steps.index(PER_PROBLEM)
    if settings.shares:
        over = balance.beyond_shares(_kept(decisions, order), problems, decisions.bucket, settings)
        decisions.step[over] = decisions.steps.index(DIFFICULTY)
