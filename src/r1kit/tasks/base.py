"""The interface of a task, and the task that holds its problems in memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from r1kit.data.errors import DataError
from r1kit.types import Problem


class Task(Protocol):
    """A lazy sequence of problems: `task[17]` depends on the task's name and on 17, never on earlier accesses."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Problem: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Problems in memory, in file order; files and hub data sets become these.

    `skipped` has the faulty rows. `reading` says how the columns were understood if no mapping names them.
    """

    name: str
    problems: tuple[Problem, ...]
    skipped: tuple[DataError, ...] = ()
    reading: str = ""

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int) -> Problem:
        return self.problems[index]

    def easiest(self) -> Listed:
        """Sorted by the number of digits in the reference solution, then by its length.

        Little calculation is the best sign of an easy problem that needs no model. Raises `DataError` if a problem has
        no solution.
        """

        def work(problem: Problem) -> tuple[int, int]:
            solution = solution_of(problem, "order 'easiest'")
            return sum(char.isdigit() for char in solution), len(solution)

        return replace(self, problems=tuple(sorted(self.problems, key=work)))

    def shuffled(self, seed: int) -> Listed:
        """In an order that depends on name, length and seed; sets are often sorted by topic or difficulty."""
        order = random.Random(f"{self.name}/{seed}").sample(self.problems, len(self.problems))
        return replace(self, problems=tuple(order))

    def first(self, limit: int) -> Listed:
        """The first `limit` problems, or all if there are fewer."""
        return replace(self, problems=self.problems[:limit])


def solution_of(problem: Problem, wanted_by: str) -> str:
    """The worked reference solution; raises `DataError` if there is none."""
    if not problem.solution:
        raise DataError("missing column", f"{problem.id} has no reference solution: {wanted_by} needs one")
    return problem.solution


def say_readings(task: Task, say: Callable[[str], None]) -> None:
    """Say how the columns of a task and its members were understood, unless a mapping names them, and which rows were
    left out."""
    for member in getattr(task, "members", (task,)):
        if reading := getattr(member, "reading", ""):
            say(reading)
        if skipped := getattr(member, "skipped", ()):
            rows = f"{len(skipped)} {'row is' if len(skipped) == 1 else 'rows are'} faulty and left out"
            say(f"{member.name}: {rows}; the first: {skipped[0]}")


def iterate(task: Task) -> Iterator[Problem]:
    """Every problem of a task once, in order."""
    return (task[index] for index in range(len(task)))


def position(index: int, length: int) -> int:
    """An index as a position from 0; raises IndexError outside the task (which also ends a `for` loop over it)."""
    if not -length <= index < length:
        raise IndexError(f"index {index} is outside a task of {length} problems")
    return index % length
