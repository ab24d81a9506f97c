"""The gain of a trained model, split by its control arms: learned, format, leaked, chance.

All parts are differences of pass@1. docs/guides/controls.md says what each of them can and cannot show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from r1kit import chat
from r1kit.evaluate.intervals import critical, standard_error, two_sided, wilson
from r1kit.evaluate.statistics import Difference, difference, holm
from r1kit.evaluate.table import align, show_difference, show_p
from r1kit.verifiers.number_verifier import verify_last_number

Row = Mapping[str, Any]  # of completions.jsonl
Values = Mapping[str, float]  # by problem

SIGNIFICANT = 0.05  # family-wise: over the parts of one gain
MATERIAL = 0.02  # smaller parts are not named, however certain they are
UNTAUGHT = ("random", "format", "shuffled")  # arms whose rewards do not say which answer is right
TITLES = {
    "learned": "learned",
    "format": "format",
    "leaked": "leaked",
    "chance": "chance",
    "agreed": "agreed by majority",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a gain: `minus` is what was subtracted from what. `p_holm` is corrected over the parts."""

    title: str
    minus: str
    difference: Difference
    p_holm: float

    @property
    def is_named(self) -> bool:
        """Whether it is a cause of the gain: above zero, by more than chance between problems, and not negligible."""
        return self.p_holm < SIGNIFICANT and self.difference.mean >= MATERIAL


