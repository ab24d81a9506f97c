r"""Compares an answer with a reference: both are parsed into shapes, and shapes of one kind are compared part by part.

Only a few shapes of different kinds can be equal: an equation that names its value and the value, a set of one and its
member, an inequality and its interval, a : 1 and a, a list and a set. Values are compared by `evaluation`. An
expression that cannot be computed is wrong in an answer, and makes a reference unusable. So `problem` computes on the
reference alone everything that a comparison may need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import chain, pairwise

from r1kit.verifiers import number, number_words, prose, spelling, units
from r1kit.verifiers.math import evaluation, regions
from r1kit.verifiers.math.evaluation import Incomputable
from r1kit.verifiers.math.formulas import formulas
from r1kit.verifiers.math.names import names
from r1kit.verifiers.math.parser import Tree, Unreadable, parse, symbols
from r1kit.verifiers.math.parser import number as number_tree
from r1kit.verifiers.math.readings import INFINITE, WRAPPED, base, known_symbol, tidy, wording
from r1kit.verifiers.math.shapes import (
    EMPTY_SET,
    Equation,
    Family,
    Group,
    Inequality,
    Matrix,
    Ratio,
    Scalar,
    Shape,
    is_region,
    parse_shape,
)

_COMMANDS = re.compile(r"\\[A-Za-z]+")
_LETTERS = re.compile(r"[A-Za-z]")
_SPACED_LETTER = re.compile(r"\s[A-Za-z]$")
_POINTS = re.compile(  # ordered points, not a product: \angle ABC is not \angle ACB
    r"(?:\\?(angle|triangle|overline|segment|line)(?![a-z]))?\s*\{?\s*([A-Z]{2,})\s*\}?"
)
_MONEY = re.compile(r"\\\$(?=\d)")
_COUNTED = re.compile(r"(?<![\w.\\])(\d[\d,.]*)\s+([a-z]{3,})(?=\s*(?:[-+*/=]|\\times|\\cdot|\\div|$))")
_INDEXED_BY_I = re.compile(r"_\s*\{?\s*i\b")
_SCIENTIFIC = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?!\w)")
_DATE = re.compile(r"(?<![\d.])(?:\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{4})(?![\d.])")  # no subtraction or fraction
_CONSTANT = re.compile(r"\+\s*([CcK])$")  # of integration: + c is + C
_ORDINAL = re.compile(r"(\d+)\s*(?:st|nd|rd|th)")
_DERIVATIVE = re.compile(r"\\[dt]?frac\{d([A-Za-z])\}\{d[A-Za-z]\}|([A-Za-z])'")
_CLOCK = re.compile(r"\d{1,2}:[0-5]\d")
_CALL = re.compile(r"([A-Za-z]+'*)\(([A-Za-z])\)")
_MAX_COMPARISONS = 400  # of values, for one verdict: two lists need one for each pair that might match


def problem(reference: str) -> str | None:
    """Why a reference cannot be used; None if it can."""
    try:
        _Comparison(imaginary=not _INDEXED_BY_I.search(reference)).use(target(reference))
    except (Unreadable, Incomputable) as error:
        return f"the reference cannot be computed: {error}"
    return None


def compare(prediction: str, reference: str) -> tuple[bool, str]:
    """Whether an answer equals a usable reference, and why."""
    formula, expected = formulas(prediction), target(reference)
    if isinstance(expected, Scalar) and (same := _as_numbers(prediction, expected.text)) is not None:
        return same, "as numbers"
    if formula is None:
        return False, "the answer does not commit to one value"
    comparison = _Comparison(imaginary=not _INDEXED_BY_I.search(f"{reference} {prediction}"))
    answer = parse_shape(units.split_unit(formula)[0] if isinstance(expected, Group) else formula)
    try:
        same = comparison.same(answer, expected) or comparison.same_angle(answer, expected)
    except (Unreadable, Incomputable) as error:
        return False, f"the answer cannot be computed: {error}"
    return same, comparison.detail or ("equal" if same else f"a {_kind(answer)}, not the {_kind(expected)}")


def target(reference: str) -> Shape:
    """The shape of a reference."""
    text = spelling.plain(reference).removeprefix("\\approx").strip()
    return parse_shape(formulas(text) or text)


class _Comparison:
    """Compares shapes; `detail` says what decided."""

    def __init__(self, *, imaginary: bool) -> None:
        self._imaginary, self._comparisons, self.detail = imaginary, 0, ""

    def use(self, shape: Shape) -> None:
        """Raise `Unreadable` or `Incomputable` if a reference cannot be used."""
        match shape:
            case Scalar(text):
                readable = number.of_reference(text) or known_symbol(text) or base(text)
                if not (readable or _POINTS.fullmatch(text) or _ORDINAL.fullmatch(text)):
                    tree = self._tree(units.split_unit(text)[0])
                    evaluation.equal(tree, tree)
            case Group(items=items):
                for item in items:
                    self.use(item)
            case Matrix(rows):
                for item in chain.from_iterable(rows):
                    self.use(item)
            case Ratio(terms):
                for term in terms:
                    self.use(Scalar(term))
            case Family(_, texts) | Inequality(texts, _):
                for tree in (self._tree(text) for text in texts if not INFINITE.fullmatch(text)):
                    evaluation.equal(tree, tree)
            case Equation(None, sides):
                trees = [self._tree(side) for side in sides]
                if not any(map(symbols, trees)) and not all(evaluation.equal(*pair) for pair in pairwise(trees)):
                    raise Incomputable("an equation that does not hold")
            case Equation("≈", (exact, rough)):
                if not _is_unknown(exact) and not self._approximates(exact, rough):
                    raise Incomputable("a decimal that is not close")
                self.use(self._value(shape))
            case Equation(_, sides):
                self.use(parse_shape(sides[-1]))

    def same(self, answer: Shape, expected: Shape, *, part: bool = False) -> bool:
        """Whether two shapes are equal, part by part. A `part` of another shape is never a set for its member."""
        match answer, expected:
            case Equation(), Equation():
                return self._equations(answer, expected)
            case Equation(), _:
                if isinstance(expected, Group) and expected.name and answer.name not in (None, f"({expected.name})"):
                    return False  # (x, y) = (1, 2) is not a = 1, b = 2
                holds = _rounds_as(answer, expected) or self._holds(answer)
                return holds and self.same(self._value(answer), expected)
            case _, Equation(name=str()):
                return self.same(answer, self._value(expected))
            case _, Equation():  # 12 \times 3 = 36 has a value, x + 1 = 2y has none
                trees = [self._tree(side) for side in expected.sides]
                constant = not any(map(symbols, trees)) or evaluation.equal(*trees[:2])
                return constant and self.same(answer, self._value(expected))
            case Family(), Family():
                return self._families(answer, expected)
            case Family(_, texts), _:  # 2k\pi is as good without "for whole k", if the letter is the same
                formulas_ = tuple(map(Scalar, texts))
                return self.same(formulas_[0] if len(texts) == 1 else Group("", "", formulas_), expected)
            case _, Family(parameter, _):
                members = answer.items if isinstance(answer, Group) and answer.opening in ("", "{") else (answer,)
                texts = tuple(item.text for item in members if isinstance(item, Scalar))
                return len(texts) == len(members) and self._families(Family(parameter, texts), expected)
            case _, Group("whole", _, (region,)) if not (isinstance(answer, Group) and answer.opening == "whole"):
                return self.same(answer, region)  # x > 1 is as good without "for whole x"
            case Matrix(), Matrix():
                if [len(row) for row in answer.rows] != [len(row) for row in expected.rows]:
                    return False
                rows = zip(answer.rows, expected.rows, strict=True)
                return all(self.same(a, b, part=True) for row, other in rows for a, b in zip(row, other, strict=True))
            case Ratio(), Ratio():
                return self._ratios(answer.terms, expected.terms)
            case (Ratio((first, second)), Scalar() as other) | (Scalar() as other, Ratio((first, second))):
                if evaluation.constant(self._tree(second)) == 1:
                    return self.same(Scalar(first), other)
                quotient = ("over", self._tree(first), self._tree(second))
                return not _CLOCK.fullmatch(f"{first}:{second}") and evaluation.equal(quotient, self._tree(other.text))
            case Scalar(), Scalar():
                return self._scalars(answer.text, expected.text)
        return self._collections(answer, expected, part=part)

    def _collections(self, answer: Shape, expected: Shape, *, part: bool) -> bool:
        """As `same`, for shapes of which at least one is a region or has several values."""
        if is_region(answer) or is_region(expected):
            return self._regions(answer, expected)
        match answer, expected:
            case (Matrix(entries), Group("(", ")", items)) | (Group("(", ")", items), Matrix(entries)):
                column = [row[0] for row in entries if len(row) == 1]  # a column is a vector
                if len(entries) != len(column) or len(column) != len(items):
                    return False
                return all(self.same(item, entry, part=True) for item, entry in zip(items, column, strict=True))
            case Group(), Group() if answer.opening + expected.opening not in ("{(", "({"):
                return self._groups(answer, expected)
            case Group("{", _, (item,)), _ if not part and expected != Scalar(EMPTY_SET):
                return self.same(item, expected)
            case _, Group("{", _, (item,)) if not part and answer != Scalar(EMPTY_SET):
                return self.same(answer, item)
            case Group("", _, items, _, True), Scalar():  # \frac12 or 0.5
                return all(self.same(item, expected) for item in items)
            case Group("(", ")", (Scalar(above), Scalar(below)), "C"), Scalar():  # the point C(10, 2), or a number
                return self._values(f"\\binom{{{above}}}{{{below}}}", expected.text, Fraction(1))
        return False

    def same_angle(self, answer: Shape, expected: Shape) -> bool:
        r"""Whether an angle in degrees is one in radians, which has a factor \pi: 30^\circ and \frac{\pi}{6}."""
        angles = [self._value(side) if isinstance(side, Equation) else side for side in (answer, expected)]
        cores, kinds = [], []
        for angle in angles:
            core, unit = units.split_unit(angle.text) if isinstance(angle, Scalar) else ("", units.NO_UNIT)
            degrees, bare = unit.powers == (("angle", 1),), unit.powers in ((), (("radian", 1),))
            radians = bare and ("\\pi" in core or "arc" in core or bool(unit.powers))
            kinds.append("degrees" if degrees else "radians" if radians else "")
            cores.append(f"({core})^\\circ" if degrees else core)
        return sorted(kinds) == ["degrees", "radians"] and evaluation.equal(*map(self._tree, cores))

    def _value(self, equation: Equation) -> Shape:
        """The value that an equation states."""
        return parse_shape(equation.sides[0 if equation.name == "≈" and not _is_unknown(equation.sides[0]) else -1])

    def _holds(self, equation: Equation) -> bool:
        """Whether all sides have one value: those of `2+3=5` do, those of `x+1=5` and `12=13` do not."""
        if len(equation.sides) > 4:
            return False
        if equation.name == "≈":
            return self._approximates(*equation.sides)
        sides = [_MONEY.sub("", side) for side in equation.sides[:-1]]
        sides = [  # "9 eggs * 2" is "9 * 2", unless the noun changes the number
            _COUNTED.sub(lambda m: m[0] if prose.after(m[2]) is None or units.named(m[2]) else m[1], side)
            for side in sides
        ]
        if equation.name and not self._variables(equation.sides[-1]):  # C = 2\pi r = 10\pi names the formula, too
            sides = [side for side in sides if not self._variables(side)]
        sides.append(equation.sides[-1])
        holds = all(self.same(parse_shape(left), parse_shape(right)) for left, right in pairwise(sides))
        if not holds:
            self.detail = "the answer is an equation that names no value, or does not hold"
        return holds

    def _variables(self, side: str) -> frozenset[str]:
        try:
            return symbols(self._tree(side))
        except Unreadable:
            return frozenset()

    def _approximates(self, exact: str, rough: str) -> bool:
        """Whether a decimal is the rounded or cut-off exact value, to at least two digits."""
        decimal, value = number.parse_number(rough), evaluation.real(self._tree(exact))
        if decimal is None or value is None:
            return False
        unit = evaluation.floating(Fraction(1, 10 ** len(rough.partition(".")[2].rstrip("% \\"))))
        exact_value, rounded_value = abs(evaluation.floating(value)), abs(evaluation.floating(decimal.value))
        rounded = 2 * abs(exact_value - rounded_value) <= unit
        cut_off = 0 <= exact_value - rounded_value < unit
        return bool((value < 0) == (decimal.value < 0) and (rounded or cut_off) and 10 * unit <= exact_value)

    def _equations(self, answer: Equation, expected: Equation) -> bool:
        if answer.name == "≈" or expected.name == "≈":
            unknown, other = answer.sides[0], expected.sides[0]
            same_unknown = answer.name == expected.name and unknown == other and _is_unknown(unknown)
            return (same_unknown or self._holds(answer)) and self.same(self._value(answer), self._value(expected))
        value = _renamed(answer, expected)
        if value is not None:
            return self._holds(answer) and self.same(parse_shape(value), self._value(expected))
        if answer.name and not expected.name and not any(symbols(self._tree(side)) for side in expected.sides):
            return self._holds(answer) and self.same(self._value(answer), self._value(expected))
        texts = [(*filter(None, [equation.name]), *equation.sides) for equation in (answer, expected)]
        sides = [list(map(self._tree, each)) for each in texts]
        if any(len(trees) != 2 for trees in sides):
            return len(sides[0]) == len(sides[1]) and all(evaluation.equal(*pair) for pair in zip(*sides, strict=True))
        mine, theirs = (("plus", left, ("minus", right)) for left, right in sides)
        if evaluation.is_zero(theirs):  # an identity: the sides themselves are the statement
            left, right = sides[1]
            return evaluation.is_zero(mine) and any(evaluation.equal(sides[0][0], side) for side in (left, right))
        if not symbols(theirs):
            return False
        self.detail = "as equations"
        pairs = ((mine, theirs), (evaluation.numerator(mine), evaluation.numerator(theirs)))
        return any(evaluation.ratio(*pair) is not None for pair in pairs)

    def _ratios(self, answer: Sequence[str], expected: Sequence[str]) -> bool:
        """Whether the terms are proportional; times of day must be the same."""
        if all(_CLOCK.fullmatch(":".join(terms)) for terms in (answer, expected)):
            return answer == expected
        if len(answer) != len(expected):
            return False
        mine, theirs = ([self._tree(term) for term in terms] for terms in (answer, expected))
        products = [
            (("times", mine[0], other), ("times", term, theirs[0]))
            for term, other in zip(mine[1:], theirs[1:], strict=True)
        ]
        zero = number_tree(0)
        return not evaluation.equal(mine[0], zero) and all(evaluation.equal(*pair) for pair in products)

    def _families(self, answer: Family, expected: Family) -> bool:
        """Whether two families have the same members."""
        if len(answer.items) > 8:
            return False
        mine, theirs = (([self._tree(item) for item in side.items], side.parameter) for side in (answer, expected))
        return regions.same_families(mine, theirs)

    def _regions(self, answer: Shape, expected: Shape) -> bool:
        if isinstance(answer, Scalar) or isinstance(expected, Scalar):  # a point is not a region
            return False
        mine, theirs = (regions.region(shape, self._tree) for shape in (answer, expected))
        if mine is not None and theirs is not None:
            return regions.same(mine, theirs)
        if isinstance(answer, Inequality) and isinstance(expected, Inequality):
            return regions.same_conditions(answer, expected, self._tree)
        match regions.as_interval(answer), regions.as_interval(expected):
            case (Group() as left, Group() as right) if left.opening == right.opening:
                return left.closing == right.closing and self._groups(left, right)
        return False

    def _groups(self, answer: Group, expected: Group) -> bool:
        if answer.name and expected.name and answer.name != expected.name:
            return False
        brackets = answer.opening + answer.closing, expected.opening + expected.closing
        if brackets[0] == brackets[1] and len(brackets[0]) > 2:
            return self._unordered(answer.items, expected.items, distinct=True)
        if set(brackets) <= {"", "{}"} and not (answer.name and answer.name == expected.name):  # lists and sets
            return self._unordered(answer.items, expected.items, distinct="{}" in brackets)
        if len(answer.items) != len(expected.items):
            return False
        if brackets[0] != brackets[1]:
            loose = [group for group in (answer, expected) if not group.opening]
            if any(group.alternatives or any(isinstance(item, Equation) for item in group.items) for group in loose):
                return False  # x = 1 or x = 2 is no pair
            if not loose and len(answer.items) <= 2:  # [0, 1] and (0, 1)
                return False
        return "{}" not in brackets and all(
            self.same(item, other, part=True) for item, other in zip(answer.items, expected.items, strict=True)
        )

    def _unordered(self, answer: Sequence[Shape], expected: Sequence[Shape], *, distinct: bool) -> bool:
        """Whether two collections have the same items, equally often unless `distinct`.

        Equality is transitive, so the first partner that matches is as good as any.
        """
        if distinct:
            return all(any(self._same_item(item, other) for other in expected) for item in answer) and all(
                any(self._same_item(item, other) for item in answer) for other in expected
            )
        unmatched = list(expected)
        if len(answer) != len(unmatched):
            return False
        for item in answer:
            partner = next((place for place, other in enumerate(unmatched) if self._same_item(item, other)), None)
            if partner is None:
                return False
            unmatched.pop(partner)
        return True

    def _same_item(self, answer: Shape, expected: Shape) -> bool:
        return self.same(answer, expected, part=True) or self.same_angle(answer, expected)

    def _scalars(self, answer: str, expected: str) -> bool:
        if tidy(answer) == tidy(expected):
            return True
        if WRAPPED.search(answer) and wording(answer) == wording(expected):
            return True
        if points := _POINTS.fullmatch(expected):
            mine = _POINTS.fullmatch("".join(WRAPPED.sub(r"\1", answer).split()))
            return bool(mine and mine[2] == points[2] and (mine[1] or points[1]) == (points[1] or mine[1]))
        if in_base := base(expected):
            return (base(answer) or (answer.lstrip("0"), in_base[1])) == in_base
        if base(answer):
            return False
        if (same := _as_numbers(answer, expected)) is not None:
            self.detail = "as numbers"
            return same
        if ordinal := _ORDINAL.fullmatch(expected):
            return (_ORDINAL.sub(r"\1", answer)) == ordinal[1]
        constants = _CONSTANT.search(answer), _CONSTANT.search(expected)
        if constants[0] and constants[1] and not re.search(rf"(?<![A-Za-z]){constants[0][1]}(?![A-Za-z])", expected):
            return self._scalars(f"{answer[: constants[0].start()]} + {constants[1][1]}", expected)
        core, unit = _without_unit(expected, answer)
        mine_core, mine_unit = _without_unit(answer, expected)
        factor = units.agree(mine_unit, unit)
        if factor is None:
            self.detail = "another unit than the reference"
            return False
        plain = number.parse_number(mine_core)
        if unit.powers and plain and plain.percent:
            return False
        return self._values(mine_core, core, factor)

    def _values(self, answer: str, expected: str, factor: Fraction) -> bool:
        numbers = number.parse_in_prose(answer), number.of_reference(expected)
        if numbers[0] is not None and numbers[1] is not None:
            self.detail = "as numbers"
            return number.equal(replace(numbers[0], value=numbers[0].value * factor), numbers[1])
        endless = INFINITE.fullmatch(answer), INFINITE.fullmatch(expected)
        if endless[0] or endless[1]:
            return bool(endless[0] and endless[1] and (endless[0][1] == "-") == (endless[1][1] == "-"))
        if EMPTY_SET in (answer, expected):
            return False
        self._comparisons += 1
        if self._comparisons > _MAX_COMPARISONS:
            raise Incomputable("too many parts to compare")
        mine = self._tree(answer)
        if factor != 1:
            mine = ("times", number_tree(factor), mine)
        theirs = self._tree(expected) if numbers[1] is None else number_tree(numbers[1].value)
        self.detail = "by values"
        return evaluation.equal(mine, theirs)

    def _tree(self, text: str) -> Tree:
        """The tree of a formula; raises `Unreadable`."""
        if _DATE.search(text):
            raise Unreadable("a date")
        text = number_words.digits(_SCIENTIFIC.sub(r"(\1 \\cdot 10^{\2})", text))
        return parse(text, imaginary=self._imaginary)


def _is_unknown(side: str) -> bool:
    """Whether the left side of `x ≈ 3.14` has no value of its own, as \\pi and e have."""
    return names(side) and side != "e"


def _rounds_as(answer: Equation, expected: Shape) -> bool:
    """Whether `x ≈ 3.14` answers a reference with decimals, which is rounded itself."""
    decimal = isinstance(expected, Scalar) and re.search(r"\.\d*[1-9]", expected.text)
    return bool(decimal) and answer.name == "≈" and _is_unknown(answer.sides[0])


def _as_numbers(answer: str, expected: str) -> bool | None:
    """Whether two texts are the same number with the same unit; None if one of them is not a number."""
    theirs = number.of_reference(expected)
    mine = None if theirs is None else number.parse_in_prose(answer, number.reference_words(expected))
    return None if theirs is None or mine is None else number.equal(mine, theirs)


def _without_unit(text: str, other: str) -> tuple[str, units.Unit]:
    """A text without its unit. A single letter is a unit only if the other text has no variables: `5 m` is `5`."""
    letters = not _LETTERS.search(_COMMANDS.sub(" ", units.split_unit(other)[0]))
    return units.split_unit(text, letters=letters and _SPACED_LETTER.search(text) is not None)


def _renamed(answer: Equation, expected: Equation) -> str | None:
    """The value of the answer equation, if it has the name of the expected one; f(t) is renamed to f(x)."""
    if not answer.name or not expected.name:
        return None
    value = answer.sides[-1]
    if set(answer.name.split("=")) & set(expected.name.split("=")):
        return value
    mine, theirs = _DERIVATIVE.fullmatch(answer.name), _DERIVATIVE.fullmatch(expected.name)
    if mine and theirs and mine[2 if mine[2] else 1] == theirs[2 if theirs[2] else 1] and mine[2] != theirs[2]:
        return value  # y' and \frac{dy}{dx}
    mine, theirs = _CALL.fullmatch(answer.name), _CALL.fullmatch(expected.name)
    if mine is None or theirs is None or mine[1] != theirs[1] or theirs[2] in value:
        return None
    return re.sub(rf"(?<![A-Za-z\\]){mine[2]}(?![A-Za-z])", theirs[2], value)


def _kind(shape: Shape) -> str:
    if is_region(shape):
        return "region"
    match shape:
        case Group(opening="{"):
            return "set"
        case Group(opening=""):
            return "list"
        case Group():
            return "tuple or interval"
    return type(shape).__name__.casefold()
