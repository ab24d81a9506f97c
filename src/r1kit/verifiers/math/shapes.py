r"""Parses the shape of an answer, before anything is computed: tuples are not sets, closed intervals are not open.

`parse_shape("x=1 \\text{ or } x=2")` is a `Group` of two scalars. Text without an inner structure is a `Scalar`,
whatever it contains. The caller limits the depth of nesting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from r1kit.verifiers import number, prose, spelling

MAX_ITEMS = 64
EMPTY_SET = "\\emptyset"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, or any text without an inner structure."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Several values in brackets, such as "(" and "]". A set has "{" and "}", a list has "".

    Sets and lists are unordered. A union has the brackets "u"; its items are intervals or sets. `name` is the variable
    of an interval written as an inequality.
    """

    opening: str
    closing: str
    items: tuple[Shape, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Equation:
    """The `sides` of an equation. A first side that merely names the value (x, f(x), AB) is the `name` instead."""

    name: str | None
    sides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inequality:
    """An inequality that is not an interval, as text."""

    text: str


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Shape, ...], ...]


Shape = Scalar | Group | Equation | Inequality | Matrix

_OPENING, _CLOSING = "([{", ")]}"
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}(?:\{[lcr| ]*\})?|\\[A-Za-z]+|\\.", re.DOTALL)
_WORD = (
    r"\\(?:text|mbox|mathrm|textrm)\s*\{\s*(?:,\s*)?(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\lor|\\vee"
)
_AND = re.compile(r"(?<![A-Za-z\\])and(?![A-Za-z])")
_SEPARATOR = re.compile(rf"\s*(?:[,;]\s*(?:{_WORD})?|{_WORD}|\\\\|\n)\s*")
_UNION = re.compile(r"\\cup(?![A-Za-z])|\\bigcup(?![A-Za-z])")
_IN = re.compile(r"\s*[A-Za-z](?:_\{?\w\}?)?\s*\\in(?![A-Za-z])\s*")
_RELATIONS = (
    (re.compile(r"\\leq?(?:slant)?(?![A-Za-z])|<="), "≤"),
    (re.compile(r"\\geq?(?:slant)?(?![A-Za-z])|>="), "≥"),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\neq?(?![A-Za-z])|!=|\\not\s*="), "≠"),
    (re.compile(r":=|=="), "="),
)
_INEQUALITY = re.compile(r"[<>≤≥]")
_VARIABLE = re.compile(r"[A-Za-z](?:_\{?\w\}?)?|\\[a-z]{2,7}", re.ASCII)
_VARIABLES = re.compile(rf"\\\\[A-Za-z]{{8,}}|{_VARIABLE.pattern}", re.ASCII)
_CALL = r"(?:[A-Za-z]{1,3}|\\text\{[A-Za-z ]+\})'*(?:_\{?\w\}?)?\([A-Za-z0-9 ,|]{1,20}\)"
_OVER = r"m?\s*\\(?:angle|triangle|overline|vec|mathbf|widehat|hat|bar|cos|sin|tan)\s*"
_NAME = re.compile(
    rf"[A-Za-z]'*(?:_\{{?\w{{1,3}}\}}?)?|\\(?!pi|sqrt|frac|infty|cdot)[a-z]{{2,7}}|{_CALL}"  # x, x_1, \theta, f(x)
    rf"|(?:{_OVER})?\{{?\s*[A-Z]{{1,4}}\s*\}}?|\|\s*[A-Z]{{2}}\s*\||\[\s*[A-Z]{{3,6}}\s*\]"  # AB, \angle ABC, [ABC]
    r"|\\(?:sin|cos|tan)\s*(?:\\[a-z]+|[A-Za-z])|(?:\\text\{)?\s*[A-Za-z][A-Za-z ]{2,30}\}?"  # \sin x, Area
    r"|\(\s*[A-Za-z]\s*(?:,\s*[A-Za-z]\s*){1,3}\)"  # (x, y)
)
_MATRIX = re.compile(r"\\begin\{([pb]?)matrix\}(.*)\\end\{\1matrix\}", re.DOTALL)
_ARRAY = re.compile(r"[(\[]\s*\\begin\{array\}\{[lcr| ]*\}(.*)\\end\{array\}\s*[)\]]", re.DOTALL)
_POINT = re.compile(r"[A-Z]'?\s*(?=\([^()]*,[^()]*\)$)")
_REALS = re.compile(r"\\mathbb\s*\{?\s*R\s*\}?|\\R(?![A-Za-z])|(?:all\s+)?real(?:s|\s+numbers)", re.IGNORECASE)
_SUCH_THAT = re.compile(
    r"\s*([A-Za-z])\s*(?:\\in\s*(?:\\mathbb\s*\{?\s*R\s*\}?|\\R(?![A-Za-z])))?\s*(?:\\mid(?![A-Za-z])|\\vert|\\colon|[|:])\s*"
)
_NO_SET = re.compile(r"\\(?:varnothing|emptyset)(?![A-Za-z])|\\\{\s*\\\}|\\phi")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_PM = re.compile(r"\\(pm|mp)(?![A-Za-z])")


