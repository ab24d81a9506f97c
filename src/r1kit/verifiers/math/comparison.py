r"""Compares an answer with a reference by their shapes, part by part; only single values need algebra."""

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
_POINTS = re.compile(  # ordered points, not a product: \angle ABC is not \angle ACB
    r"(?:\\?(angle|triangle|overline|segment|line)(?![a-z]))?\s*\{?\s*([A-Z]{2,})\s*\}?"
)
_MONEY = re.compile(r"\\\$(?=\d)")
_COUNTED = re.compile(r"(?<![\w.\\])(\d[\d,.]*)\s+([a-z]{3,})(?=\s*(?:[-+*/=]|\\times|\\cdot|\\div|$))")
_MAX_COMPARISONS = 40  # per verdict; comparing two lists takes one for each pair that might match

Ask = Callable[[str | None, str, str], Verdict]  # (prediction, reference, kind), see `worker`


class Unknown(Exception):
    """The outcome is "unknown", for the reason in the message."""


def need(verdict: Verdict) -> None:
    """Raise `Unknown` if a verdict is undecided."""
    if verdict.correct is None:
        raise Unknown(verdict.detail)


class Comparison:
    """Compares one prediction with one usable reference, with a limited number of questions to workers."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self._questions, self._own, self.detail = ask, 0, False, ""

    def answer(self, prediction: str, target: Shape) -> tuple[bool, str]:
        """Whether the answer equals the target, and why."""
        if isinstance(target, Scalar) and (same := _as_numbers(prediction, target.text)) is not None:
            return same, "as numbers"
        text = formulas(prediction)
        if text is None:
            return False, "the answer does not commit to one value"
        if isinstance(target, Group):
            text = units.split_unit(text)[0]
        shape = _sole_member(shapes.parse_shape(text), target)
        same = self.same(shape, target)
        return same, self.detail or ("equal" if same else f"a {_kind(shape)}, not the {_kind(target)}")

    def same(self, given: Shape, expected: Shape) -> bool:
        """Whether two shapes are equal, part by part."""
        match given, expected:
            case Equation(), Equation():
                if given.name and (given.name == expected.name or (not expected.name and len(expected.sides) < 2)):
                    values = (shapes.parse_shape(side.sides[-1]) for side in (given, expected))
                    return self._holds(given) and self.same(*values)
                if "(" in (given.name or "") + (expected.name or ""):  # f(2) = 3 is not f(3) = 3
                    return False
                texts = ["=".join(filter(None, [side.name, *side.sides])) for side in (given, expected)]
                if any(text.count("=") != 1 or expression(text.replace("=", "+")) is None for text in texts):
                    return False
                return self._algebra(texts[0], texts[1], "equation")
            case Equation(), _:
                value = shapes.parse_shape(given.sides[-1])
                return self._holds(given) and self.same(_sole_member(value, expected), expected)
            case _, Equation(name=str()):
                return self.same(given, shapes.parse_shape(expected.sides[-1]))
            case Group(), Group():
                return self._groups(given, expected)
            case Matrix(), Matrix():
                if [len(row) for row in given.rows] != [len(row) for row in expected.rows]:
                    return False
                rows = zip(given.rows, expected.rows, strict=True)
                return all(self.same(a, b) for row, other in rows for a, b in zip(row, other, strict=True))
            case Scalar(), Scalar():
                return self._scalars(given.text, expected.text)
            case Inequality(), Inequality():
                return given == expected
        return False

    def _holds(self, equation: Equation) -> bool:
        """Whether all sides have one value: those of `2+3=5` do, those of `x+1=5` and `12=13` do not."""
        if len(equation.sides) > 4:
            return False
        self._own = True  # both sides are the prediction's, so a side that cannot be used is no fault of the reference
        sides = [_MONEY.sub("", side) for side in equation.sides[:-1]]
        sides = [  # "9 eggs * 2" is "9 * 2", unless the noun changes the number
            _COUNTED.sub(lambda m: m[0] if prose.after(m[2]) is None or units.named(m[2]) else m[1], side)
            for side in sides
        ]
        sides.append(equation.sides[-1])
        holds = all(self.same(shapes.parse_shape(left), shapes.parse_shape(right)) for left, right in pairwise(sides))
        self._own = False
        if not holds:
            self.detail = "the answer is an equation that names no value, or does not hold"
        return holds

    def _groups(self, given: Group, expected: Group) -> bool:
        if given.name and expected.name and given.name != expected.name:
            return False
        brackets = given.opening + given.closing, expected.opening + expected.closing
        if "uu" in brackets:
            if brackets[0] == brackets[1] and self._unordered(given.items, expected.items, distinct=True):
                return True
            mine, theirs = _set_text(given), _set_text(expected)
            return mine is not None and theirs is not None and self._algebra(mine, theirs, "set")
        if set(brackets) <= {"", "{}"}:  # lists and sets
            return self._unordered(given.items, expected.items, distinct="{}" in brackets)
        if len(given.items) != len(expected.items):
            return False
        if brackets[0] != brackets[1] and not (set(brackets) <= {"", "()"} or len(given.items) > 2):
            return False
        return "{}" not in brackets and all(
            self.same(item, other) for item, other in zip(given.items, expected.items, strict=True)
        )

    def _unordered(self, given: Sequence[Shape], expected: Sequence[Shape], *, distinct: bool) -> bool:
        """Whether two collections have the same items, equally often unless `distinct`.

        Equality is transitive, so the first partner that matches is as good as any.
        """
        if distinct:
            return all(any(self.same(item, other) for other in expected) for item in given) and all(
                any(self.same(other, item) for other in given) for item in expected
            )
        if len(given) != len(expected):
            return False
        unmatched = list(expected)
        for item in given:
            partner = next((place for place, other in enumerate(unmatched) if self.same(item, other)), None)
            if partner is None:
                return False
            unmatched.pop(partner)
        return True

    def _scalars(self, given: str, expected: str) -> bool:
        if tidy(given) == tidy(expected):
            return True
        if WRAPPED.search(given) and wording(given) == wording(expected):
            return True
        if points := _POINTS.fullmatch(expected):
            mine = _POINTS.fullmatch("".join(WRAPPED.sub(r"\1", given).split()))
            return bool(mine and mine[2] == points[2] and (mine[1] or points[1]) == (points[1] or mine[1]))
        if in_base := base(expected):
            return (base(given) or (given.lstrip("0"), in_base[1])) == in_base
        if base(given):
            return False
        if (same := _as_numbers(given, expected)) is not None:
            self.detail = "as numbers"
            return same
        core, unit = _without_unit(expected, given)
        mine_core, mine_unit = _without_unit(given, expected)
        factor = units.agree(mine_unit, unit)
        if factor is None:
            self.detail = "another unit than the reference"
            return False
        plain = number.parse_number(mine_core)
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
            self.detail = "the answer is not an expression that can be computed"
            return False
        if factor != 1:
            readable = f"({factor})*({readable})"
        if numbers[1] is not None:  # in a form that the parser reads: no separators, no percent
            expected = f"\\frac{{{numbers[1].value.numerator}}}{{{numbers[1].value.denominator}}}"
        return self._algebra(readable, expression(expected) or expected, "value")

    def _algebra(self, given: str, expected: str, kind: str) -> bool:
        self._questions += 1
        if self._questions > _MAX_COMPARISONS:
            self.detail = "too many parts to compare"
            return False
        if len(_PRIME.findall(given)) != len(_PRIME.findall(expected)):  # the parser ignores primes
            self.detail = "primes differ"
            return False
        verdict = self._ask(given, expected, kind)
        if not self._own:
            need(verdict)
        self.detail = verdict.detail
        return bool(verdict.correct)


def _as_numbers(given: str, expected: str) -> bool | None:
    """Whether two texts are the same number with the same unit; None if one of them is not a number."""
    theirs = number.of_reference(expected)
    mine = None if theirs is None else number.parse_in_prose(given, number.reference_words(expected))
    return None if theirs is None or mine is None else number.equal(mine, theirs)


def _without_unit(text: str, other: str) -> tuple[str, units.Unit]:
    """A text without its unit. A single letter is a unit only if the other text has no variables: `5 m` is `5`."""
    letters = not _FREE.search(_COMMANDS.sub(" ", units.split_unit(other)[0]))
    return units.split_unit(text, letters=letters and _SPACED_LETTER.search(text) is not None)


def _sole_member(given: Shape, expected: Shape) -> Shape:
    """The member of a set with one member, unless a set is expected."""
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
    """A union of intervals or sets as text for the parser; None if it has no such form."""
    if not isinstance(shape, Group):
        return None
    if shape.opening == "u":
        parts = [_set_text(item) for item in shape.items]
        return None if None in parts else " \\cup ".join(str(part) for part in parts)
    if any(
        bracket in "[]" and isinstance(end, Scalar) and INFINITE.fullmatch(end.text)
        for bracket, end in ((shape.opening, shape.items[0]), (shape.closing, shape.items[-1]))
    ):
        return None  # a closed interval cannot end at infinity
    inner = [item.text for item in shape.items if isinstance(item, Scalar)]
    if len(inner) != len(shape.items) or shape.opening == "" or len(inner) > 8:
        return None
    brackets = {"{": "\\{", "}": "\\}"}
    opening, closing = (brackets.get(bracket, bracket) for bracket in (shape.opening, shape.closing))
    return f"{opening}{', '.join(inner)}{closing}"
