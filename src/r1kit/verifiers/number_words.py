"""Numbers in words: `digits("seventy-two clips") == "72 clips"`, `digits("two and a half") == "5/2"`, "七十二" is 72.

Covers English cardinals and simple fractions, and Chinese and Japanese numerals, also with digits ("3万5千"). A run of
words that is not a number in this grammar ("seven two") stays as it is, and so do ordinals, except as denominators.
"""

from __future__ import annotations

import re
from fractions import Fraction

_SMALL = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
SMALL = {word: value for value, word in enumerate(_SMALL.split())}
TENS = {word: 10 * n for n, word in enumerate(_TENS.split(), 2)}
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7}
_PARTS |= {"eighth": 8, "ninth": 9, "tenth": 10, "twelfth": 12, "twentieth": 20}
DENOMINATORS = _PARTS | {f"{word}s": value for word, value in _PARTS.items()} | {"halves": 2}
_NAMES = "|".join(sorted([*SMALL, *TENS, *SCALES, *DENOMINATORS, "hundred", "dozen"], key=len, reverse=True))
_START = "|".join(sorted([*SMALL, *TENS], key=len, reverse=True))
_RUN = re.compile(
    rf"(?<![A-Za-z\d'-])(?:(?:{_START})|an?(?=\s+(?:hundred|thousand|million|billion|dozen|half))|half)"
    rf"(?:(?:\s*-\s*|\s+and\s+(?:an?\s+)?|\s+)(?:{_NAMES}))*(?![A-Za-z'])",
    re.IGNORECASE,
)
_NEGATIVE = re.compile(r"\b(?:minus|negative)\s+(?=[\d.(/\\]|-?\d)", re.IGNORECASE)
_ANY = re.compile(rf"\b(?:{_NAMES}|minus|negative)\b", re.IGNORECASE)
_CHINESE = re.compile(r"(?:负|マイナス)?[零一二两三四五六七八九十百千万亿兆]+")
# 3万5千, 1.2亿; but 千克 is a unit.
_MIXED = re.compile(
    r"(?:负|マイナス)?(?:\d[\d,]*(?:\.\d+)?[百千万亿兆]+(?![克米瓦卡帕焦赫牛伏字欧]))+(?:\d+)?(?![\d.,]*\d|[百千万亿兆])",
    re.ASCII,
)
_MIXED_PART = re.compile(r"(\d[\d,]*(?:\.\d+)?)([百千万亿兆]*)", re.ASCII)
_MINUS = re.compile(r"(?:负|マイナス)\s*(?=\d)", re.ASCII)
_HAN_DIGITS = {char: value for value, char in enumerate("零一二三四五六七八九")} | {"两": 2}
_HAN_UNITS = {"十": 10, "百": 100, "千": 1000}
_HAN_SCALES = {"万": 10**4, "亿": 10**8, "兆": 10**12}


def digits(text: str) -> str:
    """The text with number words as digits, and "minus" and "negative" as "-"."""
    if not text.isascii():
        if any(char.isdigit() for char in text):
            text = _MINUS.sub("-", _MIXED.sub(lambda run: _or_as_is(_mixed(run[0]), run[0]), text))
        else:
            text = _CHINESE.sub(lambda run: _or_as_is(_chinese(run[0]), run[0]), text)
    if _ANY.search(text):
        text = _RUN.sub(lambda run: _or_as_is(_english(run[0]), run[0]), text)
        text = _NEGATIVE.sub("-", text)
    return text


def _or_as_is(value: Fraction | None, text: str) -> str:
    return text if value is None else str(value)


def _english(run: str) -> Fraction | None:
    words = re.findall(r"[a-z]+", run.casefold())
    if len(words) > 1 and words[-1] in DENOMINATORS and words[-2] in (*SMALL, "a", "an"):
        top = 1 if words[-2] in ("a", "an") else SMALL[words[-2]]
        part = Fraction(top, DENOMINATORS[words[-1]])
        before = words[:-2]
        if not before:
            return part
        whole = cardinal(before[:-1]) if before[-1] == "and" else None
        return None if whole is None else whole + part
    if words == ["half"]:
        return Fraction(1, 2)
    value = cardinal([word for word in words if word != "and"])
    return None if value is None else Fraction(value)


def cardinal(words: list[str]) -> int | None:
    """`cardinal(["one", "hundred", "five"]) == 105`; None for words that are not a cardinal in this order."""
    total, group, last, limit = 0, 0, "", 10**15
    for word in words:
        if word in ("a", "an") and not last:
            group, last = 1, "small"
        elif word in SMALL and (last != "small" and (last != "tens" or 0 < SMALL[word] < 10)):
            group, last = group + SMALL[word], "small"
        elif word in TENS and last not in ("small", "tens"):
            group, last = group + TENS[word], "tens"
        elif word == "hundred" and last in ("small", "tens") and 0 < group < 100:
            group, last = group * 100, "hundred"
        elif word in SCALES and group and SCALES[word] < limit:
            limit = SCALES[word]
            total, group, last = total + group * limit, 0, "scale"
        elif word == "dozen" and group and word == words[-1]:
            group, last = group * 12, "dozen"
        else:
            return None
    return total + group if last else None


def _chinese(run: str) -> Fraction | None:
    """`_chinese("三百零五") == 305`; None for a mere row of digits, which may be a year or a telephone number."""
    body = run.removeprefix("负").removeprefix("マイナス")
    total = section = digit = 0
    after_digit = False
    for char in body:
        if char in _HAN_DIGITS:
            if after_digit and digit:
                return None
            digit, after_digit = _HAN_DIGITS[char], True
        elif char in _HAN_UNITS:
            section += (digit or 1) * _HAN_UNITS[char]
            digit, after_digit = 0, False
        else:
            total = (total + section + digit) * _HAN_SCALES[char]
            section, digit, after_digit = 0, 0, False
    value = total + section + digit
    return Fraction(-value if run != body else value)


def _mixed(run: str) -> Fraction | None:
    """`_mixed("3万5千") == 35000`; None if the units do not descend, or for "3万5", which may mean 35,000."""
    body = run.removeprefix("负").removeprefix("マイナス")
    total, limit = Fraction(0), Fraction(10**16)
    parts = _MIXED_PART.findall(body)
    for digits_of_part, names in parts:
        unit = Fraction(1)
        for name in names:
            unit *= _HAN_UNITS.get(name) or _HAN_SCALES[name]
        value = Fraction(digits_of_part.replace(",", "")) * unit
        if value >= limit or (not names and len(digits_of_part) == 1):
            return None
        total, limit = total + value, unit
    return total if run == body else -total
