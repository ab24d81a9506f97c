"""Rows of `step_hashes.jsonl` (`train.step_hashes` writes them), and the first place at which two of them differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from r1kit.data.errors import DataError
from r1kit.data.jsonl import read_rows

FILE = "step_hashes.jsonl"
SAMPLED = ("prompts", "sampled", "logprobs", "rewards", "advantages", "rows")  # in the order of a step
UPDATED = ("gradient", "weights")  # of each update in turn
UNITS = dict.fromkeys(SAMPLED[:-1], "completion") | {"rows": "batch"} | dict.fromkeys(UPDATED, "update")
Steps = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Difference:
    """The step and the tensor at which two runs part. `places` are the completions or updates that differ, from 0; if
    there are none, one run has more of them. `count`: of how many."""

    step: int
    tensor: str
    places: tuple[int, ...]
    count: int

    def __str__(self) -> str:
        if not self.step:
            return f"the start: the {self.tensor} before the first step differ"
        if not self.places:
            return f"step {self.step}, {self.tensor}: their numbers differ"
        of = f"; {len(self.places)} of {self.count} differ" if self.count > 1 else ""
        return f"step {self.step}, {self.tensor}, {UNITS[self.tensor]} {self.places[0]}{of}"


def read_steps(stage: Path) -> dict[int, dict[str, Any]]:
    """The rows of a stage by step; empty for a stage of an older version. Raises `DataError` for any other row."""
    steps = {}
    for number, row in enumerate(read_rows(stage / FILE, missing_ok=True), 1):
        hashes = [row[tensor] for tensor in (*SAMPLED, *UPDATED) if tensor in row]
        counts = [row[name] for name in ("step", "ranks", "sequence_devices", "sharded", "threads") if name in row]
        if "step" not in row or not all(type(count) is int for count in counts) or not all(map(_is_hashes, hashes)):
            reason = "not what a step leaves: the file was damaged or edited; restore it, or delete the row"
            raise DataError("wrong type", reason, str(stage / FILE), number)
        steps[row["step"]] = row
    return steps


def _is_hashes(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def first_difference(one: Steps, other: Steps, steps: Iterable[int]) -> Difference | None:
    """The first step, and its first tensor, of which two runs have different hashes.

    Hashes of rows and of updates of sharded weights are those of the first rank's part, so they are compared only if
    both steps had as many ranks, and as many for each row, and sharded the weights or did not.
    """
    for step in steps:
        differing = [
            Difference(step, tensor, tuple(places), max(map(len, hashes)))
            for tensor in (*SAMPLED, *UPDATED)
            if (tensor in SAMPLED[:-1] or sharing_of(one[step]) == sharing_of(other[step]))
            and (hashes := [row[step].get(tensor, []) for row in (one, other)])[0] != hashes[1]
            for places in [[place for place, (a, b) in enumerate(zip(*hashes, strict=False)) if a != b]]
        ]
        sampled = [each for each in differing if each.tensor in SAMPLED]
        if differing:  # an update's gradient comes before its weights, and after the weights of the update before
            return sampled[0] if sampled else min(differing, key=lambda each: each.places[:1] or (each.count,))
    return None


class Sharing(NamedTuple):
    """How many ranks shared a step, how many of them each row, and whether they sharded the weights."""

    ranks: int
    row_ranks: int
    sharded: bool

    def __str__(self) -> str:
        details = [f"{self.row_ranks} for each row"] * (self.row_ranks > 1)
        details += ["with whole weights"] * (self.ranks > 1 and not self.sharded)
        return f"{self.ranks}" + f" ({', '.join(details)})" * bool(details)


def sharing_of(row: Mapping[str, Any]) -> Sharing:
    """The devices of a step; a row that does not say whether weights were sharded is older than the choice."""
    count = int(row.get("ranks", 1))
    return Sharing(count, int(row.get("sequence_devices", 1)), bool(row.get("sharded", count > 1)))
