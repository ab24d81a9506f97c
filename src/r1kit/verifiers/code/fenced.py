"""Finds the program in a response."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<mark>```+|~~~+)(?P<language>[^\n`]*)$", re.MULTILINE)
_PYTHON = ("python", "py", "python3", "")
_MAX_FENCES_IN_STRINGS = 16
_BYTE_ORDER_MARK = "\ufeff"
# A comment, or a string; a triple-quoted string may lack its end.
STRING = (
    r"#[^\n]*|(?P<quote>'''|\"\"\")(?:\\.|(?!(?P=quote)).)*+(?P<end>(?P=quote))?"
    r"|'(?:\\.|[^'\\\n])*+'?|\"(?:\\.|[^\"\\\n])*+\"?"
)
_STRING = re.compile(STRING, re.DOTALL)


def extract_program(response: str, fit: Callable[[str], int] = lambda program: 0) -> str | None:
    """A fenced Python block in `<answer>`, or without an answer section after `</think>`; None if there is none.

    Of several blocks, the last one with the highest `fit` is the program: a demo or test may follow it. Only an answer
    section may contain a program without a fence. A fence that is not closed was cut off, and has no program.
    """
    tail = response.rpartition("</think>")[2].replace(_BYTE_ORDER_MARK, "")
    if "<answer>" in tail:
        text = tail.rsplit("<answer>", 1)[1].partition("</answer>")[0]
        program = _best_block(text, fit)
        bare = text.strip("\n").rstrip() if program is None and not _FENCE.search(text) else None
        return program or bare or None
    return None if "<answer>" in response else _best_block(tail, fit)


def _best_block(text: str, fit: Callable[[str], int]) -> str | None:
    """The closed block of the highest fit; of equals, one labelled as Python, and the last.

    None if the last fence is not closed. Blocks in other languages do not count.
    """
    blocks: list[tuple[str, str]] = []
    fences = list(_FENCE.finditer(text))
    place = 0
    while place < len(fences):
        opened = fences[place]
        closing = (
            at
            for at in range(place + 1, len(fences))
            if fences[at]["mark"].startswith(opened["mark"]) and not fences[at]["language"].strip()
        )
        ends = list(islice(closing, 1))
        if not ends:
            return None
        if _in_string(text[opened.end() : fences[ends[0]].start()]):
            ends += islice(closing, _MAX_FENCES_IN_STRINGS)
        bodies = [text[opened.end() + 1 : fences[end].start()] for end in ends]
        chosen = next((number for number, body in enumerate(bodies) if not _in_string(body)), 0)
        program = "\n".join(line.removeprefix(opened["indent"]) for line in bodies[chosen].split("\n")).rstrip()
        label = opened["language"].strip().split(" ")[0].casefold()
        if label in _PYTHON and program.strip():
            blocks.append((label, program))
        place = ends[chosen] + 1
    return max(reversed(blocks), key=lambda block: (fit(block[1]), bool(block[0])), default=("", None))[1]


def _in_string(program: str) -> bool:
    """Whether a program ends inside a triple-quoted string."""
    return any(match["quote"] and not match["end"] for match in _STRING.finditer(program))
