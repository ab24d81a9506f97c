"""Decisions on samples, and the rules that turn them into an outcome and an agreement rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any, Literal

from r1kit.review.items import Text
from r1kit.store import to_plain

Action = Literal["accept", "edit", "reject", "skip", "undo"]
State = Literal["open", "disputed", "done"]
AUTO = "auto-accept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A line of the history; `undoes` is the `seq` of the line that an undo reverts.

    `role` is "vote", "settle" (ends a disagreement), "auto" (automatic) or "skip"; an undo has the role of its line.
    """

    seq: int
    at: str
    who: str
    item: str
    action: Action
    role: str
    reason: str
    before: Text | None
    after: Text | None
    undoes: int | None

    @property
    def accepts(self) -> bool:
        return self.action in ("accept", "edit")

    @property
    def row(self) -> dict[str, Any]:
        """The decision as an exported sample lists it."""
        names = ("who", "at", "action", "role", "reason", "before", "after")
        return {name: to_plain(getattr(self, name)) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The outcome of the decisions on one sample; `text` is the accepted text."""

    state: State
    accepted: bool | None = None
    text: Text | None = None


def outcome(decisions: Sequence[Decision], wanted: int) -> Outcome:
    """The outcome of a sample's standing decisions (oldest first), of which it needs `wanted`.

    If reviewers disagree, the sample is disputed until one more decision settles it. Of several accepted texts, an
    edited one wins over an unedited one, then the latest wins. Auto-accept never overrules a person.
    """
    settled = [decision for decision in decisions if decision.role == "settle"][-1:]
    people = settled or [decision for decision in decisions if decision.role == "vote"]
    automatic = [decision for decision in decisions if decision.role == "auto"]
    if not settled and not automatic and len(people) < wanted:
        return Outcome(state="open")
    accepting = [decision for decision in people or automatic if decision.accepts]
    if len(accepting) < len(people or automatic):
        disputed = bool(accepting) and not automatic
        return Outcome(state="disputed") if disputed else Outcome(state="done", accepted=False)
    chosen = max(accepting, key=lambda decision: (decision.action == "edit", decision.seq))
    return Outcome(state="done", accepted=True, text=chosen.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often two reviewers of one sample agree to accept or reject it.

    `kappa` corrects for chance (1 is perfect, 0 is chance): Scott's pi, which is Cohen's kappa for pairs of changing
    reviewers. None if it is undefined: no pairs, or all decisions alike.
    """

    pairs: int
    agreed: int
    kappa: float | None


def agreement(pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    """Agreement over pairs of accepts: `agreement([(True, True), (True, False)])` has 2 pairs, of which 1 agreed."""
    agreed = sum(first == second for first, second in pairs)
    if not pairs:
        return Agreement(pairs=0, agreed=0, kappa=None)
    share = sum(first + second for first, second in pairs) / (2 * len(pairs))
    chance = share**2 + (1 - share) ** 2
    kappa = (agreed / len(pairs) - chance) / (1 - chance) if chance < 1 else None
    return Agreement(pairs=len(pairs), agreed=agreed, kappa=kappa)


def wants_two(position: int, share: float) -> bool:
    """Whether the sample at a position (from 0) gets two reviewers: one at random of every 1 / `share` in a row.

    This depends on position and share only, so later samples change nothing, and the share is exact to one sample.
    """
    exact = Fraction(share).limit_denominator(10_000)
    if exact <= 0:
        return False
    stratum = math.floor(position * exact)
    first, after = math.ceil(stratum / exact), math.ceil((stratum + 1) / exact)
    return position - first == Random(f"review/{stratum}").randrange(after - first)
