r"""Units at the end of an answer, and conversion between them: `split_unit("5\\text{ cm}") == ("5", Unit(...))`.

A unit is a product of powers of dimensions with an exact factor: 50 mm is 5 cm, 60 km/h is not 60 mph. A noun that is
not a known unit ("apples") is its own dimension; other words ("profit of", "per day") label the quantity. If both sides
have a unit or label, they must agree; either side may leave it out.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from r1kit.verifiers import prose

_TEXT = r"\\(?:text|textnormal|mbox|textrm|textbf|textit|mathrm|mathbf|operatorname|rm)\s*"
_UNITS = """
    length: mm millimeter millimetre 1/1000, cm centimeter centimetre 1/100, dm decimeter 1/10, m meter metre 1
    length: km kilometer kilometre 1000, in inch inches 127/5000, ft foot feet 381/1250
    length: yd yard 1143/1250, mi mile 201168/125
    time: ms millisecond 1/1000, s sec second 1, min minute 60, h hr hour 3600, day 86400, week 604800
    month: month 1, year yr 12, decade 120, century centuries 1200
    mass: mg milligram 1/1000, g gram gm 1, kg kilogram kilo 1000; weight: oz ounce 1, lb lbs pound 16, ton 32000
    force: N newton 1; energy: J joule 1, kj kilojoule 1000; power: W watt 1, kw kilowatt 1000; voltage: V volt 1
    current: amp ampere 1; resistance: ohm 1; pressure: pa pascal 1; calorie: cal calorie 1, kcal kilocalorie 1000
    frequency: hz hertz 1; amount: mol mole 1; acre: acre 1; hectare: hectare 1
    spoon: tsp teaspoon 1, tbsp tablespoon 3; bit: bit 1; byte: byte 1; kb: kb kilobyte 1; mb: mb megabyte 1
    gb: gb gigabyte 1; tb: tb terabyte 1; am: am 1; pm: pm 1
    volume: ml milliliter millilitre 1/1000, l L liter litre 1; gallon: cup 1, pint 2, quart 4, gallon gal 16
    angle: degree deg 1; celsius: celsius 1; fahrenheit: fahrenheit 1; kelvin: kelvin 1; radian: radian rad 1
    $: dollar usd $ 1, cent ¢ 1/100; €: euro eur € 1; £: gbp £ 1; ¥: yen yuan rmb cny ¥ 1; ₹: rupee inr ₹ 1
