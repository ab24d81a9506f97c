"""Where the answer stands in a response: `<answer>`, else the last box, else a last line `#### 72`, else (only
where allowed) the last number.

Text inside `<think>` never counts when there is an answer section, which is `<answer>`, or else whatever follows
`</think>`: a policy must not collect by writing every candidate into its reasoning.
"""

from __future__ import annotations

import re

from r1kit import chat

MAX_ANSWER_CHARS = 512  # longer answers are never parsed: no honest one needs it, and parsers are slow on long input
_MAX_BOX_CHARS = 4096
_LAST_NUMBER_WINDOW = 2000
_PLAIN_TEXT = ("last-number", "code")
_STRUCTURE = re.compile(r"</?think>|</?answer>|\\(?:boxed|fbox)(?![A-Za-z])")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_NUMBER = re.compile(
    r"\\[dt]?frac\s*\{-?\d+\}\s*\{\d+\}"
    r"|(?<![\w.])[-+−]?\\?[$€£]?\d[\d,]*(?:\.\d+)?(?:/\d+)?(?:\\?%|\s*(?:hundred|dozen|thousand|[mbtr]+illion)(?!\w))?(?!\w)"
)
# What makes a number a part of something else: 2^72, √72, x - 72, 5 * 72, \frac{7}{72}; 72^2, 72 - x, 72! = ...
_PART_OF_BEFORE = re.compile(
    r"(?:[\^_√]|\\(?:sqrt|times|cdot|div)|[×·÷⋅∙])\s*[({]?\s*$|\\sqrt\[\d\]\{$|(?<!ed)\{$"
    r"|(?:[\d!)}\]]|(?<![A-Za-z'])[A-Za-z])\s*(?:[-+−*/^]|\*\*)\s*[({]?\s*$"
)
_PART_OF_AFTER = re.compile(
    r"\s*(?:[\^×·÷⋅∙]|\\(?:times|cdot|div|sqrt)|\*\s*[\w(\\]|\*\*\s*\d|[-+−/]\s*(?:[A-Za-z](?![A-Za-z])|\\|\()|[²³⁴-⁹])"
    r"|!(?!\s*(?:$|[*\"')\]]*\s+[A-Z\"'(*]|[*\"')\]]+\s*$|\n))"
)
_DENIED_AFTER = re.compile(  # of the box itself: "not 71" and "not including tax" deny something else
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
_NEAR = 60  # characters around a box in which it may be denied


def extract(response: str, *, last_number: bool = False) -> str | None:
    r"""The answer of a response, stripped, or None.

    `extract("<think>4?</think> <answer>\boxed{5}</answer>") == "5"`. Where there is neither an answer section nor a box
    a last line `#### 5` counts, and with `last_number=True` the last number after `</think>`. Reasoning that never
    closes has no answer.
    """
    _, thought, tail = response.rpartition("</think>")
    if "<answer>" in tail:
        answer = chat.parse(response).answer
        return None if answer is None else (_stated(answer) if _BOX.search(answer) else answer)
    if "<answer>" in response:
        return None  # it was taken back by thinking on
    if "<think>" in tail:
        return None  # it never stopped thinking
    spoken = tail if thought and tail.strip() else response
    if _BOX.search(spoken):
        return _stated(spoken)
    line = _GSM8K.search(tail[-MAX_ANSWER_CHARS:])
    if line:
        return line[1]
    return _last_number(tail) if last_number else None


def as_response(prediction: str, verifier: str = "") -> str:
    """A prediction as a whole response: text without tags and boxes is taken as the answer itself.

    `as_response("72") == "<answer>72</answer>"`. Verifiers that find answers in plain text get it as it is.
    """
    if verifier in _PLAIN_TEXT or _STRUCTURE.search(prediction) or _GSM8K.search(prediction[-MAX_ANSWER_CHARS:]):
        return prediction
    return f"<answer>{prediction}</answer>"


def reference(text: str) -> str:
    r"""The answer in a reference: the last box or what follows the last `####` (GSM8K), else the text itself."""
    box = boxed(text)
    if box is not None:
        return box
    return text.rpartition("####")[2].strip() if "####" in text else text.strip()


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` with balanced braces, or None where it is not closed or empty.

    A box that was cut off is no answer, and an earlier one was taken back by it.
    """
    found = _last_box(text)
    return found[0] if found else None


def _stated(text: str) -> str | None:
    r"""As `boxed`, but None where the words at the box deny it: `\boxed{5} is wrong`, `not \boxed{5}`."""
    found = _last_box(text)
    if found is None:
        return None
    content, start, end = found
    denied = _DENIED_AFTER.match(text[end : end + _NEAR]) or _DENIED_BEFORE.search(text[max(0, start - _NEAR) : start])
    return None if denied else content


def _last_box(text: str) -> tuple[str, int, int] | None:
    """The last box's content, and where the box begins and ends."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if not text.startswith("{", start):
        bare = re.compile(r"[^\s${}]{1,64}").match(text, start)  # \boxed 5
        return (bare[0], boxes[-1].start(), bare.end()) if bare else None
    depth, position, end = 0, start, min(len(text), start + _MAX_BOX_CHARS)
    while position < end:
        char = text[position]
        if char == "\\":  # \{ and \} are brackets of the answer, not of the box
            position += 1
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                content = text[start + 1 : position].strip()
                return (content, boxes[-1].start(), position + 1) if content else None
        position += 1
    return None


def _last_number(tail: str) -> str | None:
    """The last number, if it stands by itself: in 2^72 and 72! = ... there is another value."""
    window = tail[-_LAST_NUMBER_WINDOW:]
    numbers = list(_NUMBER.finditer(window))
    if not numbers:
        return None
    last = numbers[-1]
    before, after = window[max(0, last.start() - _NEAR) : last.start()], window[last.end() : last.end() + _NEAR]
    return None if _PART_OF_BEFORE.search(before) or _PART_OF_AFTER.match(after) else last[0]
