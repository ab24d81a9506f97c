"""Finds the program in a response."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^(?P<indent>[ \t]*)(?P<mark>```+|~~~+)(?P<language>[^\n`]*)$", re.MULTILINE)
_PYTHON = ("python", "py", "python3", "")


def extract_program(response: str) -> str | None:
    """The last fenced Python block in `<answer>`, or without an answer section after `</think>`; None if there is none.

    Only an answer section may contain a program without a fence. A fence that is not closed was cut off, and has no
    program.
    """
    tail = response.rpartition("</think>")[2]
    if "<answer>" in tail:
        text = tail.rsplit("<answer>", 1)[1].partition("</answer>")[0]
        program = last_block(text)
        bare = text.strip("\n").rstrip() if program is None and not _FENCE.search(text) else None
        return program or bare or None
    return None if "<answer>" in response else last_block(tail)


def last_block(text: str) -> str | None:
    """The last closed block labelled as Python, or without a label; None if the last fence is not closed."""
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for mark in _FENCE.finditer(text):
        if opened is None:
            opened = mark
        elif mark["mark"].startswith(opened["mark"]) and not mark["language"].strip():
            lines = text[opened.end() + 1 : mark.start()].split("\n")
            program = "\n".join(line.removeprefix(opened["indent"]) for line in lines).rstrip()
            blocks.append((opened["language"].strip().split(" ")[0].casefold(), program))
            opened = None
    if opened is not None:
        return None
    programs = [(label, program) for label, program in reversed(blocks) if label in _PYTHON and program.strip()]
    labelled = [program for label, program in programs if label]
    return next(iter([*labelled, *(program for _, program in programs)]), None)
