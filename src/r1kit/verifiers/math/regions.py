r"""Sets of numbers: regions of the real line, conditions on several variables, and families for all whole numbers.

A region is the list of its critical points and a test of membership. Two regions are equal if they agree at every
critical point of either, between each two of them, and beyond the last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

from r1kit.verifiers.math import evaluation
from r1kit.verifiers.math.evaluation import Incomputable, Value, add, close, compute, divide
from r1kit.verifiers.math.names import VARIABLE
from r1kit.verifiers.math.parser import Tree, Unreadable, operations, symbols
from r1kit.verifiers.math.readings import INFINITE
from r1kit.verifiers.math.shapes import Equation, Group, Inequality, Scalar, Shape, is_interval

_FLIPPED = str.maketrans("<>≤≥", "><≥≤")
_STEPS = range(-8, 9)  # members of a family that are tried


@dataclass(frozen=True)
class Region:
    """A set of real numbers; `name` is the variable, if the text names one."""

    name: str
    critical: tuple[Value, ...]
    contains: Callable[[Value], bool]


def region(shape: Shape, tree: Callable[[str], Tree]) -> Region | None:
    """The region of a shape; None if it is not one, has bounds with variables, or is empty."""
    numbers = _region(shape, tree)
    return numbers if numbers and any(map(numbers.contains, _cells(numbers.critical))) else None


def same(left: Region, right: Region) -> bool:
    """Whether two regions are equal; different variables are not."""
    if left.name and right.name and left.name != right.name:
        return False
    return all(left.contains(cell) == right.contains(cell) for cell in _cells((*left.critical, *right.critical)))


def same_conditions(answer: Inequality, expected: Inequality, tree: Callable[[str], Tree]) -> bool:
    """Whether two inequalities in several variables are the same up to a positive factor."""
    if len(answer.signs) != len(expected.signs):
        return False
    mine, theirs = (side if side.signs[0] in "<≤≠" else _turned(side) for side in (answer, expected))
    if mine.signs != theirs.signs:
        return False
    if len(mine.signs) > 1:
        pairs = zip(mine.sides, theirs.sides, strict=True)
        return all(evaluation.equal(tree(left), tree(right)) for left, right in pairs)
    gaps = [("plus", tree(side.sides[1]), ("minus", tree(side.sides[0]))) for side in (mine, theirs)]
    ratio = evaluation.ratio(*gaps)
    return ratio is not None and (mine.signs == ("≠",) or bool(not ratio.imag and ratio.real > 0))


def as_interval(shape: Shape) -> Shape:
    """`0 ≤ x < a`, `x > a` and `]0, a]` as intervals, whatever the bounds are; other shapes as they are."""
    if isinstance(shape, Group) and shape.opening == "or" and len(shape.items) == 1:
        return shape.items[0]
    if not isinstance(shape, Inequality):
        return shape
    inequality = _turned(shape) if shape.signs[0] in ">≥" else shape
    sides, signs = inequality.sides, inequality.signs
    if len(sides) == 2:
        at = sides.index(shape.sides[0] if VARIABLE.fullmatch(shape.sides[0]) else shape.sides[1])
        sides, signs = [("-\\infty", *sides), (*sides, "\\infty")][at], [("<", *signs), (*signs, "<")][at]
    if len(sides) != 3 or not VARIABLE.fullmatch(sides[1]) or not set(signs) <= {"<", "≤"}:
        return shape
    brackets = "(" if signs[0] == "<" else "[", ")" if signs[1] == "<" else "]"
    return Group(*brackets, (Scalar(sides[0]), Scalar(sides[2])), sides[1])


def same_families(answer: tuple[Sequence[Tree], str], expected: tuple[Sequence[Tree], str]) -> bool:
    """Whether two families have the same members; each is its formulas and its parameter.

    Formulas that are linear in the parameter are compared by members. Others must be equal, up to its name.
    """
    names = frozenset().union(*(symbols(tree) - {name} for trees, name in (answer, expected) for tree in trees))
    for point in evaluation.points(sorted(names))[:3]:
        lines = [[_line(tree, name, point) for tree in trees] for trees, name in (answer, expected)]
        if any(None in family for family in lines):
            mine = [evaluation.renamed(tree, answer[1], expected[1]) for tree in answer[0]]
            same_number = len(mine) == len(expected[0])
            return same_number and all(any(evaluation.equal(tree, other) for other in expected[0]) for tree in mine)
        ours, theirs = ([line for line in family if line] for family in lines)
        for some, others in ((ours, theirs), (theirs, ours)):
            members = [add(start, step * index) for start, step in some for index in _STEPS]
            if not all(any(_on(line, member) for line in others) for member in members):
                return False
    return True


def _line(tree: Tree, parameter: str, point: dict[str, Value]) -> tuple[Value, Value] | None:
    """Start and step of a formula that is linear in the parameter."""
    at = [compute(tree, {**point, parameter: Fraction(index)}) for index in (0, 1, 2, 7)]
    start, step = at[0], add(at[1], -at[0])
    return (start, step) if all(close(add(start, step * k), value) for k, value in ((2, at[2]), (7, at[3]))) else None


def _on(line: tuple[Value, Value], member: Value) -> bool:
    start, step = line
    if close(start, member):
        return True
    if close(add(start, step), start):
        return False
    steps = evaluation.floating(divide(add(member, -start), step))
    return close(steps, evaluation.nearest(steps))


def _region(shape: Shape, tree: Callable[[str], Tree]) -> Region | None:
    match shape:
        case Group("or" | "and" | "," | "without"):
            return _combined(shape, tree)
        case Group("{", _, items, name) | Group("", _, items, name):
            values = [Scalar(item.sides[-1]) if isinstance(item, Equation) and item.name else item for item in items]
            points = [_constant(item, tree) for item in values]
            return None if None in points else _points([point for point in points if point is not None], name)
        case Group(opening, closing, (Scalar(low), Scalar(high)), name) if is_interval(shape):
            return _interval(low, high, opening + closing, name, tree)
        case Equation(str(name), (value,)):
            point = _constant(Scalar(value), tree)
            return None if point is None else _points([point], name)
        case Scalar():
            point = _constant(shape, tree)
            return None if point is None else _points([point], "")
        case Inequality():
            return _solved(shape, tree)
    return None


def _combined(group: Group, tree: Callable[[str], Tree]) -> Region | None:
    parts = [_region(item, tree) for item in group.items]
    regions = [part for part in parts if part is not None]
    names = {part.name for part in regions} - {""}
    if len(regions) < len(parts) or len(names) > 1:
        return None
    critical = tuple(point for part in regions for point in part.critical)
    tests = [part.contains for part in regions]
    joined = {
        "or": lambda value: any(test(value) for test in tests),
        "and": lambda value: all(test(value) for test in tests),
        "without": lambda value: tests[0](value) and not any(test(value) for test in tests[1:]),
    }
    how = group.opening
    if how == ",":  # x > 2, x < 5 are both true; x < 2, x > 5 are two cases
        how = "and" if any(map(joined["and"], _cells(critical))) else "or"
    name = "" if group.name == "bound" else (names.pop() if names else "")
    return Region(name, critical, joined[how])


def _points(points: list[Value], name: str) -> Region:
    return Region(name, tuple(points), lambda value: any(close(value, point) for point in points))


def _interval(low: str, high: str, brackets: str, name: str, tree: Callable[[str], Tree]) -> Region | None:
    endless = INFINITE.fullmatch(low), INFINITE.fullmatch(high)
    ends = [
        None if infinite else _constant(Scalar(end), tree) for infinite, end in zip(endless, (low, high), strict=True)
    ]
    if any(end is None and not infinite for infinite, end in zip(endless, ends, strict=True)):
        return None
    if (endless[0] and (endless[0][1] != "-" or brackets[0] == "[")) or (
        endless[1] and (endless[1][1] == "-" or brackets[1] == "]")
    ):
        return None
    if ends[0] is not None and ends[1] is not None and not _holds(ends[0], "<", ends[1]):
        return None

    def contains(value: Value) -> bool:
        above = ends[0] is None or _holds(ends[0], "<" if brackets[0] == "(" else "≤", value)
        return above and (ends[1] is None or _holds(value, "<" if brackets[1] == ")" else "≤", ends[1]))

    return Region(name, tuple(end for end in ends if end is not None), contains)


def _solved(inequality: Inequality, tree: Callable[[str], Tree]) -> Region | None:
    """The solutions of an inequality that is linear in its only variable, apart from absolute values."""
    conditions: list[tuple[Tree, str, Tree]] = []
    for (left, right), sign in zip(pairwise(inequality.sides), inequality.signs, strict=True):
        low, high = (left, right) if sign in "<≤" else (right, left)
        if sign not in "<>" or not (re.fullmatch(r"-\\infty", low) or re.fullmatch(r"\+?\\infty", high)):
            conditions.append((tree(left), sign, tree(right)))
    names = sorted({name for below, _, above in conditions for name in symbols(below) | symbols(above)})
    if len(names) != 1:
        return None
    name, critical = names[0], list[Value]()
    for below, _, above in conditions:
        roots = _roots(("plus", below, ("minus", above)), name)
        if roots is None:
            return None
        critical.extend(roots)

    def contains(value: Value) -> bool:
        return all(
            _holds(compute(left, {name: value}), sign, compute(right, {name: value}))
            for left, sign, right in conditions
        )

    return Region(name, tuple(critical), contains)


def _roots(tree: Tree, name: str) -> list[Value] | None:
    """Where an expression may be zero; None if it is not linear for each sign of its absolute values."""
    roots: list[Value] = []
    for variant in _without_bars(tree):
        try:
            line = _line(variant, name, {})
        except Incomputable:
            return None
        if line is None:
            return None
        if not close(add(line[1], Fraction(1)), Fraction(1)):
            roots.append(-divide(*line))
    return roots


def _without_bars(tree: Tree) -> Iterator[Tree]:
    """The tree with both signs for each absolute value."""
    inside = (place for place, part in enumerate(tree) if isinstance(part, tuple) and "abs" in operations(part))
    place = next(inside, None)
    if tree[0] == "abs":
        for inner in _without_bars(tree[1]):
            yield from (inner, ("minus", inner))
    elif place is None:
        yield tree
    else:
        for variant in _without_bars(tree[place]):
            yield from _without_bars((*tree[:place], variant, *tree[place + 1 :]))


def _constant(shape: Shape, tree: Callable[[str], Tree]) -> Value | None:
    """The value of a scalar without variables, if it is real."""
    try:
        return evaluation.real(tree(shape.text)) if isinstance(shape, Scalar) else None
    except Unreadable:
        return None


def _turned(inequality: Inequality) -> Inequality:
    """The inequality read from right to left."""
    return Inequality(inequality.sides[::-1], tuple(sign.translate(_FLIPPED) for sign in inequality.signs[::-1]))


def _holds(left: Value, sign: str, right: Value) -> bool:
    if close(left, right):
        return sign in "≤≥"
    if left.imag or right.imag:
        return False
    return sign == "≠" or bool((_float(left) < _float(right)) == (sign in "<≤"))


def _cells(critical: Sequence[Value]) -> list[Value]:
    """The critical points, a point between each two neighbours, and one beyond either end."""
    ordered: list[Value] = []
    for point in sorted(critical, key=_float):
        if not ordered or not close(ordered[-1], point):
            ordered.append(point)
    if not ordered:
        return [Fraction(0)]
    between = [(_float(low) + _float(high)) / 2 for low, high in pairwise(ordered)]
    beyond = [end + step * (1 + abs(end)) for end, step in ((_float(ordered[0]), -1), (_float(ordered[-1]), 1))]
    return [*ordered, *between, *beyond]


def _float(value: Value) -> Any:
    """The real part as a number of mpmath."""
    return evaluation.floating(value).real
