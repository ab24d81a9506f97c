"""The control `shuffled:NAME`: the problems of another task, each with the answer of another problem."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from r1kit.data.errors import DataError
from r1kit.tasks.base import Listed, Task, iterate
from r1kit.tasks.sources.source import Source
from r1kit.types import Problem

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec

PREFIX = "shuffled:"


class ShuffledSource(Source):
    """Any task of another source, with its answers shuffled by the spec's seed."""

    kind = "shuffled"
    ignores = ()

    def claims(self, name: str) -> bool:
        return name.startswith(PREFIX)

    def unused(self, spec: TaskSpec) -> tuple[str, ...]:
        inner = _inner(spec)
        return inner.source.unused(inner)

    def load(self, spec: TaskSpec, split: str) -> Task:
        inner = _inner(spec)
        problems = tuple(iterate(inner.source.load(inner, split)))
        return Listed(name=spec.name, problems=shuffled(problems, f"{spec.name}/{spec.seed}"))

    def files(self, spec: TaskSpec) -> list[Path]:
        inner = _inner(spec)
        return inner.source.files(inner)

    def benchmark(self, spec: TaskSpec, split: str) -> str | None:
        inner = _inner(spec)
        return inner.source.benchmark(inner, split)


def _inner(spec: TaskSpec) -> TaskSpec:
    return spec.replace(name=spec.name.removeprefix(PREFIX))


def shuffled(problems: Sequence[Problem], seed: str) -> tuple[Problem, ...]:
    """The problems in their order, each with the answer, solution and columns of another one.

    Answers stay among problems of one verifier and source, so all are of the right kind; a problem that is alone there
    takes part with the others of its verifier. No answer stays where it was, but the one that comes may be equal by
    chance: if it had to differ, the reward would tell which answer is wrong. Problems without an answer stay as they
    are. Raises `DataError` if a verifier has a single problem.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for place, problem in enumerate(problems):
        if problem.answer:
            groups.setdefault((problem.verifier, problem.source), []).append(place)
    for key in [key for key, places in groups.items() if len(places) == 1]:
        others = [other for other in groups if other[0] == key[0] and other != key]
        if not others:
            alone = problems[groups[key][0]].id
            raise DataError(
                "empty", f"{alone} is the only problem of verifier {key[0]!r}: its answer has no other place"
            )
        groups[others[0]] += groups.pop(key)
    result = list(problems)
    for key, places in groups.items():
        order = list(places)
        rng = random.Random(f"shuffled/{seed}/{'/'.join(key)}")
        for last in range(len(order) - 1, 0, -1):  # Sattolo: one cycle through all places, so none keeps its own
            other = rng.randrange(last)
            order[last], order[other] = order[other], order[last]
        for place, giver in zip(places, order, strict=True):
            own, taken = problems[place], problems[giver]
            prompt = {name: own.columns[name] for name in ("prompt",) if name in own.columns}
            columns = {**taken.columns, **prompt}
            result[place] = replace(own, answer=taken.answer, solution=taken.solution, columns=columns)
    return tuple(result)
