r"""Parses exact numbers as models write them.

Covers integers, decimals, fractions, mixed numbers, percent, money, thousands separators, scientific notation, LaTeX
fractions, and digits and signs of any script. Values are `Fraction`s: 0.1 + 0.2 is 0.3, and 0.333 is not 1/3.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from fractions import Fraction

from r1kit.verifiers import extract, number_words, prose, spelling, units
from r1kit.verifiers.units import NO_UNIT, Unit

_MAX_EXPONENT = 400  # 10**400 is an honest number, 10**999999999 an attack on memory
_PLAIN = re.compile(r"-?\d{1,18}", re.ASCII)
_LATEX = (
    (re.compile(r"\\frac\s*(?:\{\s*(-?[\d,]+)\s*\}|(\d))\s*(?:\{\s*([\d,]+)\s*\}|(\d))"), r" \1\2/\3\4 "),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\([$%#])"), r"\1"),
)
_WHOLE = (
    r"(?:[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3}|\d{1,3}(?:\.\d{3}){2,}(?![\d.])"
    r"|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+|\d+)"
)
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d*)?|\.\d+)"
_CURRENCY = r"(?:US\s?\$|[$€£¥₹])"
_SCALE = "hundred|dozen|" + "|".join(number_words.SCALES)
_BODY = (
    rf"(?:(?P<mixed>{_WHOLE})\s+(?:and\s+)?(?P<part>[1-9]\d*)\s*/\s*(?P<of>\d+)"
    rf"|(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<e>[+-]?\d+)|\s*[*x]\s*10\s*(?:\^|\*\*)\s*\{{?\s*(?P<ten>[+-]?\d+)\s*\}}?)?)"
)
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<money>{_CURRENCY}?)\s*(?P<inner>[+-]?)\s*{_BODY}(?:\s*(?P<scale>{_SCALE})(?![A-Za-z]))?"
    r"\s*(?P<percent>%|percent|per cent)?(?:\s*(?P<coin>[$€₹¥£]))?",
    re.ASCII,
)
_TOKEN = re.compile(rf"(?<![\w.]){_NUMBER.pattern}(?!\w)", re.ASCII)
_REPEATING = re.compile(r"(-?)(\d{0,18})\.(\d{0,18})\\overline\s*\{(\d{1,18})\}", re.ASCII)
_BRACKETED = re.compile(r"([+-]?)\s*\(([^,]*)\)", re.DOTALL)  # (3,331) is a pair
_TWICE = re.compile(r"([^()]*[^()\s])\s*\(([^()]*)\)")
_TEXT = re.compile(r"\\(?:text|textnormal|mbox|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_PRODUCT = re.compile(r"\d\s*\(\s*[\d.,/\s]+\)")  # 7(7)
_IN_DOLLARS = re.compile(r"\$\s*(-?\d[\d.,/]*)\s*\$")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ(?![A-Za-z])\s*\}?\s*([CF](?![A-Za-z]))?")
_GLUED = re.compile(_TEXT.pattern + r"\s*(?:[!+*]|(?!a\s+[a-z])[A-Za-z](?![A-Za-z']))")  # \text{cm}i
_RATE = re.compile(r"\s*/\s*(?:an?\s+)?(?=([A-Za-z]+))")
_AND_MORE = re.compile(r"(\S.*?[A-Za-z])\.?,?\s+(?:and\s+)?(\d\S*\s*[A-Za-z]+)\.?")
_HALF_OF_DAY = re.compile(r"(?<![A-Za-z])([ap])\.\s?m(?:\.|(?![A-Za-z]))", re.IGNORECASE)
_NO_WORDS = re.compile(r"\\[A-Za-z]+|[^A-Za-z' -]")
_LETTER = re.compile(r"[A-Za-z]")
_ONE_LETTER = re.compile(r"\d[A-Za-z](?:\s*\^\s*\{?\s*\d\s*\}?)?$")


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value; `percent` if it was written with a percent sign (50 % has the value 1/2).

    `unit` is its unit, currency, or the thing counted. `==` ignores the unit; `equal` compares everything.
    """

    value: Fraction
    percent: bool = False
    unit: Unit = field(default=NO_UNIT, compare=False)