@dataclass(frozen=True, slots=True, kw_only=True)
class GainSplit:
    """The gain, trained minus base, and its parts by name.

    `control`: the base or the arm without right answers that reaches the most, so that gain = learned + (control -
    base). `unread`: share of the base's answers that are right if the last number anywhere counts, but that the
    verifier does not find.
    """

    gain: Difference
    control: str
    accuracy: Mapping[str, float]
    parts: Mapping[str, Part]
    unread: float

    @property
    def named(self) -> list[str]:
        return [name for name, part in self.parts.items() if part.is_named]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in `summary.json`."""
        return {**asdict(self), "named": self.named}

    def rows(self) -> list[list[str]]:
        """The table as text: the gain and its parts."""
        lines = [["gain", "trained - base", show_difference(self.gain, "pass@1"), show_p(self.gain.p_value)]]
        for part in self.parts.values():
            title = f"{part.title}{' *' if part.is_named else ''}"
            lines.append([title, part.minus, show_difference(part.difference, "pass@1"), show_p(part.p_holm)])
        return [["", "difference", "points", "p"], *lines]

    def text(self, title: str) -> str:
        levels = ", ".join(f"{name} {100 * value:.1f} %" for name, value in self.accuracy.items())
        note = f"pass@1 of {title} and its controls: {levels}\n* named: p < 0.05 after Holm's correction"
        return f"{align(self.rows())}\n\n{note}, and at least {100 * MATERIAL:.0f} points"


def split_gain(
    base: Sequence[Row], trained: Sequence[Row], arms: Mapping[str, Sequence[Row]], fresh: Sequence[Row] = ()
) -> GainSplit:
    """Split a gain by the rows of completions of all models, on the same problems.

    `fresh`: the base on problems of the same kind that no model can have seen. Raises ValueError if an arm was measured
    on other problems.
    """
    before, after = strict(base), strict(trained)
    values = {name: strict(rows) for name, rows in arms.items()}
    for name, each in {"trained": after, **values}.items():
        if not before.keys() & each.keys():
            raise ValueError(f"{name} has no judged problem in common with the base: measure all on the same problems")
    untaught = {"base": before, **{name: values[name] for name in UNTAUGHT if name in values}}
    control = max(untaught, key=lambda name: fmean(untaught[name].values()))
    parts = {"learned": ("trained", control, _learned(after, untaught, control))}
    if "format" in values:
        parts["format"] = ("format arm", "base", paired(before, values["format"]))
    known = lenient(base)
    if unseen := lenient(fresh):
        parts["leaked"] = ("base, last numbers", "base, last numbers of fresh problems", unpaired(unseen, known))
    elif "shuffled" in values:
        less = "format" if "format" in values and fmean(values["format"].values()) > fmean(before.values()) else "base"
        parts["leaked"] = ("shuffled arm", less, paired({"base": before, **values}[less], values["shuffled"]))
    if "random" in values:
        parts["chance"] = ("random arm", "base", paired(before, values["random"]))
    if "majority" in values:
        parts["agreed"] = ("majority arm", "base", paired(before, values["majority"]))
    corrected = holm([change.p_value for _, _, change in parts.values()])
    return GainSplit(
        gain=paired(before, after),
        control=control,
        accuracy={name: fmean(each.values()) for name, each in {**untaught, **values, "trained": after}.items()},
        parts={
            name: Part(title=TITLES[name], minus=f"{more} - {less}", difference=change, p_holm=p)
            for (name, (more, less, change)), p in zip(parts.items(), corrected, strict=True)
        },
        unread=fmean(known[name] - before[name] for name in before),
    )


def _learned(after: Values, untaught: Mapping[str, Values], control: str) -> Difference:
    """Trained minus the best control. The p-value is the largest over all controls: to be above the best one is to be
    above each (an intersection-union test), so choosing it needs no correction."""
    p_value = max(
        change.p_value if change.mean > 0 else 1.0 for change in (paired(values, after) for values in untaught.values())
    )
    return replace(paired(untaught[control], after), p_value=p_value)


def strict(rows: Sequence[Row]) -> dict[str, float]:
    """pass@1 by problem, as the verifier judged; problems without a verdict are left out."""
    return _by_problem([(row["problem_id"], row["correct"]) for row in rows])


def lenient(rows: Sequence[Row]) -> dict[str, float]:
    """As `strict`, and the last number of the whole response counts too, wherever it is."""
    return _by_problem(
        [(row["problem_id"], None if row["correct"] is None else row["correct"] or ends_right(row)) for row in rows]
    )


def ends_right(row: Row) -> bool:
    """Whether the last number of the response, without its tags, is the reference."""
    text = row["completion"]
    for tag in chat.TAGS:
        text = text.replace(tag, " ")
    return verify_last_number(text, row["answer"]).correct is True


def _by_problem(pairs: Sequence[tuple[str, bool | None]]) -> dict[str, float]:
    groups: dict[str, list[bool]] = {}
    for name, value in pairs:
        if value is not None:
            groups.setdefault(name, []).append(value)
    return {name: fmean(group) for name, group in groups.items()}


def paired(before: Values, after: Values) -> Difference:
    """After minus before on the problems of both."""
    return difference("pass@1", [after[name] - before[name] for name in before if name in after])


def unpaired(before: Values, after: Values) -> Difference:
    """After minus before on different problems (Welch's t test).

    Without spread on either side that test would be certain. Then the interval is that of two shares (Newcombe 1998,
    method 10), and the p-value the chance that a random division of all problems separates the two values.
    """
    sides = [list(before.values()), list(after.values())]
    mean, problems = fmean(sides[1]) - fmean(sides[0]), len(sides[1])
    if min(map(len, sides)) < 2:
        return Difference(mean=mean, low=None, high=None, p_value=1.0, problems=problems)
    variances = [standard_error(side) ** 2 for side in sides]
    total = math.fsum(variances)
    if total < 1e-24:
        return _without_spread([(side[0], len(side)) for side in sides])
    # Welch and Satterthwaite's degrees of freedom
    df = max(1, int(total**2 / math.fsum(v**2 / (len(s) - 1) for v, s in zip(variances, sides, strict=True))))
    margin = critical(df) * math.sqrt(total)
    return Difference(
        mean=mean,
        low=max(-1.0, mean - margin),
        high=min(1.0, mean + margin),
        p_value=two_sided(mean / math.sqrt(total), df),
        problems=problems,
    )


def _without_spread(sides: Sequence[tuple[float, int]]) -> Difference:
    """The difference of two values, each of all the problems on its side: (value, problems)."""
    (before, first), (after, second) = sides
    mean = after - before
    below, above = wilson(before, first, critical(first - 1)), wilson(after, second, critical(second - 1))
    return Difference(
        mean=mean,
        low=mean - math.hypot(after - above[0], below[1] - before),
        high=mean + math.hypot(above[1] - after, before - below[0]),
        p_value=1.0 if abs(mean) < 1e-12 else min(1.0, 2 / math.comb(first + second, first)),
        problems=second,
    )
