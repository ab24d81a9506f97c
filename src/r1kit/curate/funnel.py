"""The funnel: the rows into and out of each step, and the reasons for those it dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One dropped row: `Example(id="p1#3", problem_id="p1", reason="loop", detail="9 times ...", text="so so ...")`."""

    id: str
    problem_id: str
    reason: str
    detail: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """Rows into and out of a step, counts of the dropped ones by reason, and some examples."""

    name: str
    rows_in: int
    rows_out: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()

    @property
    def share(self) -> float | None:
        """Rows out over rows in; None if there were none."""
        return self.rows_out / self.rows_in if self.rows_in else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "examples": [asdict(example) for example in self.examples], "share": self.share}


class Drop(NamedTuple):
    """A dropped row: the step, the counted reason, and the row number."""

    step: str
    reason: str
    row: int


def count(steps: Sequence[str], rows: int, drops: Iterable[Drop], examples: int) -> tuple[list[FunnelStep], list[Drop]]:
    """The funnel without examples, and the rows to show as examples: the first few of each reason."""
    reasons: dict[str, Counter[str]] = {step: Counter() for step in steps}
    examples_of: list[Drop] = []
    for drop in drops:
        reasons[drop.step][drop.reason] += 1
        if reasons[drop.step][drop.reason] <= examples:
            examples_of.append(drop)
    funnel = []
    for step in steps:
        left = rows - reasons[step].total()
        funnel.append(FunnelStep(name=step, rows_in=rows, rows_out=left, reasons=dict(reasons[step].most_common())))
        rows = left
    return funnel, examples_of
