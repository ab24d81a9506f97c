r"""Readings of short answers other than as formulas: words, letters of choices, digits in a base."""

from __future__ import annotations

import re

from r1kit.verifiers import spelling
from r1kit.verifiers.math import shapes

_TEXT = r"\\(?:text|mbox|textbf|textit|textrm|mathrm|mathbf|operatorname)\s*"
WRAPPED = re.compile(_TEXT + r"\{([^{}]*)\}")
_BASE = re.compile(
    r"(-?(?:\\text\s*\{)?[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)?\}?)\s*_\s*\{?\s*(?:\\text\s*\{\s*)?(\d+|two|three|eight|ten|sixteen)\s*\}?\s*\}?"
)
_BASE_IN_WORDS = re.compile(r"([0-9A-Za-z]+)\s*\(?\s*(?:in\s+)?base[\s-]*(\d+|two|three|eight|ten|sixteen)\s*\)?", re.I)
_BASES = {"two": "2", "three": "3", "eight": "8", "ten": "10", "sixteen": "16"}
INFINITE = re.compile(r"([+-]?)\s*(?:\\infty|\\?infinity)\s*", re.IGNORECASE)
LETTER_IN_TEXT = re.compile(_TEXT + r"\{\s*(\(?[A-Z]\)?)\s*\}")
_FILLERS = {"there", "are", "it", "is", "its", "was", "be", "would", "the", "a", "an", "on", "in", "at", "that"}
_FILLERS |= {"option", "only"}
_EMPTY = re.compile(r"\bno solutions\b|无解|無解|空集|\\(?:emptyset|varnothing)(?![a-z])")
_TOKEN = re.compile(r"[a-z']+|\d+|[^\s\w.()]|[^\W\d_]+")
_CHOICE = re.compile(r"\(?[A-Z]\)?")


def tidy(text: str) -> str:
    """The text normalised by `spelling.plain`, with single spaces."""
    return " ".join(spelling.plain(text).split())


def wording(text: str) -> str:
    """The words, numbers and signs of an answer in words, normalised: `wording("It is Friday.") == "friday"`."""
    plain = spelling.undressed(spelling.plain(WRAPPED.sub(r" \1 ", text)))
    plain = WRAPPED.sub(r" \1 ", plain).casefold()
    plain = re.sub(r"\b([ap])\.?\s?m\b\.?", r"\1m", plain)
    plain = re.sub(r"(?<=\d):00(?=\s*[ap]m\b)", "", plain)
    plain = _EMPTY.sub("no solution", plain)
    plain = re.sub(r"(?<=\b[a-z])\.(?=\s*[a-z]\b|\s|$|,)", "", plain)
    tokens = [token.lstrip("0") or "0" if token.isdigit() else token for token in _TOKEN.findall(plain)]
    while len(tokens) > 1 and tokens[0] in _FILLERS:
        tokens.pop(0)
    if "," in tokens:  # the order of a list does not matter
        return " , ".join(sorted(" ".join(tokens).split(" , ")))
    return " ".join(tokens)


def letter(text: str) -> str | None:
    """The letter of a reference that is a choice, like `\\text{(B)}` or C."""
    bare = spelling.unwrapped(LETTER_IN_TEXT.sub(r"\1", text))
    if not _CHOICE.fullmatch(bare) or (bare == text and bare > "J"):  # N may be a variable, and n another
        return None
    return bare.strip("()")


def base(text: str) -> tuple[str, str] | None:
    """Digits and base of `101_2`; None for other texts, such as a variable with an index."""
    match = _BASE.fullmatch(text.strip()) or _BASE_IN_WORDS.fullmatch(text.strip())
    if match is None or not any(char.isdigit() for char in match[1]):
        return None
    digits = re.sub(r"\\text\s*\{|\}", "", match[1])
    return re.sub(r"^(-?)0+", r"\1", digits).upper(), _BASES.get(match[2], match[2])


def known_symbol(text: str) -> bool:
    """Whether a text is the empty set, infinity or the letter of a choice, which need no parser."""
    return text == shapes.EMPTY_SET or bool(INFINITE.fullmatch(text)) or letter(text) is not None
