r"""Parses the shape of an answer, before anything is computed: tuples are not sets, closed intervals are not open.

`parse_shape("x=1 \\text{ or } x=2")` is a `Group` of two scalars. Text without an inner structure is a `Scalar`,
whatever it contains. The caller limits the depth of nesting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product, takewhile

from r1kit.verifiers import number, spelling
from r1kit.verifiers.math.names import VARIABLE, VARIABLES, names
from r1kit.verifiers.math.notation import normalised, parameter

MAX_ITEMS = 64
REGIONS = ("or", "and", ",", "without")  # brackets of groups that are regions
EMPTY_SET = "\\emptyset"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, or any text without an inner structure."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Several values in brackets, such as "(" and "]". A set has "{" and "}", a list has "".

    Sets and lists are unordered. Three groups are regions of the real line: a union has the brackets "or", an
    intersection "and", a difference "without". The whole numbers of a region have "whole". `name` is what the values
    are values of, if the text says so. `alternatives` are joined by "or".
    """

    opening: str
    closing: str
    items: tuple[Shape, ...]
    name: str = ""
    alternatives: bool = False


@dataclass(frozen=True, slots=True)
class Equation:
    """The `sides` of an equation. First sides that merely name the value (x, f(x), AB) are the `name` instead."""

    name: str | None
    sides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inequality:
    """Sides with the signs between them, each of <, >, ≤, ≥ and ≠."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Shape, ...], ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    """The terms of `3:4`."""

    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """All values of some formulas for whole numbers `parameter`: general solutions and congruences."""

    parameter: str
    items: tuple[str, ...]


Shape = Scalar | Group | Equation | Inequality | Matrix | Ratio | Family

_OPENING, _CLOSING = "([{", ")]}"
_COMMAND = re.compile(r"\\(?:begin|end)\s*\{[a-z*]+\}(?:\{[lcr| ]*\})?|\\[A-Za-z]+|\\.", re.DOTALL)
_AND = re.compile(r"(?<![A-Za-z\\])and(?![A-Za-z])")
_OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])")
_SEPARATOR = re.compile(rf"\s*(?:[,;]\s*(?:{_AND.pattern}|{_OR.pattern})?|{_AND.pattern}|{_OR.pattern}|\\\\|\n)\s*")
_UNION = re.compile(r"\\(?:big)?cup(?![A-Za-z])")
_MINUS = re.compile(r"\\setminus(?![A-Za-z])")
_COLON = re.compile(r":")
_EQUALS = re.compile(r"=")
_SIGNS = re.compile(r"[<>≤≥≠]")
_IN = re.compile(  # x \in A, (x, y) \in A, A \cap B = C
    r"\s*(?:[A-Za-z](?:_\{?\w\}?)?|\([a-z](?:,\s*[a-z]){1,3}\))\s*\\in(?![A-Za-z])\s*|[A-Z]\s*\\c[au]p\s*[A-Z]\s*=\s*"
)
_CONGRUENT = re.compile(
    r"^(?:(?:[A-Za-z]|\\[a-z]+)\s*\\equiv(?![A-Za-z])\s*)?(?P<rest>[^=<>]+?)\s*"
    r"(?:\\pmod\s*\{?\s*(?P<a>\w+)\s*\}?|\(\s*\\?b?mod\s*\{?\s*(?P<b>\w+)\s*\}?\s*\))$"
)
_MATRIX = re.compile(r"\\begin\{([pb]?)matrix\}(.*)\\end\{\1matrix\}", re.DOTALL)
_ARRAY = re.compile(r"[(\[]\s*\\begin\{array\}\{[lcr| ]*\}(.*)\\end\{array\}\s*[)\]]", re.DOTALL)
_CASES = re.compile(r"(?:\\\{\s*)?\\begin\{(cases|array|aligned)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}\s*\.?", re.DOTALL)
_POINT = re.compile(r"[A-Z]'?\s*(?=\([^()]*,[^()]*\)$)")
REALS = re.compile(
    r"(?:[a-z]\s*\\in\s*)?\\mathbb\{R\}|(?:\\text\s*\{)?\s*(?:all\s+)?real(?:s|\s+numbers|\s+[a-z])\s*\}?",
    re.IGNORECASE,
)
_SUCH_THAT = re.compile(r"\s*([A-Za-z])\s*(?:\\in\s*\\mathbb\s*\{\s*R\s*\})?\s*(?:\\mid(?![A-Za-z])|[|:])\s*")
_FRENCH = re.compile(r"(?=\]|.*\[$)([\[\](])([^\[\],;]+)[,;]([^\[\],;]+)([\[\])])")  # ]1, 2[ excludes both ends
_NO_SET = re.compile(
    r"\\(?:varnothing|emptyset)(?![A-Za-z])|\\\{\s*\\\}|\\phi"
    r"|(?:\\text\s*\{)?\s*(?:no (?:real )?solutions?|无解|無解|空集)\s*\}?",
    re.IGNORECASE,
)
_SPACE = re.compile(r"(?<![A-Za-z])\s+|\s+(?![A-Za-z])")  # that does not end a command
_PM = re.compile(r"\\(pm|mp)(?![A-Za-z])")


@lru_cache(maxsize=4096)
def parse_shape(text: str) -> Shape:
    """The shape of an answer that was normalised by `spelling.plain`."""
    text = normalised(text)
    return _family(text) or _parse(text)


def _family(text: str) -> Shape | None:
    """A general solution `a + k b` for whole k, or a congruence."""
    inner = text[2:-2] if text.startswith("\\{") and text.endswith("\\}") else text
    if declared := parameter(inner):
        body, letter = declared
        body = _SUCH_THAT.sub("", re.sub(r"\s*(?:[|:]|\\mid)$|\\}$", "", body.removeprefix("\\{")).strip(), count=1)
    elif congruence := _CONGRUENT.match(text):
        modulus = congruence["a"] or congruence["b"]
        letter = "k"
        body = ",".join(f"({item}) + ({modulus}) k" for item in pieces(congruence["rest"], _SEPARATOR))
    else:
        return None
    shape = _parse(body)
    items: tuple[Shape, ...] = shape.items if isinstance(shape, Group) and shape.opening in ("", "{") else (shape,)
    items = tuple(Scalar(item.sides[-1]) if isinstance(item, Equation) and item.name else item for item in items)
    texts = tuple(item.text for item in items if isinstance(item, Scalar))
    if len(texts) == len(items):
        return Family(letter, texts)
    return Group("whole", "whole", (shape,)) if is_region(shape) and region_name(shape) == letter else shape


def _parse(text: str) -> Shape:
    text = spelling.unwrapped(text.strip())
    bracketed = text[:1] in _OPENING and "," in text
    if not bracketed and (number.parse_number(text) is not None or number.compound(text) is not None):
        return Scalar(text)  # 1,234 and "5 feet and 6 inches" are not lists, but (1,234) is a pair
    if REALS.fullmatch(text):
        return Group("(", ")", (Scalar("-\\infty"), Scalar("\\infty")))
    if contained := _IN.match(text):
        return _parse(text[contained.end() :])
    if point := _POINT.match(text):
        shape = _parse(text[point.end() :])
        return replace(shape, name="C") if point[0].strip() == "C" and isinstance(shape, Group) else shape
    if _NO_SET.fullmatch(text):
        return Scalar(EMPTY_SET)
    if matrix := _matrix(text):
        return matrix
    if french := _FRENCH.fullmatch(text):
        brackets = "(" if french[1] == "]" else french[1], ")" if french[4] == "[" else french[4]
        return Group("or", "or", (Group(*brackets, (_parse(french[2]), _parse(french[3]))),))
    for pattern, operation in ((_UNION, "or"), (_MINUS, "without")):
        parts = pieces(text, pattern)
        if len(parts) > 1 and all(parts):
            return Group(operation, operation, tuple(_parse(part) for part in parts))
    terms = pieces(text, _COLON)
    if len(terms) > 1 and all(terms) and "=" not in text:
        return Ratio(tuple(terms))
    return _bracketed(text) or _list(text) or _signs(text) or _relation(text) or Scalar(text)


def _matrix(text: str) -> Shape | None:
    matrix = _MATRIX.fullmatch(text) or _ARRAY.fullmatch(text)
    if matrix and "\\begin" not in matrix[matrix.lastindex or 1]:
        rows = re.split(r"\\\\(?:\[[^\]]*\])?", matrix[matrix.lastindex or 1])
        return Matrix(tuple(tuple(_parse(entry) for entry in row.split("&")) for row in rows if row.strip()))
    system = _CASES.fullmatch(text)
    return _parse(system[2].replace("&", " ").replace("\\\\", ",").strip(" ,")) if system else None


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
        opens = token in ("\\{", "\\langle") or token.startswith("\\begin")
        closes = token in ("\\}", "\\rangle") or token.startswith("\\end")
        depth += (opens or token in _OPENING) - (closes or token in _CLOSING)
        position += len(token)
    parts.append(text[start:].strip())
    return parts if len(parts) <= MAX_ITEMS else [text]


def _bracketed(text: str) -> Shape | None:
    for opening, closing in (("\\{", "\\}"), ("\\langle", "\\rangle")):
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
    if opening == "{" and (such := _SUCH_THAT.match(inner)):  # {x | x > 3}, in which x is bound
        condition = _parse(inner[such.end() :])
        variable = region_name(condition)
        return Group("or", "or", (condition,), "bound") if variable == such[1] else None
    items = pieces(inner, _SEPARATOR)
    if len(items) == 1 and opening != "{":
        return _parse(inner) if (opening, closing) == ("(", ")") and not inner.startswith("-") else None
    if any(_PM.search(item) for item in items) and opening in ("(", "["):  # (0, \pm 3) are two points
        variants = _variants(inner)
        points = [Group(opening, closing, tuple(map(_parse, pieces(variant, _SEPARATOR)))) for variant in variants]
        return Group("", "", tuple(points)) if len(points) > 1 else None
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
    if not all(items):  # such as "1,2,"
        return Scalar(text)
    shapes = [_parse(item) for item in items]
    if any(isinstance(shape, Inequality) or (is_region(shape) and not is_interval(shape)) for shape in shapes):
        return _conditions(text, items, shapes)
    if all(map(is_interval, shapes)) and any(map(is_region, shapes)):
        return Group("or", "or", tuple(shapes))
    named = [(shape.name, shape) for shape in shapes if isinstance(shape, Equation) and shape.name]
    variables = {name for name, _ in named if VARIABLE.fullmatch(name)}
    if len(variables) == len(shapes) and not _OR.search(text):  # x = 1, y = 2 is the point (1, 2)
        named.sort(key=lambda pair: pair[0])
        brackets = ("", "") if len({name[0] for name in variables}) == 1 else ("(", ")")  # x_1 = 1, x_2 = 2 are roots
        values = tuple(_parse(shape.sides[-1]) for _, shape in named)
        return Group(*brackets, values, ",".join(name for name, _ in named))
    return Group("", "", _expanded(tuple(shapes), ""), alternatives=bool(_OR.search(text)))


def _conditions(text: str, items: list[str], shapes: list[Shape]) -> Shape:
    """Inequalities joined by words, or by commas: those must all hold, unless no number satisfies all of them."""
    first = shapes[0]
    if isinstance(first, Inequality) and first.signs == ("≠",):  # x ≠ 1, 2
        shapes = [
            shape if isinstance(shape, Inequality) else replace(first, sides=(first.sides[0], item))
            for item, shape in zip(items, shapes, strict=True)
        ]
        return Group("and", "and", tuple(shapes))
    joined = "or" if _OR.search(text) else "and" if _AND.search(text) else ","
    return Group(joined, joined, tuple(shapes))


def _signs(text: str) -> Shape | None:
    r"""Both readings of `1 \pm \sqrt2`, of an equation or an inequality with it; `\mp` is the other sign."""
    variants = _variants(text) if _PM.search(text) else []
    if len(variants) < 2:
        return None
    shapes = tuple(map(_parse, variants))
    if all(isinstance(shape, Inequality) for shape in shapes):
        return _conditions("", variants, list(shapes))
    return Group("", "", shapes)


def _variants(text: str) -> list[str]:
    """The text with every combination of signs; all signs move together if one of them is `\\mp`."""
    first, *rest = _PM.split(text)
    kinds, parts = rest[::2], rest[1::2]
    if len(kinds) > 4:
        return [text]
    variants = []
    for upper in product((True, False), repeat=1 if "mp" in kinds else len(kinds)):
        plus = [(up == (kind == "pm")) for up, kind in zip(upper * (len(kinds) // len(upper)), kinds, strict=True)]
        signed = first + "".join(("+" if sign else "-") + part for sign, part in zip(plus, parts, strict=True))
        variants.append(re.sub(r"(^|[=(,<>≤≥≠])\s*\+", r"\1", signed).strip())
    return variants


def _relation(text: str) -> Shape | None:
    exact, approximates, rough = text.replace("\\$", "").partition("\\approx")
    if approximates:  # \frac{5}{12} \approx 0.4167
        name, equals, value = exact.partition("=")
        if equals and "=" not in value and names(name, value):  # x = \frac{5}{12} \approx 0.4167
            exact = value
        return Equation("≈", (exact.strip(), rough.strip())) if number.parse_number(rough) else Scalar(text)
    if _SIGNS.search(text):
        signs, sides = tuple(_SIGNS.findall(text)), tuple(side.strip() for side in _SIGNS.split(text))
        whole = all(sides) and not any("=" in side for side in sides)
        return Inequality(sides, signs) if whole and len(sides) == len(pieces(text, _SIGNS)) < 5 else Scalar(text)
    return _equation(text)


def _equation(text: str) -> Shape | None:
    sides = pieces(text, _EQUALS)
    if len(sides) < 2:
        return None
    if not all(sides):
        return Scalar(text)
    if len(sides) == 2 and names(sides[1]) and not names(sides[0]):
        sides.reverse()  # 5 = x
    # one name, or several in AB = AC = 5
    leading = [_SPACE.sub("", side) for side in takewhile(partial(names, value=sides[-1]), sides[:-1])]
    used = {name for side in sides[len(leading) :] for name in VARIABLES.findall(side)}
    if any(VARIABLE.fullmatch(name) and name in used for name in leading):
        leading = []  # x = 2x + 1 has a solution but does not name it
    return Equation("=".join(leading) or None, tuple(sides[len(leading) :]))


def is_interval(shape: Shape) -> bool:
    """Whether a shape is two values in round or square brackets."""
    return isinstance(shape, Group) and shape.opening in ("(", "[") and len(shape.items) == 2


def is_region(shape: Shape) -> bool:
    """Whether a shape is certainly a set of real numbers, and not a point."""
    if isinstance(shape, Group) and is_interval(shape):
        ends = [item.text.lstrip("+-") for item in shape.items if isinstance(item, Scalar)]
        return (shape.opening, shape.closing) != ("(", ")") or "\\infty" in ends
    return isinstance(shape, Inequality) or (
        isinstance(shape, Group) and shape.opening in ("or", "and", ",", "without")
    )


def region_name(shape: Shape) -> str | None:
    """The variable of inequalities and named values; "" without one, None for two different ones."""
    if isinstance(shape, Inequality):
        used = {name for side in shape.sides for name in VARIABLES.findall(side)}
        used -= {"\\pi", "\\sqrt", "\\frac", "\\infty", "e", "\\cdot", "\\times"}
        return used.pop() if len(used) == 1 else None
    if isinstance(shape, Equation):
        return shape.name
    if isinstance(shape, Group) and shape.opening in REGIONS:
        used_by = {region_name(item) for item in shape.items} - {""}
        return used_by.pop() if len(used_by) == 1 else None if used_by else ""
    if isinstance(shape, Group) and shape.items and all(isinstance(item, Equation) for item in shape.items):
        return region_name(shape.items[0])
    return shape.name if isinstance(shape, Group) else ""
