r"""Exact numbers in the ways that models write them, and the verifiers `number` and `last-number`.

Integers, decimals, fractions, mixed numbers, percent, money, thousands separators, scientific notation, LaTeX
fractions, and digits and signs of any script. Everything is a `Fraction`: 0.1 + 0.2 is 0.3, and 0.333 is not 1/3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from r1kit.types import Verdict
from r1kit.verifiers import answers, spelling, words

_MAX_EXPONENT = 400  # 10**400 is a number, 10**999999999 is an attack on memory
_MAX_PROSE_WORDS = 12
_PLAIN = re.compile(r"-?\d{1,18}", re.ASCII)
_LATEX = (
    (re.compile(r"\\frac\s*(?:\{\s*(-?[\d,]+)\s*\}|(\d))\s*(?:\{\s*([\d,]+)\s*\}|(\d))"), r" \1\2/\3\4 "),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\([$%#])"), r"\1"),
)
_WHOLE = (
    r"(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3}|\d{1,3}(?:\.\d{3}){2,}(?![\d.])"
    r"|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+|\d+)"
)
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d*)?|\.\d+)"
_CURRENCY = r"(?:US\s?\$|[$€£¥₹])"
_SCALE = "hundred|dozen|" + "|".join(words.SCALES)
_BODY = (
    rf"(?:(?P<mixed>{_WHOLE})\s+(?:and\s+)?(?P<part>[1-9]\d*)\s*/\s*(?P<of>\d+)"
    rf"|(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<e>[+-]?\d+)|\s*[*x]\s*10\s*(?:\^|\*\*)\s*\{{?\s*(?P<ten>[+-]?\d+)\s*\}}?)?)"
)
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<money>{_CURRENCY}?)\s*(?P<inner>[+-]?)\s*{_BODY}(?:\s*(?P<scale>{_SCALE})(?![A-Za-z]))?"
    r"\s*(?P<percent>%|percent|per cent)?(?:\s*(?P<coin>[€₹¥£]))?",
    re.ASCII,
)
_TOKEN = re.compile(rf"(?<![\w.]){_NUMBER.pattern}(?!\w)", re.ASCII)
_REPEATING = re.compile(r"(-?)(\d{0,18})\.(\d{0,18})\\overline\s*\{(\d{1,18})\}", re.ASCII)
_BRACKETED = re.compile(r"([+-]?)\s*\((.*)\)", re.DOTALL)
_TWICE = re.compile(r"([^()]*[^()\s])\s*\(([^()]*)\)")
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
# In "5x", "5!", "√5", "not 5", "5 million" the number that is written is not the number that is meant.
_NOT_PROSE = re.compile(
    r"[^\w\s.,;:\"'-]|\.\.|[\d_\u0370-\u03ff]|(?<![A-Za-z])-|-(?![A-Za-z])"
    r"|(?<![A-Za-z'])(?![aAI](?![A-Za-z]))[A-Za-z](?![A-Za-z])"
)
_CHANGES_VALUE = re.compile(
    r"\b(?:negative|minus|plus|half|halve|quarter|third|fourth|fifth|sixth|eighth|tenth|twice|double|triple|treble|thrice"
    r"|times|square|squared|cube|cubed|root|sqrt|pi|log|ln|sin|cos|tan|over|under|above|below|beyond|within|divided"
    r"|divisible|divides|divisor|factor|multiple|multiplied|factorial|choose|power|million|billion|trillion|thousand"
    r"|hundred|dozen|cent|percent|percentage|or|nor|between|than|least|most|up to|to the|range"
    r"|about|around|approximately|approx|roughly|nearly|almost|circa|mod|modulo"
    r"|not|no|none|never|neither|cannot|can't|isn't|wasn't|doesn't|don't|won't|couldn't|hardly|doubt|except|excluding"
    r"|but|without|unless|if|instead|st|nd|rd|th|either|maybe|perhaps|possibly|wrong|incorrect|false|unlike|versus|vs"
    r"|thousandth|hundredth|seventh|ninth|lakh|crore|grand|reciprocal|inverse|exceed|upward|excluded|incorrectly|kidding|far"
    r"|wasnt|isnt|aint|ain't)s?\b"
    r"|[十百千万萬亿億兆负不非或约]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value; `percent` tells that it was written with a percent sign (50 % has the value 1/2).

    `currency` is the sign that stood with it, if any: "$", "€" ...; numbers are equal whatever it is.
    """

    value: Fraction
    percent: bool = False
    currency: str = field(default="", compare=False)


def parse(text: str) -> Number | None:
    r"""The number that is the whole of `text`, or None: `parse("$1,234.50").value == Fraction(2469, 2)`."""
    if _PLAIN.fullmatch(text):
        return Number(Fraction(int(text)))
    if len(text) > answers.MAX_ANSWER_CHARS:
        return None
    text = clean(text)
    match = _NUMBER.fullmatch(text)
    if match:
        return _value(match)
    if repeating := _REPEATING.fullmatch(text):
        return _repeating(repeating)
    if bracketed := _BRACKETED.fullmatch(text):
        inner = parse(bracketed[2])
        return inner and Number(-inner.value if bracketed[1] == "-" else inner.value, inner.percent, inner.currency)
    return None


