"""Formats for a response with reasoning and summary, and conversion between them.

`think_answer` is R1-Zero's (paper, Table 1), `special_token` that of the cold start data (section 2.3.1 of the first
version), `think` that of the released models. Conversion strips white space at the edges of the two parts and changes
nothing else, so a response survives the way through any other format.
"""

from __future__ import annotations

from dataclasses import dataclass

from r1kit import chat

SPECIAL_TOKEN = "|special_token|"  # written as the paper prints it
_THINK = ("<think>", "</think>")
FORMATS: dict[str, tuple[str, str, str]] = {  # before the reasoning, between the two, after the summary
    "think_answer": ("<think>", "</think> <answer>", "</answer>"),
    "special_token": (SPECIAL_TOKEN, SPECIAL_TOKEN, ""),
    "think": ("<think>\n", "\n</think>\n\n", ""),
}
MARKS: dict[str, tuple[str, ...]] = {  # marks that a part must not contain, or it could not be split again
    "think_answer": chat.TAGS,
    "special_token": (SPECIAL_TOKEN,),
    "think": chat.TAGS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The two parts of a response, neither empty; `form` is a name in `FORMATS`."""

    form: str
    reasoning: str
    summary: str


def split(text: str) -> Parts | None:
    """Reasoning and summary of a text in one of the formats; None if it is in none."""
    tags = [text.count(tag) for tag in chat.TAGS]
    candidates: dict[str, tuple[str, str]] = {}
    if tags == [1] * len(tags) and (match := chat.RESPONSE.match(text)):
        candidates["think_answer"] = (match["reasoning"], match["answer"])
    pieces = text.split(SPECIAL_TOKEN, 3)
    if len(pieces) == 3 and not pieces[0].strip():
        candidates["special_token"] = (pieces[1], pieces[2])
    if tags == [tag in _THINK for tag in chat.TAGS]:
        before, _, rest = text.partition("<think>")
        reasoning, closed, summary = rest.partition("</think>")
        if closed and not before.strip():
            candidates["think"] = (reasoning, summary)
    for form, (reasoning, summary) in candidates.items():
        if reasoning.strip() and summary.strip():
            return Parts(form=form, reasoning=reasoning.strip(), summary=summary.strip())
    return None


def render(reasoning: str, summary: str, form: str) -> str:
    """A response from its two parts; raises ValueError if one is empty or contains the format's own marks."""
    check_form(form)
    for name, part in (("reasoning", reasoning), ("summary", summary)):
        if not part.strip():
            raise ValueError(f"the {name} is empty: format {form} needs both parts")
        used = next((mark for mark in MARKS[form] if mark in part), None)
        if used is not None:
            raise ValueError(
                f"the {name} contains {used}, which is a mark of format {form}: remove it or drop the text"
            )
    before, between, after = FORMATS[form]
    return f"{before}{reasoning.strip()}{between}{summary.strip()}{after}"


def convert(text: str, form: str) -> str | None:
    """The text in another format; None if it is in none, or if a part contains marks of the new format."""
    check_form(form)
    parts = split(text)
    if parts is None or any(mark in part for part in (parts.reasoning, parts.summary) for mark in MARKS[form]):
        return None
    return render(parts.reasoning, parts.summary, form)


def check_form(form: str) -> None:
    """Raise ValueError for an unknown format."""
    if form not in FORMATS:
        raise ValueError(f"there is no format {form!r}: known are {', '.join(FORMATS)}")
