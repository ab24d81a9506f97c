"""Extracts the answer from a response: `<answer>`, then the last box, then a last line `#### 72`, then (only if
allowed) the last number.

Text inside `<think>` never counts: a policy must not be rewarded for listing every candidate in its reasoning. A task
may let a box there count if nothing follows `</think>`: `answered_in_thinking`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from r1kit import chat
from r1kit.verifiers import spelling

MAX_ANSWER_CHARS = 512  # longer answers are never parsed: honest ones are shorter, and parsers are slow on long input
_MAX_BOX_CHARS = 4096
_LAST_NUMBER_WINDOW = 2000
_PLAIN_TEXT = ("last-number", "code")
_STRUCTURE = re.compile(r"</?think>|</?answer>|\\(?:boxed|fbox)(?![A-Za-z])")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_NUMBER = re.compile(
    r"\\[dt]?frac\s*\{-?\d+\}\s*\{\d+\}"
    r"|(?<![\w.])[-+−]?\\?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?:\\?%|\s*(?:hundred|dozen|thousand|[mbtr]+illion)(?!\w))?(?!\w)"
)
# Signs that a number is part of a formula: 2^72, √72, x - 72, 5 * 72, \frac{7}{72}; 72^2, 72 - x, 72! = ...
_PART_OF_BEFORE = re.compile(
    r"(?:[\^_√]|\\(?:sqrt|times|cdot|div)|[×·÷⋅∙])\s*[({]?\s*$|\\sqrt\[\d\]\{$|(?<!ed)\{$"
    r"|(?:[\d!)}\]]|(?<![A-Za-z'])[A-Za-z])\s*(?:[-+−*/^]|\*\*)\s*[({]?\s*$"
)
_PART_OF_AFTER = re.compile(
    r"\s*(?:[\^×·÷⋅∙]|\\(?:times|cdot|div|sqrt)|\*\s*[\w(\\]|\*\*\s*\d|[-+−/]\s*(?:[A-Za-z](?![A-Za-z])|\\|\()|[²³⁴-⁹])"
    r"|!(?!\s*(?:$|[*\"')\]]*\s+[A-Z\"'(*]|[*\"')\]]+\s*$|\n))"
)
_DENIED_AFTER = re.compile(  # denials of the box itself; "not 71" and "not including tax" deny something else
    r"[\s$*)\]}]*(?:\\[)\]])?[\s*]*,?\s*(?:[.!]?\s*(?:wait|no|hmm|actually)\b[\s,.!-]*)?"
    r"(?:(?:that|this|it|which)(?:['’]s)?\s+)?(?:(?:clearly|also|definitely|certainly)\s+)*"
    r"(?:(?:(?:is|was|would be|seems|looks|must be)\s+(?:(?:clearly|also|definitely|certainly)\s+)*)not(?!\s*[\d$\\])"
    r"|(?:is|was|wo|ca|could|would|does)n['’]t|cannot|never"
    r"|not\s+(?:(?:the|an?|my|our)\s+(?:\w+\s+)?(?:answer|result|solution|value|one)|right|correct|true|it|valid|possible)"
    r"|(?:(?:is|was|would be|seems|looks|must be)\s+(?:(?:clearly|also|definitely|certainly)\s+)*)?"
    r"(?:wrong|incorrect|false|impossible|untrue|excluded)(?!\s*\?))(?![A-Za-z])(?!\s+(?:only|just|surprising))",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|except|anything but|cannot be|rather than|instead of)|n['’]t)"
    r"\s*(?:be\s+)?(?:equal to\s+|the\s+(?:\w+\s+)?answer\s+)?[\s$*(]*(?:\\[(\[])?\s*$",
    re.IGNORECASE,
)
_GSM8K = re.compile(r"(?:^|\n)[ \t]*####[ \t]*(\S[^\n]*?)\s*\Z")
_CONTEXT_CHARS = 60  # around a box or number, searched for denials and formulas


def extract(response: str, *, last_number: bool = False) -> str | None:
    r"""The answer of a response, stripped, or None.

    `extract("<think>4?</think> <answer>\boxed{5}</answer>") == "5"`. Without an answer section and a box, a last line
    `#### 5` counts, and with `last_number=True` the last number after `</think>`. If the reasoning is never closed,
    there is no answer.
    """
    _, thought, tail = response.rpartition("</think>")
    if "<answer>" in tail:
        answer = chat.parse(response).answer
        return None if answer is None else (_stated(answer) if _BOX.search(answer) else answer)
    if "<answer>" in response:
        return None  # the policy went on thinking, which takes the answer back
    if "<think>" in tail:
        return None  # the reasoning was never closed
    final = tail if thought else response
    if _BOX.search(final):
        return _stated(final)
    if line := _GSM8K.search(tail[-MAX_ANSWER_CHARS:]):
        return line[1]
    window = tail[-_LAST_NUMBER_WINDOW:]
    numbers = list(_NUMBER.finditer(window)) if last_number else []
    if not numbers:
        return None
    start, end = numbers[-1].span()
    before, after = window[max(0, start - _CONTEXT_CHARS) : start], window[end : end + _CONTEXT_CHARS]
    part_of_formula = _PART_OF_BEFORE.search(before) or _PART_OF_AFTER.match(after)  # 2^72 or 72! = ...
    return None if part_of_formula else numbers[-1][0]


def answered_in_thinking(response: str) -> str:
    """The reasoning alone if it has a box and nothing follows it; otherwise the response as it is."""
    reasoning, closed, tail = response.rpartition("</think>")
    reasoning = reasoning.rpartition("<think>")[2]
    return reasoning if closed and not tail.strip() and _BOX.search(reasoning) else response


def as_response(prediction: str, verifier: str = "") -> str:
    """A prediction as a whole response: text without tags and boxes becomes the answer.

    `as_response("72") == "<answer>72</answer>"`. Verifiers that find answers in plain text get it unchanged.
    """
    if verifier in _PLAIN_TEXT or _STRUCTURE.search(prediction) or _GSM8K.search(prediction[-MAX_ANSWER_CHARS:]):
        return prediction
    return f"<answer>{prediction}</answer>"


def reference(text: str) -> str:
    r"""The answer in a reference: the last box, the text after the last `####` (GSM8K), or the whole text."""
    box = boxed(text)
    if box is not None:
        return box
    return text.rpartition("####")[2].strip() if "####" in text else text.strip()


def json_reference(text: str, kind: type) -> Any:
    """The data of a reference in JSON; None if it is not JSON of that type."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, kind) else None


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}`, or None if its braces are not balanced or it is empty.

    A box that was cut off is no answer, and it takes back any earlier box.
    """
    box = _last_box(text)
    return box[0] if box else None


def _stated(text: str) -> str | None:
    r"""As `boxed`, but None if the words around the box deny it: `\boxed{5} is wrong`, `not \boxed{5}`."""
    box = _last_box(text)
    if box is None:
        return None
    content, start, end = box
    before, after = text[max(0, start - _CONTEXT_CHARS) : start], text[end : end + _CONTEXT_CHARS]
    return None if _DENIED_AFTER.match(after) or _DENIED_BEFORE.search(before) else content


def _last_box(text: str) -> tuple[str, int, int] | None:
    """The content of the last box, and its start and end in the text."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if not text.startswith("{", start):
        bare = re.compile(r"[^\s${}]{1,64}").match(text, start)  # \boxed 5
        return (bare[0], boxes[-1].start(), bare.end()) if bare else None
    end = start + spelling.closing_brace(text[start : start + _MAX_BOX_CHARS], 0)
    content = text[start + 1 : end].strip()
    return (content, boxes[-1].start(), end + 1) if content else None
