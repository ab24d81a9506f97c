"""Several tasks as one: by weight for training, end to end for evaluation."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from r1kit.tasks.base import Task, position
from r1kit.types import Problem

PERIOD = 1000  # weights are rounded to a thousandth; they hold exactly per period, within one problem at any point


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Members interleaved by weight: item i is a function of i alone, and an exhausted member starts again.

    An epoch (`len`) is as long as all members together. For each place in a period, `pattern` is the index of the
    member and `turns` the number of its turns before this one; `quotas` is the number of turns per member and period.
    """

    name: str
    members: tuple[Task, ...]
    pattern: tuple[int, ...]
    turns: tuple[int, ...]
    quotas: tuple[int, ...]

    def __len__(self) -> int:
        return sum(len(member) for member in self.members)

    def __getitem__(self, index: int) -> Problem:
        period, place = divmod(position(index, len(self)), PERIOD)
        who = self.pattern[place]
        member = self.members[who]
        return member[(period * self.quotas[who] + self.turns[place]) % len(member)]


def mix(members: Sequence[Task], weights: Sequence[float]) -> Mixture:
    """A mixture in the proportions of the weights; raises ValueError for invalid weights or empty members."""
    if not members or len(members) != len(weights):
        counts = f"{len(members)} tasks and {len(weights)} weights"
        raise ValueError(f"{counts}: give one weight for each of 1 or more tasks")
    if any(not 0 < weight < float("inf") for weight in weights):
        raise ValueError(f"weights are {list(weights)}: each must be above 0 and finite")
    if empty := [member.name for member in members if not len(member)]:
        raise ValueError(f"{', '.join(empty)} has no problems: leave it out of the mixture")
    quotas = apportion(weights)
    pattern = interleave(quotas)
    seen = [0] * len(members)
    turns = []
    for who in pattern:
        turns.append(seen[who])
        seen[who] += 1
    name = "+".join(member.name for member in members)
    return Mixture(name=name, members=tuple(members), pattern=pattern, turns=tuple(turns), quotas=quotas)


def apportion(weights: Sequence[float]) -> tuple[int, ...]:
    """Turns in a period by largest remainder, at least one each: `apportion([2, 1]) == (667, 333)`."""
    if len(weights) > PERIOD:
        raise ValueError(f"{len(weights)} tasks: a mixture takes at most {PERIOD}")
    total = sum(weights)
    exact = [weight / total * PERIOD for weight in weights]
    quotas = [max(1, int(share)) for share in exact]
    while sum(quotas) < PERIOD:
        most_owed = max(range(len(quotas)), key=lambda who: exact[who] - quotas[who])
        quotas[most_owed] += 1
    while sum(quotas) > PERIOD:
        several = [who for who in range(len(quotas)) if quotas[who] > 1]
        most_paid = max(several, key=lambda who: quotas[who] - exact[who])
        quotas[most_paid] -= 1
    return tuple(quotas)


def interleave(quotas: Sequence[int]) -> tuple[int, ...]:
    """The members' turns, spread evenly: the member furthest behind its share goes next."""
    length = sum(quotas)
    owed = [0] * len(quotas)
    pattern = []
    for _ in range(length):
        owed = [debt + quota for debt, quota in zip(owed, quotas, strict=True)]
        who = max(range(len(quotas)), key=owed.__getitem__)
        owed[who] -= length
        pattern.append(who)
    return tuple(pattern)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Members end to end, every problem once; evaluation of several sets runs over this."""

    members: tuple[Task, ...]

    @property
    def name(self) -> str:
        return "+".join(member.name for member in self.members)

    def __len__(self) -> int:
        return sum(len(member) for member in self.members)

    def __getitem__(self, index: int) -> Problem:
        place = position(index, len(self))
        ends = list(accumulate(len(member) for member in self.members))
        who = bisect_right(ends, place)
        return self.members[who][place - (ends[who - 1] if who else 0)]
