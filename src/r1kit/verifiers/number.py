r"""Exact numbers in the ways that models write them, and the verifiers `number` and `last-number`.

Integers, decimals, fractions, mixed numbers, percent, money, thousands separators, scientific notation, LaTeX
fractions, and digits and signs of any script. Everything is a `Fraction`: 0.1 + 0.2 is 0.3, and 0.333 is not 1/3.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from r1kit.types import Verdict
from r1kit.verifiers import answers

_MAX_EXPONENT = 400  # 10**400 is a number, 10**999999999 is an attack on memory
_PLAIN = re.compile(r"-?\d{1,18}", re.ASCII)
_MARKS = str.maketrans(
    dict.fromkeys("−‐‑‒–—﹣－", "-")
    | dict.fromkeys("＋﹢", "+")
    | dict.fromkeys("⁄∕／", "/")
    | dict.fromkeys("×·⋅∙✕", "*")
    | dict.fromkeys("％٪﹪", "%")
    | dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000\t\n\r", " ")
    | {"，": ",", "٬": ",", "．": ".", "٫": ".", "＄": "$", "￥": "¥", "’": "'", "（": "(", "）": ")", "。": "."}
)
_LATEX = (
    (re.compile(r"\\!"), ""),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?[\d,]+)\s*\}|(\d))\s*(?:\{\s*([\d,]+)\s*\}|(\d))"), r" \1\2/\3\4 "),
    (re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])"), "*"),
    (re.compile(r"\\[,;: ]|~|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\\([$%#])"), r"\1"),
)
_WRAPPERS = (("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"))
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?: \d{3})+|\d{1,3}(?:'\d{3})+|\d+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d*)?|\.\d+)"
_CURRENCY = r"(?:US\s?\$|[$€£¥₹])"
_BODY = (
    rf"(?:(?P<mixed>{_WHOLE})\s+(?P<part>[1-9]\d*)\s*/\s*(?P<of>\d+)"
    rf"|(?P<over>{_DECIMAL})\s*/\s*(?P<under>{_DECIMAL})"
    rf"|(?P<decimal>{_DECIMAL})(?:[eE](?P<e>[+-]?\d+)|\s*[*x]\s*10\s*(?:\^|\*\*)\s*\{{?\s*(?P<ten>[+-]?\d+)\s*\}}?)?)"
)
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*{_CURRENCY}?\s*(?P<inner>[+-]?)\s*{_BODY}\s*(?P<percent>%|percent|per cent)?(?:\s*[€₹¥£])?",
    re.ASCII,
)
_TOKEN = re.compile(rf"(?<![\w.]){_NUMBER.pattern}(?!\w)", re.ASCII)
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
# In "5x", "5!", "√5", "not 5", "5 million" the number that is written is not the number that is meant.
_NOT_PROSE = re.compile(r"[^\w\s.,;:?\"'-]|[\d_\u0370-\u03ff]|(?<![A-Za-z'])(?![aAI](?![A-Za-z]))[A-Za-z](?![A-Za-z])")
_CHANGES_VALUE = re.compile(
    r"\b(?:negative|minus|plus|not|no|never|isn't|half|halves|quarters?|thirds?|fifths?|tenths?|times|squared?|cubed?"
    r"|roots?|sqrt|pi|log|ln|sin|cos|tan|over|divided|multiplied|factorial|power|million|billion|trillion|thousand"
    r"|hundred|dozen|cents?|or|between|than|least|most|except|wrong|incorrect)s?\b|[十百千万萬亿億兆负不或]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Number:
    """An exact value; `percent` tells that it was written with a percent sign (50 % has the value 1/2)."""

    value: Fraction
    percent: bool = False


def parse(text: str) -> Number | None:
    r"""The number that is the whole of `text`, or None: `parse("$1,234.50").value == Fraction(2469, 2)`."""
    if _PLAIN.fullmatch(text):
        return Number(Fraction(int(text)))
    if len(text) > answers.MAX_ANSWER_CHARS:
        return None
    match = _NUMBER.fullmatch(clean(text))
    return _value(match) if match else None


def parse_in_prose(text: str) -> Number | None:
    """The only number of a short phrase ("She sold 72 clips."), or None where what it means could be doubted."""
    number = parse(text)
    if number is not None or len(text) > answers.MAX_ANSWER_CHARS:
        return number
    phrase = clean(_TEXT.sub(r" \1 ", text))
    matches = list(_TOKEN.finditer(phrase))
    if len(matches) != 1 or sum(char.isdigit() for char in phrase) != sum(char.isdigit() for char in matches[0][0]):
        return None
    rest = phrase[: matches[0].start()] + " " + phrase[matches[0].end() :]
    return None if _NOT_PROSE.search(rest) or _CHANGES_VALUE.search(rest) else _value(matches[0])


def equal(prediction: Number, reference: Number) -> bool:
    """Equal in value, or alike but for a percent sign that one side left out ("how many percent": 50 and 50 %)."""
    if prediction.value == reference.value:
        return True
    if prediction.percent == reference.percent:
        return False
    shown = [number.value * 100 if number.percent else number.value for number in (prediction, reference)]
    return shown[0] == shown[1] and abs(shown[0]) > 1  # 0.5 and 0.5 % differ by a factor that matters


def clean(text: str) -> str:
    """One spelling of digits, signs, spaces and LaTeX, without wrappers and the final full stop."""
    if not text.isascii():
        text = "".join(map(_character, text)).translate(_MARKS)
    text = text.strip().lstrip("#").strip()
    if "\\" in text or "{" in text or "~" in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    for opening, closing in _WRAPPERS:
        inner = text[len(opening) : -len(closing)]
        if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing):
            text = inner.strip()
    return text[:-1].rstrip() if text.endswith(".") and not text.endswith("..") else text.strip()


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


def _character(char: str) -> str:
    """Digits of any script as ASCII (but never x² as x2), and ½ as " 1/2"."""
    if char.isascii():
        return char
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    if unicodedata.category(char) == "No" and "⁄" in (parts := unicodedata.normalize("NFKC", char)):
        return " " + parts
    return char


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
    if "-" in (match["sign"], match["inner"]):
        value = -value
    return Number(value / 100, percent=True) if match["percent"] else Number(value)


def _plain(digits: str) -> Fraction:
    return Fraction(re.sub(r"[ ,']", "", digits).removesuffix(".") or "0")