def parse_number(text: str) -> Number | None:
    r"""The number that makes up the whole text, or None: `parse_number("$1,234.50").value == Fraction(2469, 2)`."""
    if _PLAIN.fullmatch(text):
        return Number(Fraction(int(text)))
    if len(text) > extract.MAX_ANSWER_CHARS:
        return None
    text = clean(text)
    match = _NUMBER.fullmatch(text)
    if match:
        return _matched_value(match)
    if repeating := _REPEATING.fullmatch(text):  # 0.1\overline{6} is 1/6
        sign, whole, fixed, cycle = repeating.groups()
        tail = Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))
        value = Fraction(int(whole or 0)) + Fraction(int(fixed or 0), 10 ** len(fixed)) + tail
        return Number(-value if sign else value)
    if bracketed := _BRACKETED.fullmatch(text):
        inner = parse_number(bracketed[2])
        return inner and (replace(inner, value=-inner.value) if bracketed[1] == "-" else inner)
    return None


def parse_in_prose(text: str, known: Collection[str] = frozenset()) -> Number | None:
    """The only number in a short phrase ("She sold 72 clips."), or None if its meaning is in doubt.

    Words in `known` cause no doubt, because the reference has them too.
    """
    number = parse_number(text)
    if number is not None or len(text) > extract.MAX_ANSWER_CHARS:
        return number
    if _GLUED.search(text):
        return None
    phrase = clean(_TEXT.sub(r" \1 ", _IN_DOLLARS.sub(r"\1", spelling.plain(text))))
    number = parse_number(phrase)
    if number is not None:
        return number
    core, unit = units.split_unit(phrase, letters=True)
    if unit is not NO_UNIT and (number := parse_number(core)):
        return _with(number, unit)
    twice = _TWICE.fullmatch(phrase)
    if twice and not _PRODUCT.search(spelling.undressed(text)):  # "72 (seventy-two)"
        first, second = parse_in_prose(twice[1], known), parse_number(twice[2])
        if second is not None:
            return first if first == second else None
        phrase = phrase if first is None else f"{twice[1]} {twice[2]}"  # 72 (dollars)
    if (sum_of := compound(phrase)) is not None:
        return sum_of
    return _only_number(_HALF_OF_DAY.sub(r"\1m", _DEGREES.sub(r" degrees \1", phrase)), known)


def of_reference(text: str) -> Number | None:
    """As `parse_in_prose`, but allows any noun beside the number. `5m` may be algebra; only `5 m` is a length."""
    plain = spelling.plain(text)
    return None if _ONE_LETTER.search(plain) and parse_number(text) is None else parse_in_prose(text, prose.EVERYTHING)


def compound(text: str) -> Number | None:
    """A quantity in two units: `compound("2 hours and 30 minutes")` is 2.5 hours."""
    parts = _AND_MORE.fullmatch(text)
    if parts is None:
        return None
    (first, large), (second, small) = (units.split_unit(part, letters=True) for part in parts.groups())
    whole, part = parse_number(first), parse_number(second)
    if whole is None or part is None or whole.value < 0 or (whole.unit.powers and whole.unit.powers != large.powers):
        return None
    if len(large.powers) != 1 or large.powers != small.powers or small.factor >= large.factor or part.unit.powers:
        return None
    if part.value * small.factor >= large.factor:  # 5 hours 90 minutes
        return None
    return Number(whole.value + part.value * small.factor / large.factor, unit=large)


def reference_words(text: str) -> Collection[str]:
    """The words of a reference, in the singular, which an answer may repeat."""
    words = prose.tokens(_NO_WORDS.sub(" ", text)) if _LETTER.search(text) else None
    return frozenset(map(prose.singular, words or ()))


