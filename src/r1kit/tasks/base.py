"""What a task is, the task that holds a list, and the one error that names file, row and field."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from r1kit.types import Problem


class Task(Protocol):
    """A lazy sequence of problems: `task[17]` depends on the task's name and on 17, never on what was asked before."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Problem: ...


class TaskError(ValueError):
    """Data that cannot be used; `kind` is a short class of fault, `row` counts from 1, and the message has it all."""

    def __init__(
        self, kind: str, reason: str, file: str | None = None, row: int | None = None, field: str | None = None
    ) -> None:
        self.kind, self.reason, self.file, self.row, self.field = kind, reason, file, row, field
        place = ", ".join(
            f"{word}{value}" for word, value in (("", file), ("row ", row), ("field ", field)) if value is not None
        )
        super().__init__(f"{place}: {reason}" if place else reason)

    def __reduce__(self) -> tuple[type[TaskError], tuple[Any, ...]]:
        """Errors cross process borders by pickle, which would pass the message alone."""
        return TaskError, (self.kind, self.reason, self.file, self.row, self.field)

    def at(self, file: str, row: int | None = None, field: str | None = None) -> TaskError:
        """The same fault with its place filled in."""
        return TaskError(self.kind, self.reason, file=file, row=row, field=self.field or field)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON: kind, file, row, field and reason."""
        return {"kind": self.kind, "file": self.file, "row": self.row, "field": self.field, "reason": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Problems held in memory, in file order: what files and hub data sets become.

    `skipped` is what was left out, and why.
    """

    name: str
    problems: tuple[Problem, ...]
    skipped: tuple[TaskError, ...] = ()

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int) -> Problem:
        return self.problems[index]

    def with_steps_given(self, left: int) -> Listed:
        """The first steps (lines) of the reference solution stand in the prompt, and the last `left` are still to do.

        A start near the end gives a weak model right answers to learn from: the reverse curriculum of R3 (Xi et al.
        2024). Problems of `left` steps or fewer stay as they are; raises `TaskError` where one has no solution.
        """
        return replace(self, problems=tuple(replace(one, prompt=_begun(one, left)) for one in self.problems))

    def easiest(self) -> Listed:
        """Fewest digits in the reference solution first: the least to calculate; shorter solutions first among equals.

        The best guess at ease that needs no model. Raises `TaskError` where a problem has no solution in its metadata.
        """

        def work(problem: Problem) -> tuple[int, int]:
            solution = _solution(problem, "order 'easiest'")
            return sum(char.isdigit() for char in solution), len(solution)

        return replace(self, problems=tuple(sorted(self.problems, key=work)))

    def shuffled(self, seed: int) -> Listed:
        """Another order, the same for the same name, length and seed; sets are often sorted by topic or difficulty."""
        order = random.Random(f"{self.name}/{seed}").sample(self.problems, len(self.problems))
        return replace(self, problems=tuple(order))

    def first(self, limit: int) -> Listed:
        """The first `limit` problems, or all where there are fewer."""
        return replace(self, problems=self.problems[:limit])


def _solution(problem: Problem, wanted_by: str) -> str:
    solution = problem.metadata.get("solution")
    if not isinstance(solution, str):
        raise TaskError("missing column", f"{problem.id} has no reference solution: {wanted_by} needs one")
    return solution


def _begun(problem: Problem, left: int) -> str:
    lines = [line for line in _solution(problem, "steps_left").splitlines() if line.strip()]
    given = lines[: max(0, len(lines) - left)]
    return "\n".join([problem.prompt, *given])


def iterate(task: Task) -> Iterator[Problem]:
    """Every problem of a task once, in order."""
    return (task[index] for index in range(len(task)))


def position(index: int, length: int) -> int:
    """An index as a position from 0; raises IndexError outside the task, which also ends a `for` loop over it."""
    if not -length <= index < length:
        raise IndexError(f"index {index} is outside a task of {length} problems")
    return index % length
