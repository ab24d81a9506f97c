"""The response format: split a completion into reasoning and answer."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_REASONING, _ANSWER = (rf"[^<]*+(?:<(?!/{tag}>)[^<]*+)*+" for tag in ("think", "answer"))  # up to the closing tag
RESPONSE = re.compile(rf"\s*<think>(?P<reasoning>{_REASONING})</think>\s*<answer>(?P<answer>{_ANSWER})</answer>\s*\Z")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and a symbol that are invisible
_STEP = re.compile(r"(Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A completion in parts. `well_formed` is the paper's format: both parts, each once, not empty, nothing else.

    `parse("<think>2+2 is 4</think> <answer>4</answer>")` has the reasoning "2+2 is 4" and the answer "4". In a response
    that is not well-formed, each part holds as much as can be recognized, or None.
    """

    reasoning: str | None
    answer: str | None
    well_formed: bool


def parse(text: str) -> Response:
    """Split a response into reasoning and answer. Any text is accepted."""
    # count the tags: the pattern allows other tags inside a part
    match = RESPONSE.match(text) if all(text.count(tag) == 1 for tag in TAGS) else None
    if match:
        reasoning, answer = _visible(match["reasoning"]), _visible(match["answer"])
        return Response(reasoning=reasoning, answer=answer, well_formed=None not in (reasoning, answer))
    head, closed, tail = text.rpartition("</think>")
    reasoning = (head if closed else text).split("<think>", 1)[-1] if closed or "<think>" in text else ""
    answer = tail.rsplit("<answer>", 1)[1].split("</answer>", 1)[0] if "<answer>" in tail else ""
    return Response(reasoning=_visible(reasoning), answer=_visible(answer), well_formed=False)


def _visible(part: str) -> str | None:
    """A part without surrounding white space; None if all its characters are invisible."""
    text = part.strip()
    return text if any(unicodedata.category(mark)[0] in "LNPS" and mark not in _BLANK for mark in text) else None


def final_answer(text: str) -> str | None:
    """The answer section, or the text after the reasoning if there is none; None if that is empty.

    `final_answer("<think>2+2</think> It is 4.") == "It is 4."` A response without tags is all answer. A response that
    was cut off in its reasoning has none.
    """
    answer = parse(text).answer
    if answer is not None:
        return answer
    _, closed, tail = text.rpartition("</think>")
    if "<answer>" in tail or (not closed and "<think>" in tail):
        return None
    return _visible(tail)


def count_steps(text: str) -> int:
    """Number of step marks: "Step 1:", numbered or bulleted lines, "First,", "Next," and the like."""
    return len(_STEP.findall(text))