def parse_in_prose(text: str) -> Number | None:
    """The only number of a short phrase ("She sold 72 clips."), or None where what it means could be doubted."""
    number = parse(text)
    if number is not None or len(text) > answers.MAX_ANSWER_CHARS:
        return number
    phrase = clean(_TEXT.sub(r" \1 ", spelling.plain(text)))
    number = parse(phrase)
    if number is not None:
        return number
    twice = _TWICE.fullmatch(phrase)
    if twice:  # "72 (seventy-two)"
        first, second = parse(twice[1]), parse(twice[2])
        return first if first is not None and first == second else None
    matches = list(_TOKEN.finditer(phrase))
    if len(matches) != 1 or sum(char.isdigit() for char in phrase) != sum(char.isdigit() for char in matches[0][0]):
        return None
    rest = phrase[: matches[0].start()] + " " + phrase[matches[0].end() :]
    return None if not neutral(rest) or _NOT_PROSE.search(rest) else _value(matches[0])


def neutral(prose: str) -> bool:
    """Whether words beside a number or formula leave it as it is: "she sold clips" does, "at least" does not."""
    return len(prose.split()) <= _MAX_PROSE_WORDS and not _CHANGES_VALUE.search(prose)


def equal(prediction: Number, reference: Number) -> bool:
    """Equal in value, or alike but for a percent sign that one side left out ("how many percent": 50 and 50 %)."""
    if prediction.currency and reference.currency and prediction.currency != reference.currency:
        return False
    if prediction.value == reference.value:
        return True
    if prediction.percent == reference.percent:
        return False
    shown = [number.value * 100 if number.percent else number.value for number in (prediction, reference)]
    return shown[0] == shown[1] and abs(shown[0]) > 1  # 0.5 and 0.5 % differ by a factor that matters


def clean(text: str) -> str:
    """One spelling of digits, signs, spaces and LaTeX, without wrappers and the final full stop; words as digits."""
    text = spelling.undressed(spelling.characters(text))
    text = " ".join(text.split()).lstrip("#").strip()
    before = None
    while text != before:
        before = text
        text = spelling.unwrapped(text)
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1].rstrip()
    text = words.digits(text)
    if "\\" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return text.strip()


def verify_number(response: str, reference: str) -> Verdict:
    """Exact comparison of the answer with a numeric reference; the fast verifier for tasks with numbers."""
    return _judge(answers.extract(response), reference)


def verify_last_number(response: str, reference: str) -> Verdict:
    """As `number`, and the last number after `</think>` counts where there is neither answer section nor box."""
    return _judge(answers.extract(response, last_number=True), reference)


def _judge(prediction: str | None, reference: str) -> Verdict:
    expected = parse_in_prose(answers.reference(reference))
    if expected is None:
        return Verdict(correct=None, extracted=prediction, detail=f"the reference is not a number: {reference[:80]!r}")
    if prediction is None:
        return Verdict(correct=False, detail="no answer found")
    given = parse_in_prose(prediction)
    if given is None:
        return Verdict(correct=False, extracted=prediction, detail="the answer is not a number")
    same = equal(given, expected)
    return Verdict(correct=same, extracted=prediction, detail="equal as numbers" if same else "different numbers")


def _value(match: re.Match[str]) -> Number | None:
    """The value of a match of `_NUMBER`; None where it has none (division by zero) or is too large to hold."""
    if match["sign"] and match["inner"]:
        return None
    exponent = int(match["e"] or match["ten"] or 0)
    if abs(exponent) > _MAX_EXPONENT:
        return None
    if match["mixed"]:
        top, bottom = _plain(match["part"]), _plain(match["of"])
        value = _plain(match["mixed"]) + top / bottom if bottom else None
    elif match["over"]:
        bottom = _plain(match["under"])
        value = _plain(match["over"]) / bottom if bottom else None
    else:
        value = _plain(match["decimal"]) * Fraction(10) ** exponent
    if value is None:
        return None
    if match["scale"]:
        value *= {"hundred": 100, "dozen": 12, **words.SCALES}[match["scale"]]
    if "-" in (match["sign"], match["inner"]):
        value = -value
    currency = match["money"][-1:] or match["coin"] or ""
    return Number(value / 100 if match["percent"] else value, bool(match["percent"]), currency)


def _repeating(match: re.Match[str]) -> Number:
    """`0.1\\overline{6}` is 1/6."""
    sign, whole, fixed, cycle = match.groups()
    tail = Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))
    value = Fraction(int(whole or 0)) + Fraction(int(fixed or 0), 10 ** len(fixed)) + tail
    return Number(-value if sign else value)


def _plain(digits: str) -> Fraction:
    digits = re.sub(r"[ ,']", "", digits)
    if digits.count(".") > 1:  # 1.234.567
        digits = digits.replace(".", "")
    return Fraction(digits.removesuffix(".") or "0")