def _only_number(phrase: str, known: Collection[str]) -> Number | None:
    """The only number in a phrase whose other words do not change it."""
    matches = list(_TOKEN.finditer(phrase))
    if len(matches) != 1:
        return None
    before, after = phrase[: matches[0].start()], phrase[matches[0].end() :]
    if any(char.isdigit() for char in re.sub(r"\^\s*\{?\s*[1-4]", "", before + after)):
        return None
    rate = _RATE.match(after)
    if rate and (units.named(rate[1], letters=False) or len(rate[1]) > 3):
        after = f" per {after[rate.end() :]}"
    number = _matched_value(matches[0])
    head, _, code = before.rpartition(" ") if before.rstrip() == before else before.rstrip().rpartition(" ")
    if code and (sum_of := units.currency(code)):  # USD 72
        before, number = head, number and _with(number, sum_of)
    label = None if number is None else prose.before(before, known)
    if number is None or label is None:
        return None
    unit = units.following(after, known, single=abs(number.value) <= 1)
    if unit is None:
        return None
    return _with(number, replace(unit, label=unit.label | label))


def _with(number: Number, unit: Unit) -> Number | None:
    """The number with this unit and label added; None if it has another unit already ("$5 cm")."""
    own = number.unit
    if own.powers and unit.powers and own.powers != unit.powers:
        return None
    kept = own if own.powers else unit
    return replace(number, unit=Unit(kept.powers, kept.factor, own.label | unit.label))


def equal(prediction: Number, reference: Number) -> bool:
    """Whether value and unit are equal; one side may leave out a percent sign (50 and 50 %)."""
    factor = units.agree(prediction.unit, reference.unit)
    if (
        factor is None
        or (prediction.percent and reference.unit.powers)
        or (reference.percent and prediction.unit.powers)
    ):
        return False
    if prediction.value * factor == reference.value:
        return True
    if prediction.percent == reference.percent:
        return False
    left, right = (number.value * 100 if number.percent else number.value for number in (prediction, reference))
    return left == right and abs(left) > 1  # 0.5 may be a share, so it is not 0.5 %


def clean(text: str) -> str:
    """The text with normalised digits, signs, spaces, LaTeX and number words; no wrappers, no final full stop."""
    text = spelling.simplified(spelling.undressed(spelling.characters(text)))
    text = " ".join(text.split()).lstrip("#").strip()
    before = None
    while text != before:
        before = text
        text = spelling.unwrapped(text)
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
    text = number_words.digits(text)
    if "\\" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return text.strip()


def _matched_value(match: re.Match[str]) -> Number | None:
    """The value of a match of `_NUMBER`; None for a division by zero or an exponent that is too large."""
    if match["sign"] and match["inner"]:
        return None
    exponent = int(match["e"] or match["ten"] or 0)
    if abs(exponent) > _MAX_EXPONENT:
        return None
    if match["mixed"]:
        top, bottom = _from_digits(match["part"]), _from_digits(match["of"])
        value = _from_digits(match["mixed"]) + top / bottom if bottom else None
    elif match["over"]:
        bottom = _from_digits(match["under"])
        value = _from_digits(match["over"]) / bottom if bottom else None
    else:
        value = _from_digits(match["decimal"]) * Fraction(10) ** exponent
    if value is None:
        return None
    if match["scale"]:
        value *= {"hundred": 100, "dozen": 12, **number_words.SCALES}[match["scale"]]
    if "-" in (match["sign"], match["inner"]):
        value = -value
    sign = match["money"][-1:] or match["coin"]
    unit = units.money(sign) if sign else NO_UNIT
    return Number(value / 100 if match["percent"] else value, bool(match["percent"]), unit)


def _from_digits(digits: str) -> Fraction:
    digits = re.sub(r"[ ,']", "", digits)
    if digits.count(".") > 1:  # 1.234.567
        digits = digits.replace(".", "")
    return Fraction(digits.removesuffix(".") or "0")
