r"""One answer against one reference by their shapes: part by part, and only single values are computed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from r1kit.types import Verdict
from r1kit.verifiers import number, prose, units
from r1kit.verifiers.math import shapes
from r1kit.verifiers.math.expressions import expression, formulas
from r1kit.verifiers.math.readings import INFINITE, WRAPPED, base, tidy, wording
from r1kit.verifiers.math.shapes import Equation, Group, Inequality, Matrix, Scalar, Shape

_PRIME = re.compile(r"'|\\prime(?![A-Za-z])")
_COMMANDS = re.compile(r"\\[A-Za-z]+")
_FREE = re.compile(r"[A-Za-z]")
_SPACED_LETTER = re.compile(r"\s[A-Za-z]$")
_ORDERED = re.compile(  # points in their order, not factors: \angle ABC is not \angle ACB
    r"(?:\\?(angle|triangle|overline|segment|line)(?![a-z]))?\s*\{?\s*([A-Z]{2,})\s*\}?"
)
_MONEY = re.compile(r"\\\$(?=\d)")
_COUNTED = re.compile(r"(?<![\w.\\])(\d[\d,.]*)\s+([a-z]{3,})(?=\s*(?:[-+*/=]|\\times|\\cdot|\\div|$))")
_MAX_COMPARISONS = 40  # in one verdict: a list against a list takes one for each pair that might match

Ask = Callable[[str | None, str, str], Verdict]  # prediction, reference and kind, as the worker takes them


class Unknown(Exception):
    """The verdict is "cannot tell", for the reason given."""


def need(verdict: Verdict) -> None:
    """Raise `Unknown` where a verdict is None."""
    if verdict.correct is None:
        raise Unknown(verdict.detail)


class Comparison:
    """One prediction against one usable reference; counts what it asks of workers."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self._asked, self._own, self.detail = ask, 0, False, ""

    def answer(self, prediction: str, target: Shape) -> tuple[bool, str]:
        """Whether the answer is the target, and why."""
        if isinstance(target, Scalar) and (same := _as_numbers(prediction, target.text)) is not None:
            return same, "as numbers"
        text = formulas(prediction)
        if text is None:
            return False, "the answer does not commit to one value"
        if isinstance(target, Group):
            text = units.split(text)[0]
        given = _only(shapes.parse(text), target)
        same = self.same(given, target)
        return same, self.detail or ("equal" if same else f"a {_kind(given)}, not the {_kind(target)}")

    def same(self, given: Shape, expected: Shape) -> bool:
        """Whether two shapes are equal, part by part."""
        match given, expected:
            case Equation(), Equation():
                return self._equations(given, expected)
            case Equation(), _:
                return self._holds(given) and self.same(_only(shapes.parse(given.sides[-1]), expected), expected)
            case _, Equation(name=str()):
                return self.same(given, shapes.parse(expected.sides[-1]))
            case Group(), Group():
                return self._groups(given, expected)
            case Matrix(), Matrix():
                return self._rows(given, expected)
            case Scalar(), Scalar():
                return self._scalars(given.text, expected.text)
            case Inequality(), Inequality():
                return given == expected
        return False

    def _equations(self, given: Equation, expected: Equation) -> bool:
        if (given.name and given.name == expected.name) or (
            given.name and not expected.name and len(expected.sides) < 2
        ):
            return self._holds(given) and self.same(shapes.parse(given.sides[-1]), shapes.parse(expected.sides[-1]))
        if "(" in (given.name or "") + (expected.name or ""):  # f(2) = 3 is not f(3) = 3
            return False
        whole = ["=".join(([side.name] if side.name else []) + list(side.sides)) for side in (given, expected)]
        if any(text.count("=") != 1 or expression(text.replace("=", "+")) is None for text in whole):
            return False
        return self._algebra(whole[0], whole[1], "equation")

    def _holds(self, equation: Equation) -> bool:
        """Whether a chain of sides is one value: `2+3=5` is, `x+1=5` and `12=13` are not."""
        if len(equation.sides) > 4:
            return False
        self._own = True  # both sides are the prediction's: if one cannot be used, that is no fault of the reference
        sides = [_COUNTED.sub(_without_noun, _MONEY.sub("", side)) for side in equation.sides[:-1]]
        sides.append(equation.sides[-1])
        holds = all(self.same(shapes.parse(left), shapes.parse(right)) for left, right in pairwise(sides))
        self._own = False
        if not holds:
            self.detail = "the answer is an equation that does not name a value, or does not hold"
        return holds

    def _groups(self, given: Group, expected: Group) -> bool:
        if given.name and expected.name and given.name != expected.name:
            return False
        brackets = given.opening + given.closing, expected.opening + expected.closing
        if "uu" in brackets:
            return self._unions(given, expected)
        loose = {"", "{}"}
        if brackets[0] in loose and brackets[1] in loose:
            distinct = "{}" in brackets
            return self._unordered(given.items, expected.items, distinct=distinct)
        if len(given.items) != len(expected.items):
            return False
        if brackets[0] != brackets[1] and not (set(brackets) <= {"", "()"} or len(given.items) > 2):
            return False
        if "{}" in brackets:
            return False
        return all(self.same(one, other) for one, other in zip(given.items, expected.items, strict=True))

    def _unions(self, given: Group, expected: Group) -> bool:
        if given.opening == expected.opening and self._unordered(given.items, expected.items, distinct=True):
            return True
        texts = [_set_text(one) for one in (given, expected)]
        return None not in texts and self._algebra(str(texts[0]), str(texts[1]), "set")

    def _unordered(self, given: Sequence[Shape], expected: Sequence[Shape], *, distinct: bool) -> bool:
        """Whether two collections hold the same, each as often (or, where `distinct`, at all).

        Equality carries over, so the first partner that fits is as good as any.
        """
        if distinct:
            return all(any(self.same(one, other) for other in expected) for one in given) and all(
                any(self.same(other, one) for other in given) for one in expected
            )
        if len(given) != len(expected):
            return False
        left = list(expected)
        for one in given:
            partner = next((place for place, other in enumerate(left) if self.same(one, other)), None)
            if partner is None:
                return False
            left.pop(partner)
        return True

    def _rows(self, given: Matrix, expected: Matrix) -> bool:
        if [len(row) for row in given.rows] != [len(row) for row in expected.rows]:
            return False
        pairs = zip(given.rows, expected.rows, strict=True)
        return all(self.same(a, b) for row, other in pairs for a, b in zip(row, other, strict=True))

    def _scalars(self, given: str, expected: str) -> bool:
        if tidy(given) == tidy(expected):
            return True
        if WRAPPED.search(given) and wording(given) == wording(expected):
            return True
        if points := _ORDERED.fullmatch(expected):
            mine = _ORDERED.fullmatch("".join(WRAPPED.sub(r"\1", given).split()))
            return bool(mine and mine[2] == points[2] and (mine[1] or points[1]) == (points[1] or mine[1]))
        if wanted := base(expected):
            return (base(given) or (given.lstrip("0"), wanted[1])) == wanted
        if base(given):
            return False
        if (same := _as_numbers(given, expected)) is not None:
            self.detail = "as numbers"
            return same
        core, unit = _split(expected, given)
        mine_core, mine_unit = _split(given, expected)
        factor = units.agree(mine_unit, unit)
        if factor is None:
            self.detail = "another unit than the reference"
            return False
        plain = number.parse(mine_core)
        if unit.powers and plain and plain.percent:
            return False
        return self._values(mine_core, core, factor)

    def _values(self, given: str, expected: str, factor: Fraction) -> bool:
        numbers = number.parse_in_prose(given), number.of_reference(expected)
        if numbers[0] is not None and numbers[1] is not None:
            self.detail = "as numbers"
            return number.equal(replace(numbers[0], value=numbers[0].value * factor), numbers[1])
        endless = INFINITE.fullmatch(given), INFINITE.fullmatch(expected)
        if endless[0] or endless[1]:
            return bool(endless[0] and endless[1] and (endless[0][1] == "-") == (endless[1][1] == "-"))
        readable = expression(given)
        if readable is None:
            self.detail = "the answer is no expression that can be computed"
            return False
        if factor != 1:
            readable = f"({factor})*({readable})"
        if numbers[1] is not None:  # as the parser reads it: no separators, no percent
            expected = f"\\frac{{{numbers[1].value.numerator}}}{{{numbers[1].value.denominator}}}"
        return self._algebra(readable, expression(expected) or expected, "value")

    def _algebra(self, given: str, expected: str, kind: str) -> bool:
        self._asked += 1
        if self._asked > _MAX_COMPARISONS:
            self.detail = "too many parts to compare"
            return False
        if len(_PRIME.findall(given)) != len(_PRIME.findall(expected)):  # the parser drops them
            self.detail = "primes differ"
            return False
        verdict = self._ask(given, expected, kind)
        if not self._own:
            need(verdict)
        self.detail = verdict.detail
        return bool(verdict.correct)


