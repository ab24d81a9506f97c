r"""Units at the end of an answer, and how many of one make another: `split("5\\text{ cm}") == ("5", Unit(...))`.

A unit is a product of powers of dimensions with an exact factor: 50 mm is 5 cm, 60 km/h is not 60 mph. Words that are
no known unit ("apples") say what was counted and are dropped, unless they change the value ("or more").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from r1kit.verifiers import number

_TEXT = r"\\(?:text|mbox|textrm|textbf|textit|mathrm|mathbf|operatorname|rm)\s*"
_NAMES: dict[str, dict[str, str | int]] = {
    "length": {
        "mm millimeter millimetre": "1/1000", "cm centimeter centimetre": "1/100", "dm decimeter": "1/10",
        "m meter metre": 1, "km kilometer kilometre": 1000, "in inch inches": "127/5000", "ft foot feet": "381/1250",
        "yd yard": "1143/1250", "mi mile": "201168/125",
    },
    "time": {
        "ms millisecond": "1/1000", "s sec second": 1, "min minute": 60, "h hr hour": 3600, "day": 86400,
        "week": 604800,
    },
    "month": {"month": 1, "year yr": 12},
    "mass": {"mg milligram": "1/1000", "g gram": 1, "kg kilogram": 1000},
    "weight": {"oz ounce": 1, "lb lbs pound": 16, "ton": 32000},
    "volume": {"ml milliliter millilitre": "1/1000", "l liter litre": 1},
    "gallon": {"cup": 1, "pint": 2, "quart": 4, "gallon gal": 16},
    "angle": {"degree deg": 1},
    "radian": {"radian rad": 1},
    "$": {"dollar usd $": 1, "cent ¢": "1/100"},
    "€": {"euro eur €": 1},
    "£": {"gbp £": 1},
    "¥": {"yen yuan rmb cny ¥": 1},
    "₹": {"rupee inr ₹": 1},
}  # fmt: skip
_KNOWN = {
    name: (dimension, Fraction(factor))
    for dimension, sizes in _NAMES.items()
    for names, factor in sizes.items()
    for name in names.split()
}
_SHORT = {name for name in _KNOWN if len(name) == 1 and name.isalpha()}
_ABBREVIATED = {"mph": "mile/hour", "kph": "km/hour", "kmh": "km/hour", "mps": "m/s", "fps": "ft/s", "sq": "square"}
_POWER = r"\s*(?:\^\s*\{?\s*([1-4])\s*\}?)?"
_WRAPPED = re.compile(_TEXT + r"\{([^{}]*)\}" + _POWER + r"$")
_RATIO = re.compile(rf"\\frac\s*\{{\s*{_TEXT}\{{([^{{}}]*)\}}\s*\}}\s*\{{\s*{_TEXT}\{{([^{{}}]*)\}}\s*\}}$")
_PLAIN_UNITS = re.compile(
    rf"\s*(?:{_TEXT}\{{\s*)?(?:square|cubic|sq\.?|cu\.?)?\s*(?<![A-Za-z])units?\s*\}}?(?:\^\{{?\d\}}?)?$"
)
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))\s*[CF]?$|\\degrees?\s*[CF]?$")
_TURNED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_BARE = re.compile(r"(?<=[\d})\sA-Za-z.])(?<![\\A-Za-z])([A-Za-z][A-Za-z/. ]{0,39}?)" + _POWER + r"$")
_SIGN = re.compile(r"^([+-]?\s*)(?:\\text\s*\{\s*)?(?:US\s?)?\\?([$€£¥₹])(?:\s*\})?\s*(?=[\d.\\-])|\\?([€£¥₹¢])$")


@dataclass(frozen=True, slots=True)
class Unit:
    """Powers of dimensions, sorted, and how many base units one of it is: m/s is ((length, 1), (time, -1)), 1."""

    powers: tuple[tuple[str, int], ...]
    factor: Fraction


def split(text: str, *, letters: bool = False) -> tuple[str, Unit | None]:
    """What stands before the unit, and the unit, or None where there is no known one.

    Bare single letters ("5 m") are units only with `letters`: they may be variables.
    """
    if (plain := _PLAIN_UNITS.search(text)) and plain.start():
        return text[: plain.start()].strip(), None
    if ratio := _RATIO.search(text):
        return text[: ratio.start()].strip(), named(f"{ratio[1]}/{ratio[2]}")
    if (degrees := _DEGREES.search(text)) and not _TURNED.search(text):
        return text[: degrees.start()].strip(), named("degree")
    if wrapped := _WRAPPED.search(text):
        core, unit = text[: wrapped.start()].strip(), named(wrapped[1], wrapped[2])
        if core and (unit is not None or (len(wrapped[1].strip()) > 1 and number.neutral(wrapped[1]))):
            return core, unit
        return text, None
    if sign := _SIGN.search(text):
        return (text[: sign.start()] + (sign[1] or "") + text[sign.end() :]).strip(), named(sign[2] or sign[3])
    bare = _BARE.search(text)
    unit = named(bare[1], bare[2], letters=letters) if bare and bare.start() else None
    return (text[: bare.start()].strip(), unit) if bare and unit else (text, None)


def named(text: str, power: str | None = None, *, letters: bool = True) -> Unit | None:
    """`named("square inches")`, `named("km/h")`, `named("miles per hour")`, or None for a name that is not known."""
    words = " ".join(re.sub(r"[~.]", " ", text).split()).casefold() if len(text) > 1 else text
    words = _ABBREVIATED.get(words, words)
    if not letters and words in _SHORT:
        return None
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for place, piece in enumerate(re.split(r"\s*/\s*|\s+per\s+", words)):
        exponent = int(power or 1) if place == 0 else 1
        if prefix := re.match(r"(square|sq|cubic|cu) (?=\S)", piece):
            piece, exponent = piece[prefix.end() :], 2 if prefix[1].startswith("sq") else 3
        elif suffix := re.fullmatch(r"(.*\S)\s+(squared|cubed)", piece):
            piece, exponent = suffix[1], 2 if suffix[2] == "squared" else 3
        known = _KNOWN.get(piece) or _KNOWN.get(piece.removesuffix("s"))
        if known is None:
            return None
        exponent = exponent if place == 0 else -exponent
        powers[known[0]] = powers.get(known[0], 0) + exponent
        factor *= known[1] ** exponent
    return Unit(tuple(sorted((name, times) for name, times in powers.items() if times)), factor)
