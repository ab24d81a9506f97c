"""The response format: a completion taken apart into reasoning and answer."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

RESPONSE = re.compile(r"\s*<think>(?P<reasoning>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*\Z", re.DOTALL)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and a symbol that show nothing
_STEP = re.compile(r"(Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A completion taken apart. `well_formed` is the paper's format: both parts, each once, non-empty, nothing else.

    `parse("<think>2+2 is 4</think> <answer>4</answer>")` has reasoning "2+2 is 4" and answer "4". Where the form is
    broken, `reasoning` and `answer` hold what can still be told apart, or None.
    """

    reasoning: str | None
    answer: str | None
    well_formed: bool


def parse(text: str) -> Response:
    """Split a response into reasoning and answer; any text is accepted, and no text raises."""
    # counted first: over many tags the pattern would take quadratic time
    match = RESPONSE.match(text) if all(text.count(tag) == 1 for tag in TAGS) else None
    if match:
        reasoning, answer = _said(match["reasoning"]), _said(match["answer"])
        return Response(reasoning=reasoning, answer=answer, well_formed=None not in (reasoning, answer))
    head, closed, tail = text.rpartition("</think>")
    reasoning = (head if closed else text).split("<think>", 1)[-1] if closed or "<think>" in text else ""
    answer = tail.rsplit("<answer>", 1)[1].split("</answer>", 1)[0] if "<answer>" in tail else ""
    return Response(reasoning=_said(reasoning), answer=_said(answer), well_formed=False)


def _said(part: str) -> str | None:
    """A part without the white space around it; None where nothing in it can be seen (zero-width characters, say)."""
    text = part.strip()
    return text if any(unicodedata.category(mark)[0] in "LNPS" and mark not in _BLANK for mark in text) else None


def final_answer(text: str) -> str | None:
    """What a reader of the answer sees: the answer section, else what follows the reasoning; None where it is empty.

    `final_answer("<think>2+2</think> It is 4.") == "It is 4."` A response without tags is all answer; one that was cut
    off while reasoning has none.
    """
    answer = parse(text).answer
    if answer is not None:
        return answer
    _, closed, tail = text.rpartition("</think>")
    if "<answer>" in tail or (not closed and "<think>" in tail):
        return None
    return _said(tail)


def count_steps(text: str) -> int:
    """Marks of visible steps: "Step 1:", numbered or bulleted lines, "First,", "Next," and their like."""
    return len(_STEP.findall(text))