@lru_cache(maxsize=4096)
def parse_shape(text: str) -> Shape:
    """The shape of an answer that was normalised by `spelling.plain`."""
    text = spelling.undressed(text)
    for pattern, sign in _RELATIONS:
        text = pattern.sub(sign, text)
    return _parse(text.strip())


def _parse(text: str) -> Shape:
    text = spelling.unwrapped(text.strip())
    if number.parse_number(text) is not None or number.compound(text) is not None:
        return Scalar(text)  # 1,234 and "5 feet and 6 inches" are not lists
    if contained := _IN.match(text):
        return _parse(text[contained.end() :])
    if point := _POINT.match(text):
        return _parse(text[point.end() :])
    if _REALS.fullmatch(text):
        return Group("(", ")", (Scalar("-\\infty"), Scalar("\\infty")))
    if _NO_SET.fullmatch(text):
        return Scalar(EMPTY_SET)
    matrix = _MATRIX.fullmatch(text) or _ARRAY.fullmatch(text)
    if matrix and "\\begin" not in matrix[matrix.lastindex or 1]:
        rows = re.split(r"\\\\(?:\[[^\]]*\])?", matrix[matrix.lastindex or 1])
        return Matrix(tuple(tuple(_parse(entry) for entry in row.split("&")) for row in rows if row.strip()))
    parts = pieces(text, _UNION)
    if len(parts) > 1 and all(parts):
        return Group("u", "u", tuple(_parse(part) for part in parts))
    if shape := _bracketed(text) or _list(text) or _relation(text):
        return shape
    signs = _PM.findall(text)
    if len(signs) != 1 or "=" in text:
        return Scalar(text)
    values = [_PM.sub(sign, text).strip().removeprefix("+").strip() for sign in ("+", "-")]
    return Group("", "", tuple(map(Scalar, values)))


def pieces(text: str, separator: re.Pattern[str]) -> list[str]:
    """The text between separators outside of brackets; one piece if there are none, or too many."""
    parts, start, depth, position = [], 0, 0, 0
    while position < len(text):
        cut = separator.match(text, position) if depth == 0 else None
        if cut and cut.end() > cut.start():
            parts.append(text[start : cut.start()].strip())
            start = position = cut.end()
            continue
        command = _COMMAND.match(text, position)
        token = command[0] if command else text[position]
        opens = token in ("\\{", "\\langle", "\\lbrace") or token.startswith("\\begin")
        closes = token in ("\\}", "\\rangle", "\\rbrace") or token.startswith("\\end")
        depth += (opens or token in _OPENING) - (closes or token in _CLOSING)
        position += len(token)
    parts.append(text[start:].strip())
    return parts if len(parts) <= MAX_ITEMS else [text]


def _bracketed(text: str) -> Shape | None:
    for opening, closing in (("\\{", "\\}"), ("\\lbrace", "\\rbrace"), ("\\langle", "\\rangle")):
        if text.startswith(opening) and text.endswith(closing):
            return _inside(text[len(opening) : -len(closing)], *("()" if "angle" in opening else "{}"))
    if len(text) > 2 and text[0] in _OPENING and text[-1] in _CLOSING:
        return _inside(text[1:-1], text[0], text[-1])
    return None


def _inside(inner: str, opening: str, closing: str) -> Shape | None:
    depth = 0
    for char in inner.replace("\\{", "").replace("\\}", ""):  # "(1,2),(3,4)" also begins and ends with brackets
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth < 0:
            return None
    if opening == "{" and (such := _SUCH_THAT.match(inner)):  # {x | x > 3}
        condition = _parse(inner[such.end() :])
        if isinstance(condition, Group) and condition.name == such[1]:
            return condition
    items = pieces(inner, _SEPARATOR)
    if len(items) == 1 and opening != "{":
        return _parse(inner) if (opening, closing) == ("(", ")") and not inner.startswith("-") else None
    return Group(opening, closing, _expanded(tuple(_parse(item) for item in items), opening))


def _expanded(items: tuple[Shape, ...], opening: str) -> tuple[Shape, ...]:
    """The items of a set or list, with `1 \\pm 2` replaced by its two values; ordered groups stay as they are."""
    if opening in ("(", "["):
        return items
    flat: list[Shape] = []
    for item in items:
        flat.extend(item.items if isinstance(item, Group) and item.opening == "" else [item])
    return tuple(flat)


