"""Whether what a program printed or returned is what was expected: exact, but for white space and, in fractions, a
tolerance."""

from __future__ import annotations

import math
import re
from itertools import chain
from typing import Any

_FRACTION = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d{1,4})?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_MAX_DIGITS = 400


def same_output(expected: str, printed: str, tolerance: float, indent: bool = True) -> bool:
    """Line by line without the white space at line ends and after the last line, else word by word.

    White space before the first word of a line and empty lines at the start count unless `indent` is False, for sets
    whose expected outputs are careless about it. Words must be equal; where the expected one is written as a fraction
    ("0.50", "1e-3"), a number that is close will do: `same_output("0.5 7", "0.5000001 7\\n", 1e-6)`. Whole numbers have
    no tolerance, however large.
    """
    if not indent:
        expected, printed = expected.lstrip(), printed.lstrip()
    lines, others = _lines(expected), _lines(printed)
    if indent and [_indent(line) for line in lines] != [_indent(line) for line in others]:
        return False
    wanted, given = [line.split() for line in lines], [line.split() for line in others]
    if [len(line) for line in wanted] != [len(line) for line in given]:
        return False
    words = zip(chain.from_iterable(wanted), chain.from_iterable(given), strict=True)
    return all(want == got or _close(want, got, tolerance) for want, got in words)


def same_value(expected: Any, data: Any, tolerance: float) -> bool:
    """Equality of JSON data and a returned value as the wire has it (see `code_wire`).

    Tuples count as lists, keys of dicts by their text, floats by the tolerance; nothing else is stretched: 1 is no
    True. Sizes are compared first and nothing is hashed but text, so that no value takes long.
    """
    if isinstance(expected, float):
        return _is_number(data) and (expected == data or _near(expected, data, tolerance))
    if isinstance(expected, list | tuple):
        items = data.get("tuple") if isinstance(data, dict) else data
        if not isinstance(items, list) or len(items) != len(expected):
            return False
        return all(same_value(want, got, tolerance) for want, got in zip(expected, items, strict=True))
    if isinstance(expected, dict):
        named = _named(data, len(expected))
        return named is not None and all(
            name in named and same_value(want, named[name], tolerance) for name, want in expected.items()
        )
    if isinstance(expected, int) and not isinstance(expected, bool):
        return (_is_number(data) and bool(expected == data)) or bool(data == {"int": hex(expected)})
    return type(expected) is type(data) and bool(expected == data)


def _is_number(data: Any) -> bool:
    return isinstance(data, int | float) and not isinstance(data, bool)


def _named(data: Any, size: int) -> dict[str, Any] | None:
    """A dict of the wire by the text of its keys, if it has that size and every key is plain."""
    pairs = data.get("dict") if isinstance(data, dict) else None
    if not isinstance(pairs, list) or len(pairs) != size:
        return None
    if not all(isinstance(pair, list) and len(pair) == 2 and not isinstance(pair[0], list | dict) for pair in pairs):
        return None
    return {str(key): item for key, item in pairs}


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _close(want: str, got: str, tolerance: float) -> bool:
    if len(got) > _MAX_DIGITS or not _FRACTION.fullmatch(want) or not _NUMBER.fullmatch(got):
        return False
    return _near(float(want), float(got), tolerance)


def _near(want: float, got: float, tolerance: float) -> bool:
    try:
        return math.isclose(want, got, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer beyond all floats
        return False
