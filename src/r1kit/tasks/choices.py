"""Multiple choice: the options as data sets write them, and which one is right."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from r1kit.data.errors import DataError, encodable, shown

MARK = re.compile(r"\s*[(\[]?([A-Z])[)\].:、．]\s*(?=\S)")
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
    labels: Sequence[Any] | None = None
    if isinstance(value, Mapping):
        texts, labels = (value["text"], value.get("label")) if "text" in value else (list(value.values()), list(value))
    elif isinstance(value, list) and value and all(isinstance(each, Mapping) and "text" in each for each in value):
        texts = [each["text"] for each in value]
        labels = [each["label"] for each in value] if all("label" in each for each in value) else None
    else:
        texts = value
    if not isinstance(texts, list) or not 2 <= len(texts) <= len(ascii_uppercase):
        reason = f"the choices are {shown(value)}: expected a list of 2 to 26 options"
        raise DataError("wrong type", reason, field=column)
    letters = list(ascii_uppercase[: len(texts)])
    plain = [encodable(str(text).strip()) for text in texts]
    marks = [MARK.match(text) for text in plain]
    own = [mark[1] for mark in marks if mark]
    in_place = sum(letter == mark for letter, mark in zip(letters, own, strict=False))
    if labels is None and all(marks) and (sorted(own) == letters or 2 * in_place >= len(own)):  # not for "E. coli"
        if own != letters:
            reason = f"the options bring the letters {', '.join(own)}: expected {', '.join(letters)}"
            raise DataError("wrong type", reason, field=column)
        plain = [text[mark.end() :] for text, mark in zip(plain, marks, strict=True) if mark]
    names = letters if labels is None else [str(label).strip() for label in labels]
    if len(names) != len(plain) or len(set(names)) != len(names) or not all(plain):
        reason = f"the choices are {shown(value)}: expected texts, and a label of its own for each"
        raise DataError("wrong type", reason, field=column)
    return Options(plain, names)


def right_letter(answer: Any, options: Options, first: int | None) -> str:
    """The letter of the right option.

    `answer` is the option's label, letter, text, or its number counted from `first` (None: numbers cannot be used).
    Raises `DataError` if it fits no option, or two.
    """
    places = {place for place in _places(answer, options, first) if place is not None}
    if len(places) == 1:
        return ascii_uppercase[places.pop()]
    if places:
        reason = (
            f"{shown(answer)} may be the options {' and '.join(ascii_uppercase[place] for place in sorted(places))}"
        )
        raise DataError("unparsed answer", f"{reason}: write the letter")
    count = len(options.texts)
    if first is None and as_number(answer, options) is not None:
        raise DataError("unparsed answer", f"{answer} may count from 0 or from 1: {COUNT_REMEDY}")
    numbers = "" if first is None else f", and none of the numbers {first} to {first + count - 1}"
    raise DataError(
        "unparsed answer", f"{shown(answer)} is none of the options A to {ascii_uppercase[count - 1]}{numbers}"
    )


def _places(answer: Any, options: Options, first: int | None) -> list[int | None]:
    number = as_number(answer, options)
    if number is not None:
        return [number - first] if first is not None and 0 <= number - first < len(options.texts) else []
    text = str(answer).strip()
    if len(text) > 1 and (mark := MARK.match(text)) and mark[1] in options.labels:  # "B. text"
        place = options.labels.index(mark[1])
        return [place] if options.texts[place] == text[mark.end() :] else []
    letter = LETTER.fullmatch(text)
    names = [text, letter[1].upper()] if letter else [text]
    named = next((options.labels.index(name) for name in names if name in options.labels), None)
    return [named, *(place for place, option in enumerate(options.texts) if option == text)]


def as_number(answer: Any, options: Options) -> int | None:
    """An answer that can only be the number of an option, neither a label nor an option's text."""
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        return None
    text = str(answer).strip()
    is_name = isinstance(answer, str) and (text in options.labels or text in options.texts)
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
