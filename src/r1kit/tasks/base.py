"""The interface of a task, and the task that holds its problems in memory."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from r1kit.data.errors import DataError
from r1kit.types import Problem

CALCULATION = re.compile(r"(?<![\d.,])(\d+)\s*([-+*x×/÷])\s*\$?(\d+)\s*=\s*\$?(?P<result>\d+)(?![\d,]|\.\d)")


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

    def calculations(self) -> Listed:
        """The calculations of the reference solutions as problems of their own: `She sold 48 / 2 = ? clips in May.`

        One step is easier than the whole problem: a start for a model that solves too few whole problems to learn from
        them. Each line with one true equation of two whole numbers becomes a problem. Raises `DataError` if a problem
        has no solution, or if there is no such line.
        """
        steps: list[Problem] = []
        for problem in self.problems:
            for number, line in enumerate(_solution(problem, "calculations").splitlines()):
                matches = list(CALCULATION.finditer(line))
                if line.count("=") == len(matches) == 1 and _is_true(matches[0]):
                    start, end = matches[0].span("result")
                    prompt, answer = f"{line[:start]}?{line[end:]}".strip(), matches[0]["result"]
                    name = f"{problem.id}/{number}"
                    steps.append(replace(problem, id=name, prompt=prompt, answer=answer, solution=line))
        if self.problems and not steps:
            raise DataError("empty", f"no solution of {self.name} has a line with one calculation, such as 48 / 2 = 24")
        return replace(self, problems=tuple(steps))

    def easiest(self) -> Listed:
        """Sorted by the number of digits in the reference solution, then by its length.

        Little calculation is the best sign of an easy problem that needs no model. Raises `DataError` if a problem has
        no solution.
        """

        def work(problem: Problem) -> tuple[int, int]:
            solution = _solution(problem, "order 'easiest'")
            return sum(char.isdigit() for char in solution), len(solution)

        return replace(self, problems=tuple(sorted(self.problems, key=work)))

    def shuffled(self, seed: int) -> Listed:
        """In an order that depends on name, length and seed; sets are often sorted by topic or difficulty."""
        order = random.Random(f"{self.name}/{seed}").sample(self.problems, len(self.problems))
        return replace(self, problems=tuple(order))

    def first(self, limit: int) -> Listed:
        """The first `limit` problems, or all if there are fewer."""
        return replace(self, problems=self.problems[:limit])


def _solution(problem: Problem, wanted_by: str) -> str:
    if not problem.solution:
        raise DataError("missing column", f"{problem.id} has no reference solution: {wanted_by} needs one")
    return problem.solution


def _is_true(calculation: re.Match[str]) -> bool:
    """Also false for the end of a longer calculation, which reads as a wrong one: `1/3 * 6 = 2`."""
    left, right, result = int(calculation[1]), int(calculation[3]), int(calculation["result"])
    if calculation[2] in "/÷":
        return right > 0 and left == right * result
    return result == {"+": left + right, "-": left - right}.get(calculation[2], left * right)


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
