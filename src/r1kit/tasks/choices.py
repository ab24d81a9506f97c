"""Multiple choice: the options as data sets write them, and which one is right."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from r1kit.data.columns import is_empty
from r1kit.data.errors import DataError, encodable, shown

MARK = re.compile(r"\s*[(\[]?([A-Za-z])[)\].:、．]\s*(?=\S)")
LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")
COUNT_REMEDY = "name the column in columns as answer_from_0=... or answer_from_1=... instead of answer=..."


class Options(NamedTuple):
    """The options of a question: their texts, and the data's own names for them (letters, ARC's "1" to "4")."""

    texts: list[str]
    labels: list[str]

    def ask(self, question: str) -> str:
        """The question, and below it the options with letters."""
        lines = (f"{letter}. {text}" for letter, text in zip(ascii_uppercase, self.texts, strict=False))
        return "\n".join([question, *lines])


def read_options(value: Any, column: str) -> Options:
    """Options from a list of texts, a list of objects, `{"text": [...], "label": [...]}` or `{"A": ..., "B": ...}`."""
    texts, labels = value, None
    if isinstance(value, Mapping):
        texts, labels = (value["text"], value.get("label")) if "text" in value else (list(value.values()), list(value))
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) and "text" in each for each in value):
        texts = [each["text"] for each in value]
        labels = [each["label"] for each in value] if all("label" in each for each in value) else None
    if isinstance(texts, list):  # tables fill shorter lists up with nulls
        count = next((place for place in range(len(texts), 0, -1) if not is_empty(texts[place - 1])), 0)
        texts, labels = texts[:count], labels[:count] if isinstance(labels, list) else None
    if not isinstance(texts, list) or not 2 <= len(texts) <= len(ascii_uppercase) or any(map(is_empty, texts)):
        reason = f"the choices are {shown(value)}: expected a list of 2 to 26 options"
        raise DataError("wrong type", reason, field=column)
    plain = [encodable(str(text).strip()) for text in texts]
    if labels is None:
        plain, labels = without_letters(plain, column), list(ascii_uppercase[: len(texts)])
    names = [str(label).strip() for label in labels]
    if len(names) != len(plain) or len(set(names)) != len(names) or not all(plain):
        reason = f"the choices are {shown(value)}: expected texts, and a label of its own for each"
        raise DataError("wrong type", reason, field=column)
    return Options(plain, names)


def without_letters(texts: list[str], column: str) -> list[str]:
    """The options without letters that they bring: "A. red" is "red". Raises `DataError` for letters in disorder."""
    letters, marks = list(ascii_uppercase[: len(texts)]), [MARK.match(text) for text in texts]
    own = [mark[1].upper() for mark in marks if mark]
    in_place = sum(letter == mark for letter, mark in zip(letters, own, strict=False))
    # "E. coli" and "S. aureus" bring no letters: too few are in their places
    if len(own) < len(texts) or (sorted(own) != letters and 2 * in_place < len(own)):
        return texts
    if own != letters:
        reason = f"the options bring the letters {', '.join(own)}: expected {', '.join(letters)}"
        raise DataError("wrong type", reason, field=column)
    return [text[mark.end() :] for text, mark in zip(texts, marks, strict=True) if mark]


def right_letter(answer: Any, options: Options, first: int | None, by_label: bool) -> str:
    """The letter of the right option.

    `answer` is the option's label, letter, text, or its number counted from `first` (None: numbers cannot be used).
    Raises `DataError` if it fits no option, or two. `by_label`: a label that is also another option's text is a label.
    """
    named, *texts = _places(answer, options, first)
    letters = ascii_uppercase[: len(options.texts)]
    places = {named} if by_label and named is not None else {place for place in (named, *texts) if place is not None}
    if len(places) == 1:
        return letters[places.pop()]
    if places:
        several = " and ".join(letters[place] for place in sorted(places))
        reason = f"{shown(answer)} may be the options {several}: write the letter"
    elif first is None and as_number(answer, options) is not None:
        reason = f"{answer} may count from 0 or from 1: {COUNT_REMEDY}"
    else:
        numbers = "" if first is None else f", and none of the numbers {first} to {first + len(letters) - 1}"
        reason = f"{shown(answer)} is not one of the options A to {letters[-1]}{numbers}"
    raise DataError("unparsed answer", reason)


def _places(answer: Any, options: Options, first: int | None) -> list[int | None]:
    """The place that the answer names by number or label (None for none), then those of options with its text."""
    number = as_number(answer, options)
    if number is not None:
        return [number - first if first is not None and 0 <= number - first < len(options.texts) else None]
    text = str(answer).strip()
    if len(text) > 1 and (mark := MARK.match(text)) and mark[1].upper() in options.labels:  # "B. text"
        place = options.labels.index(mark[1].upper())
        return [place if options.texts[place] == text[mark.end() :] else None]
    letter = LETTER.fullmatch(text)
    names = [text, letter[1].upper()] if letter else [text]
    named = next((options.labels.index(name) for name in names if name in options.labels), None)
    return [named, *(place for place, option in enumerate(options.texts) if option == text)]


def as_number(answer: Any, options: Options) -> int | None:
    """An answer that can only be the number of an option, neither a label nor an option's text."""
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        return None
    text = str(answer).strip()
    is_name = text in options.labels or (isinstance(answer, str) and text in options.texts)
    return int(text) if text.isdecimal() and not is_name else None


def first_number(numbers: Sequence[tuple[int, int]]) -> int | None:
    """Whether numbers of options count from 0 or from 1, from pairs of (number, count of options); None without pairs.

    Raises `DataError` if the numbers do not show it: a 0 can only count from 0, and the count only from 1.
    """
    if not numbers:
        return None
    bases = {0 if number == 0 else 1 for number, count in numbers if number in (0, count)}
    if len(bases) == 1:
        return bases.pop()
    why = "some count from 0, others from 1" if bases else "no answer shows whether 0 or 1 is the first"
    raise DataError("ambiguous columns", f"the answers are numbers of options, and {why}: {COUNT_REMEDY}")


def dealt(right: str, wrong: Sequence[str], question: str) -> tuple[Options, str]:
    """Options in an order that depends on the question alone, and the letter of the right one."""
    order = [right, *wrong]
    random.Random(f"options/{question}").shuffle(order)
    if order.count(right) != 1:
        raise DataError("unparsed answer", "a wrong option repeats the right one")
    letters = list(ascii_uppercase[: len(order)])
    return Options(order, letters), letters[order.index(right)]
