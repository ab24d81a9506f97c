"""Text from models and files on its way to a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """A text without escape sequences and other characters that could control a terminal or turn its text around."""
    return "".join(map(_printable_mark, text))


def _printable_mark(mark: str) -> str:
    if mark.isprintable() or mark in "\n\t":
        return mark
    return " " if unicodedata.category(mark) == "Zs" else "\N{REPLACEMENT CHARACTER}"  # such as a wide space


def shortened(text: str, length: int) -> str:
    """A text in one line of at most `length` characters, without its middle if it is longer: answers come last."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    head = (length - 5) // 2
    return f"{text[:head]} ... {text[len(text) - (length - 5 - head) :]}"