def _as_numbers(given: str, expected: str) -> bool | None:
    """Whether two texts say the same number of the same thing; None where one of them is no number."""
    wanted = number.of_reference(expected)
    mine = None if wanted is None else number.parse_in_prose(given, number.said(expected))
    return None if wanted is None or mine is None else number.equal(mine, wanted)


def _split(text: str, other: str) -> tuple[str, units.Unit]:
    """A text without its unit; a letter alone is a unit only beside a text without variables: `5 m` is `5`."""
    letters = not _FREE.search(_COMMANDS.sub(" ", units.split(other)[0]))
    return units.split(text, letters=letters and _SPACED_LETTER.search(text) is not None)


def _without_noun(match: re.Match[str]) -> str:
    """The number of a side like "9 eggs * 2", where the noun does not change it."""
    return match[0] if prose.after(match[2]) is None or units.named(match[2]) else match[1]


def _only(given: Shape, expected: Shape) -> Shape:
    """What a set with one member holds, where no set was asked for."""
    if expected == Scalar(shapes.EMPTY_SET) or (isinstance(expected, Group) and expected.opening in ("{", "u", "")):
        return given
    return given.items[0] if isinstance(given, Group) and given.opening == "{" and len(given.items) == 1 else given


def _kind(shape: Shape) -> str:
    match shape:
        case Group(opening="u"):
            return "union"
        case Group(opening="{"):
            return "set"
        case Group(opening=""):
            return "list"
        case Group():
            return "tuple or interval"
    return type(shape).__name__.casefold()


def _set_text(shape: Shape) -> str | None:
    """A union of intervals as text for the parser."""
    if not isinstance(shape, Group):
        return None
    if shape.opening == "u":
        parts = [_set_text(item) for item in shape.items]
        return None if None in parts else " \\cup ".join(str(part) for part in parts)
    if any(
        bracket in "[]" and isinstance(end, Scalar) and INFINITE.fullmatch(end.text)
        for bracket, end in ((shape.opening, shape.items[0]), (shape.closing, shape.items[-1]))
    ):
        return None  # no closed interval ends at infinity
    inner = [item.text for item in shape.items if isinstance(item, Scalar)]
    if len(inner) != len(shape.items) or shape.opening == "" or len(inner) > 8:
        return None
    brackets = {"{": "\\{", "}": "\\}"}
    opening, closing = (brackets.get(one, one) for one in (shape.opening, shape.closing))
    return f"{opening}{', '.join(inner)}{closing}"
