"""The metrics of a stage that trains, in columns."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import Any

from r1kit.numeric import finite, is_number

Points = list[tuple[float, float]]  # (step, value)


class Metrics:
    """The numbers in the rows of `metrics.jsonl`, one column per metric, in the order of the steps.

    If a step was repeated after a resume, its later row counts. Rows without a step, and texts, are left out. A value
    takes 8 bytes, a fifth of what it takes in a row: a stage reads its own metrics again and again while it trains.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.steps: list[float] = []
        self._columns: dict[str, array[float]] = {}  # NaN: no number in that row; infinity: one that is not finite
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        step = row.get("step")
        if not is_number(step) or finite(step) is None:
            return
        place = self._place(step)
        for name, value in row.items():
            if name == "step" or not (value is None or is_number(value)):
                continue
            if name not in self._columns:
                self._columns[name] = array("d", [math.nan]) * len(self.steps)
            number = finite(value)
            self._columns[name][place] = math.inf if number is None else number

    def _place(self, step: float) -> int:
        """The place of an empty row for this step."""
        place = bisect_left(self.steps, step)
        if self.steps[place : place + 1] == [step]:
            for column in self._columns.values():
                column[place] = math.nan
        else:
            self.steps.insert(place, step)
            for column in self._columns.values():
                column.insert(place, math.nan)
        return place

    def copy(self) -> Metrics:
        other = Metrics()
        other.steps, other._columns = self.steps[:], {name: column[:] for name, column in self._columns.items()}
        return other

    def __bool__(self) -> bool:
        return bool(self.steps)

    def names(self) -> list[str]:
        """In order of appearance."""
        return [*self._columns]

    def series(self, metric: str) -> Points:
        """(step, value) of every step with a finite value; empty if the metric was not logged."""
        column = self._columns.get(metric, ())
        return [(step, value) for step, value in zip(self.steps, column, strict=False) if math.isfinite(value)]

    def values(self, metric: str) -> list[float]:
        """The finite values, in the order of the steps."""
        return [value for value in self._columns.get(metric, ()) if math.isfinite(value)]

    def not_finite(self) -> list[float]:
        """Steps with a value that is not finite. JSON has no infinity and no NaN: such values are stored as null."""
        places = {
            place
            for column in self._columns.values()
            if math.inf in column
            for place, value in enumerate(column)
            if value == math.inf
        }
        return [self.steps[place] for place in sorted(places)]
