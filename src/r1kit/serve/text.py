"""Text as it grows: whole characters, nothing that a stop string may cut off, reasoning apart from the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from r1kit.chat.template import END_THINK, THINK

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what an incomplete character decodes to


def held_back(text: str, marks: Sequence[str]) -> int:
    """The length of the longest end of `text` with which one of the marks may begin: `held_back("a\\nUs", ["\\nUser"])`
    is 3."""
    longest = min(len(text), max(map(len, marks), default=1) - 1)
    ends = (size for size in range(longest, 0, -1) if any(mark.startswith(text[-size:]) for mark in marks))
    return next(ends, 0)


class TextStream:
    """The text of a growing sequence in pieces, which add up to the completion's text."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self.decode, self.stops = decode, stops
        self.token_ids: list[int] = []
        # tokens [start:read] are decoded again before new ones, which may join them
        self.start = self.read = 0
        self.held = ""  # decoded, but a stop string may begin in it
        self.sent = 0  # characters

    def add(self, token_ids: Sequence[int]) -> str:
        """The text that is certain now that the sequence goes on with these tokens."""
        self.token_ids += token_ids
        before = self.decode(self.token_ids[self.start : self.read])
        text = self.decode(self.token_ids[self.start :])
        if text.endswith(BROKEN):  # a character that the next tokens complete
            return ""
        self.start, self.read = self.read, len(self.token_ids)
        text = self.held + text[len(before) :]
        size = len(text) - held_back(text, self.stops)
        self.held = text[size:]
        self.sent += size
        return text[:size]

    def end(self, text: str) -> str:
        """The rest of a completion's text."""
        return text[self.sent :]


class ReasoningSplit:
    """Splits a response into reasoning and answer, also piece by piece. Without <think> at its start all is answer.

    The tags are left out and all other characters kept, except white space before <think> and reasoning without text.
    """

    def __init__(self) -> None:
        self.part = ""  # not yet known; later "reasoning_content" or "content"
        self.reasons = False  # the reasoning has text
        self.held = ""

    def add(self, text: str, *, last: bool = False) -> list[tuple[str, str]]:
        """The new pieces, each with the name of its field; `last` ends the response."""
        text, self.held, pieces = self.held + text, "", list[tuple[str, str]]()
        if not self.part:
            start = text.lstrip()
            if start.startswith(THINK):
                self.part, text = "reasoning_content", start.removeprefix(THINK)
            elif last or not THINK.startswith(start):
                self.part = "content"
            else:
                self.held = text
                return []
        if self.part == "reasoning_content":
            reasoning, closed, answer = text.partition(END_THINK)
            size = len(reasoning) if closed or last else len(reasoning) - held_back(reasoning, [END_THINK])
            if not self.reasons and not reasoning[:size].strip():
                size = len(reasoning) if closed or last else 0
            elif size:
                self.reasons = True
                pieces.append((self.part, reasoning[:size]))
            if closed:
                self.part, text = "content", answer
            else:
                self.held = reasoning[size:]
        if self.part == "content":
            pieces.append((self.part, text))
        return [piece for piece in pieces if piece[1]]
