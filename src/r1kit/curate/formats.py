"""The ways to write reasoning and summary down, and how one becomes another.

`think_answer` is R1-Zero's (paper, Table 1), `special_token` that of the cold start data (section 2.3.1 of the first
version), `think` that of the released models. White space at the edges of the two parts is not kept; all else is, so
what `render` wrote comes back unchanged through any other format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from r1kit import chat

SPECIAL_TOKEN = "|special_token|"  # the paper names a place and not a text; it is written as the paper prints it
_THINK = ("<think>", "</think>")
FORMATS: dict[str, tuple[str, str, str]] = {  # before the reasoning, between the two, after the summary
    "think_answer": ("<think>", "</think> <answer>", "</answer>"),
    "special_token": (SPECIAL_TOKEN, SPECIAL_TOKEN, ""),
    "think": ("<think>\n", "\n</think>\n\n", ""),
}
MARKS: dict[str, tuple[str, ...]] = {  # what a part cannot contain, lest it could not be taken apart again
    "think_answer": chat.TAGS,
    "special_token": (SPECIAL_TOKEN,),
    "think": chat.TAGS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A response taken apart; both parts hold text, and `form` is a name in `FORMATS`."""

    form: str
    reasoning: str
    summary: str


def split(text: str) -> Parts | None:
    """Reasoning and summary of a text that is exactly in one of the formats, else None."""
    for form, parse in _PARSERS.items():
        found = parse(text)
        if found is not None and all(part.strip() for part in found):
            return Parts(form=form, reasoning=found[0].strip(), summary=found[1].strip())
    return None


def render(reasoning: str, summary: str, form: str) -> str:
    """The text of two parts; raises ValueError for an empty part and one that holds the format's own marks."""
    check_form(form)
    for name, part in (("reasoning", reasoning), ("summary", summary)):
        if not part.strip():
            raise ValueError(f"the {name} is empty: format {form} needs both parts")
        held = next((mark for mark in MARKS[form] if mark in part), None)
        if held is not None:
            raise ValueError(
                f"the {name} contains {held}, which is a mark of format {form}: remove it or drop the text"
            )
    before, between, after = FORMATS[form]
    return f"{before}{reasoning.strip()}{between}{summary.strip()}{after}"


def convert(text: str, form: str) -> str | None:
    """The text in another format; None where it is in none, or where its parts hold marks of the other one."""
    check_form(form)
    parts = split(text)
    if parts is None or any(mark in part for part in (parts.reasoning, parts.summary) for mark in MARKS[form]):
        return None
    return render(parts.reasoning, parts.summary, form)


def check_form(form: str) -> None:
    """Raises ValueError for a name that is no format."""
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}: known are {', '.join(FORMATS)}")


def _think_answer(text: str) -> tuple[str, str] | None:
    if any(text.count(tag) != 1 for tag in chat.TAGS):
        return None
    match = chat.RESPONSE.match(text)
    return (match["reasoning"], match["answer"]) if match else None


def _special_token(text: str) -> tuple[str, str] | None:
    pieces = text.split(SPECIAL_TOKEN, 3)
    if len(pieces) != 3 or pieces[0].strip():
        return None
    return pieces[1], pieces[2]


def _think(text: str) -> tuple[str, str] | None:
    if any(text.count(tag) != (1 if tag in _THINK else 0) for tag in chat.TAGS):
        return None
    before, _, rest = text.partition("<think>")
    reasoning, closed, summary = rest.partition("</think>")
    return (reasoning, summary) if closed and not before.strip() else None


_PARSERS: dict[str, Callable[[str], tuple[str, str] | None]] = {
    "think_answer": _think_answer,
    "special_token": _special_token,
    "think": _think,
}