"""  # dimension: names factor, names factor ...
_KNOWN = {
    name: (dimension, Fraction(size.split()[-1]))
    for dimension, _, sizes in (entry.strip().partition(": ") for entry in re.split("[;\n]", _UNITS.strip()))
    for size in sizes.split(", ")
    for name in size.split()[:-1]
}
_SHORT = {name for name in _KNOWN if len(name) == 1 and name.isalpha()}
_ABBREVIATED = {"mph": "mile/hour", "kph": "km/hour", "kmh": "km/hour", "mps": "m/s", "fps": "ft/s", "sq": "square"}
_ABBREVIATED |= {"a m": "am", "p m": "pm"}
_ABBREVIATED |= {
    f"{degree} {name}": scale
    for degree in ("degree", "degrees")
    for scale in ("celsius", "fahrenheit")
    for name in (scale[0], scale)
}
_MONEY = ("$", "€", "£", "¥", "₹")
_POWER = r"\s*(?:\^\s*\{?\s*([1-4])\s*\}?)?"
_WRAPPED = re.compile(_TEXT + r"\{([^{}]*)\}" + _POWER + r"$")
_RATIO = re.compile(rf"\\frac\s*\{{\s*{_TEXT}\{{([^{{}}]*)\}}\s*\}}\s*\{{\s*{_TEXT}\{{([^{{}}]*)\}}\s*\}}$")
_PLAIN_UNITS = re.compile(
    rf"\s*(?:{_TEXT}\{{\s*)?(?:square|cubic|sq\.?|cu\.?)?\s*(?<![A-Za-z])units?\s*\}}?(?:\^\{{?\d\}}?)?$"
)
_DEGREES = re.compile(
    r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\degrees?)\s*(?:\\text\s*\{\s*)?([CF]?)\s*\}?$"
)
_TURNED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_BARE = re.compile(r"(?<=[\d})\sA-Za-z.])(?<![\\A-Za-z])([A-Za-z][A-Za-z/. ]{0,39}?)" + _POWER + r"$")
_SIGN = re.compile(r"^([+-]?\s*)(?:\\text\s*\{\s*)?(?:US\s?)?\\?([$€£¥₹])(?:\s*\})?\s*(?=[\d.\\-])|\\?([€£¥₹¢])$")
_TO_A_POWER = re.compile(r"^(?:square|sq|cubic|cu) |\s(?:squared|cubed)$")
_UNITS_IN_PROSE = tuple(
    re.compile(rf"\s*((?:[A-Za-z/.]+\s+){{{more}}}[A-Za-z/.]+)(?:\s*\^\s*\{{?\s*([1-4])\s*\}}?)?(?![\w./^'-])")
    for more in (3, 2, 1, 0)
)


@dataclass(frozen=True, slots=True)
class Unit:
    """Sorted powers of dimensions, and the factor to base units: m/s is ((length, 1), (time, -1)) with factor 1.

    `label` has the words that identify the quantity: "profit", or "day" in "per day". A unit without powers and label
    carries no information.
    """

    powers: tuple[tuple[str, int], ...] = ()
    factor: Fraction = Fraction(1)
    label: frozenset[str] = frozenset()


NO_UNIT = Unit()


def agree(actual: Unit, expected: Unit) -> Fraction | None:
    """The factor from the actual unit to the expected one; None if they are different quantities.

    Whatever one side leaves out agrees: 5 is 5 cm, and 18 eggs per day are 18 eggs.
    """
    if actual is expected:
        return Fraction(1)
    if actual.label and expected.label and not (actual.label <= expected.label or expected.label <= actual.label):
        return None
    if not actual.powers or not expected.powers:
        return Fraction(1)
    if actual.powers == expected.powers:
        return actual.factor / expected.factor
    kinds = {name for name, _ in (*actual.powers, *expected.powers)}
    vague = kinds in ({"angle", "celsius"}, {"angle", "fahrenheit"}, {"£", "weight"})  # 5 degrees, 5 pounds
    return Fraction(1) if vague and expected.factor in (1, 16) else None


def following(text: str, known: Collection[str] = frozenset(), *, single: bool = False) -> Unit | None:
    """The unit or the thing counted, from the prose after a number, or None if that may change the number."""
    for pattern in _UNITS_IN_PROSE:
        match = pattern.match(text)
        unit = named(match[1], match[2]) if match else None
        if match and unit and (match[1] != "in" or match.end() == len(text)):  # "72 in total"
            rest = prose.tokens(text[match.end() :])
            label = None if rest is None else prose.tail(rest, known)
            return None if label is None else Unit(unit.powers, unit.factor, label)
    words = prose.after(text, known, single=single)
    if words is None:
        return None
    return Unit(((words.noun, 1),) if words.noun not in ("", "unit") else (), Fraction(1), words.others)


def money(sign: str) -> Unit:
    """The unit of a currency sign."""
    return _OF_SIGN.get(sign, NO_UNIT)


def currency(word: str) -> Unit | None:
    """The unit of a currency code or name before an amount, such as "USD"."""
    unit = named(word)
    return unit if unit is not None and unit.powers[0][0] in _MONEY else None


def split_unit(text: str, *, letters: bool = False) -> tuple[str, Unit]:
    """The text before the unit, and the unit (`NO_UNIT` if there is none).

    Single letters ("5 m") may be variables; they are units only with `letters`.
    """
    if (plain := _PLAIN_UNITS.search(text)) and plain.start():
        return text[: plain.start()].strip(), NO_UNIT
    if ratio := _RATIO.search(text):
        return text[: ratio.start()].strip(), named(f"{ratio[1]}/{ratio[2]}") or NO_UNIT
    if (degrees := _DEGREES.search(text)) and not _TURNED.search(text):
        return text[: degrees.start()].strip(), named(f"degree {degrees[1]}".strip()) or NO_UNIT
    if wrapped := _WRAPPED.search(text):
        core, unit = text[: wrapped.start()].strip(), named(wrapped[1], wrapped[2])
        if unit is None and len(wrapped[1].strip()) > 1 and not wrapped[2]:
            unit = following(wrapped[1])
        return (core, unit) if core and unit is not None else (text, NO_UNIT)
    if sign := _SIGN.search(text):
        return (text[: sign.start()] + (sign[1] or "") + text[sign.end() :]).strip(), money(sign[2] or sign[3])
    bare = _BARE.search(text)
    unit = named(bare[1], bare[2], letters=letters) if bare and bare.start() else None
    return (text[: bare.start()].strip(), unit) if bare and unit else (text, NO_UNIT)


def named(text: str, power: str | None = None, *, letters: bool = True) -> Unit | None:
    """The unit of a name such as "square inches", "km/h" or "miles per hour"; None if the name is unknown."""
    words = " ".join(re.sub(r"[~.]", " ", text).split())
    words = re.sub(r"^(?:us|u s|american) (?=dollar)", "", words.casefold()) if len(words) > 1 else words
    words = _ABBREVIATED.get(words, words)
    if not letters and words in _SHORT:
        return None
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for place, piece in enumerate(re.split(r"\s*/\s*|\s+per\s+", words)):
        exponent = int(power or 1) if place == 0 else 1
        if power and _TO_A_POWER.search(piece):  # square feet^2
            return None
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


_OF_SIGN = {sign: Unit(((_KNOWN[sign][0], 1),), _KNOWN[sign][1]) for sign in (*_MONEY, "¢")}
