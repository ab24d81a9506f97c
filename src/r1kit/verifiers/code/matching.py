"""Compares a program's output or result with the expected one: exactly, except for white space and float tolerance."""

from __future__ import annotations

import math
import re
from itertools import chain
from typing import Any

_FRACTION = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d{1,4})?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_MAX_DIGITS = 400


def same_output(expected: str, printed: str, tolerance: float, indent: bool = True) -> bool:
    """Whether two outputs have the same words on the same lines; trailing white space and empty lines do not count.

    Indentation and leading empty lines count unless `indent` is False (for sets with careless expected outputs). Words
    must be equal, but an expected decimal ("0.50", "1e-3") matches any close number:
    `same_output("0.5 7", "0.5000001 7\\n", 1e-6)`. Integers have no tolerance, however large.
    """
    if not indent:
        expected, printed = expected.lstrip(), printed.lstrip()
    lines, others = _lines(expected), _lines(printed)
    if indent and [_indent(line) for line in lines] != [_indent(line) for line in others]:
        return False
    expected_words, printed_words = [line.split() for line in lines], [line.split() for line in others]
    if [len(line) for line in expected_words] != [len(line) for line in printed_words]:
        return False
    words = zip(chain.from_iterable(expected_words), chain.from_iterable(printed_words), strict=True)
    return all(
        want == got
        or (
            len(got) <= _MAX_DIGITS
            and _FRACTION.fullmatch(want)
            and _NUMBER.fullmatch(got)
            and _near(float(want), float(got), tolerance)
        )
        for want, got in words
    )


def same_value(expected: Any, data: Any, tolerance: float) -> bool:
    """Whether a returned value, as encoded by `wire`, equals the expected JSON data.

    Tuples count as lists, keys of dicts as text, and floats have the tolerance. Everything else is exact: 1 is not
    True. Sizes are compared first and only text is hashed, so that no value takes long.
    """
    if isinstance(expected, float):
        return _is_number(data) and (expected == data or _near(expected, data, tolerance))
    if isinstance(expected, list | tuple):
        items = data.get("tuple") if isinstance(data, dict) else data
        if not isinstance(items, list) or len(items) != len(expected):
            return False
        return all(same_value(want, got, tolerance) for want, got in zip(expected, items, strict=True))
    if isinstance(expected, dict):
        pairs = data.get("dict") if isinstance(data, dict) else None
        if not isinstance(pairs, list) or len(pairs) != len(expected):
            return False
        if not all(
            isinstance(pair, list) and len(pair) == 2 and not isinstance(pair[0], list | dict) for pair in pairs
        ):
            return False
        items = {str(key): item for key, item in pairs}
        return all(name in items and same_value(want, items[name], tolerance) for name, want in expected.items())
    if isinstance(expected, int) and not isinstance(expected, bool):
        return (_is_number(data) and bool(expected == data)) or bool(data == {"int": hex(expected)})
    return type(expected) is type(data) and bool(expected == data)


def _is_number(data: Any) -> bool:
    return isinstance(data, int | float) and not isinstance(data, bool)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _near(want: float, got: float, tolerance: float) -> bool:
    try:
        return math.isclose(want, got, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer too large for a float
        return False