def _list(text: str) -> Shape | None:
    items = pieces(text, _SEPARATOR)
    if len(items) < 2:
        return None
    shapes = [_parse(item) for item in items if item]
    if not all(items):  # such as "1,2,"
        return Scalar(text)
    if all(isinstance(shape, Group) and shape.name for shape in shapes):  # inequalities
        if not _AND.search(text):
            return Group("u", "u", tuple(shapes))
        return _both(shapes) or Inequality("".join(text.split()))
    named = [(shape.name, shape) for shape in shapes if isinstance(shape, Equation) and shape.name]
    if named and len({name for name, _ in named}) == 1:  # x = 1 or x = 2; x = 1, 2
        shapes = [Scalar(shape.sides[-1]) if isinstance(shape, Equation) else shape for shape in shapes]
    elif len(named) == len(shapes):  # x = 1, y = 2 is the point (1, 2)
        named.sort(key=lambda pair: pair[0])
        return Group("(", ")", tuple(_parse(shape.sides[-1]) for _, shape in named))
    return Group("", "", _expanded(tuple(shapes), ""))


def _both(rays: list[Shape]) -> Shape | None:
    """`x > 2 and x < 5` as an interval; None if it is empty or not an interval."""
    if len(rays) != 2 or not all(isinstance(ray, Group) for ray in rays):
        return None
    below, above = sorted(rays, key=lambda ray: isinstance(ray, Group) and ray.items[0] == Scalar("-\\infty"))
    assert isinstance(below, Group) and isinstance(above, Group)
    ends = below.items[0], above.items[1]
    if below.name != above.name or below.items[1] != Scalar("\\infty") or above.items[0] != Scalar("-\\infty"):
        return None
    low, high = (number.parse_number(end.text) if isinstance(end, Scalar) else None for end in ends)
    if low is None or high is None or low.value >= high.value:
        return None
    return Group(below.opening, above.closing, ends, below.name)


def _relation(text: str) -> Shape | None:
    exact, approximates, rough = text.partition("\\approx")
    if approximates and (approximation := number.parse_number(rough)):  # \frac{5}{12} \approx 0.4167
        value = number.parse_number(exact)
        if value is None or 10 * abs(value.value - approximation.value) <= abs(value.value):
            return _parse(exact)
    if "≠" in text or approximates:
        return Inequality("".join(text.split()))
    if _INEQUALITY.search(text):
        return _interval(text) or Inequality("".join(text.split()))
    sides = pieces(text, re.compile("="))
    if len(sides) < 2:
        return None
    if not all(sides):
        return Scalar(text)
    if len(sides) == 2 and _names(sides[1]) and not _names(sides[0]):
        sides.reverse()  # 5 = x
    name = "".join(sides[0].split()) if _names(sides[0]) else None
    if name and _VARIABLE.fullmatch(name) and any(name in _VARIABLES.findall(side) for side in sides[1:]):
        name = None  # x = 2x + 1 has a solution but does not name it
    return Equation(name, tuple(sides[1:] if name else sides))


def _names(side: str) -> bool:
    """Whether a side of an equation merely names the value, like x or "total cost", unlike "twice x" and ln(x)."""
    if not _NAME.fullmatch(side):
        return False
    words = re.findall(r"[A-Za-z]+", _TEXT.sub(r" \1 ", side))
    if max(map(len, words), default=0) < 2:  # x, f(x), (x, y), but not the product x y
        return "(" in side or len(words) < 2
    return (side.startswith("\\") and not side.startswith("\\text")) or prose.names(" ".join(words))


def _interval(text: str) -> Shape | None:
    """`x > 3`, `3 < x` or `0 ≤ x < 1` as an interval; None for other inequalities."""
    parts = [part.strip() for part in re.split(r"([<>≤≥])", text)]
    if len(parts) == 3:
        left, sign, right = parts
        if _VARIABLE.fullmatch(right) and not _VARIABLE.fullmatch(left):
            left, sign, right = right, sign.translate(str.maketrans("<>≤≥", "><≥≤")), left
        if not _VARIABLE.fullmatch(left) or "=" in right or not right:
            return None
        bracket = {"<": ")", ">": "(", "≤": "]", "≥": "["}[sign]
        bound = _parse(right)
        if bracket in ")]":
            return Group("(", bracket, (Scalar("-\\infty"), bound), left)
        return Group(bracket, ")", (bound, Scalar("\\infty")), left)
    if len(parts) == 5 and _VARIABLE.fullmatch(parts[2]) and parts[0] and parts[4]:
        low, first, _, second, high = parts
        if first in ">≥" and second in ">≥":
            low, first, second, high = high, second, first, low
            first, second = first.translate(str.maketrans(">≥", "<≤")), second.translate(str.maketrans(">≥", "<≤"))
        if first in "<≤" and second in "<≤":
            brackets = "(" if first == "<" else "[", ")" if second == "<" else "]"
            return Group(*brackets, (_parse(low), _parse(high)), parts[2])
    return None
