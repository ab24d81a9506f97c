r"""Multiple choice and yes/no. An answer counts only where it commits to one choice: "A, B, C, D" is wrong, not lucky.

The reference is a letter ("B", "(B)") or one of yes, no, true, false, 是, 否, 对, 错.
"""

from __future__ import annotations

import re

from r1kit.types import Verdict
from r1kit.verifiers import answers, spelling

_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_POLARITY = {word: word for word in _OPPOSITE} | {"是": "yes", "否": "no", "对": "true", "错": "false"}
_COMMAND = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf)(?![A-Za-z])")
_LEAD = re.compile(
    r"(?i:(?:the |my )?(?:final |correct |best )*(?:answer|option|choice)(?: is)?\s*[:：]?\s*)|答案[是为]?\s*:?\s*"
)
_TAIL = re.compile(
    r"\s+is\s+(?:correct|right|true|the (?:correct |right |best |final )*(?:answer|option|choice|one))$", re.I
)
_DENIED = re.compile(
    r"\b(?:not|cannot|never|neither|nor|no|nope|nah|wrong|incorrect|false|untrue|except|excluded|rejected|but|or|unsure"
    r"|maybe|perhaps|possibly|unless|if|instead|actually|rather)\b|n['’]t\b",
    re.IGNORECASE,
)
_RIVAL = re.compile(r"\b(?:option|choice|answer)\s+([b-z])\b|[(\[]([a-z])[)\]]", re.IGNORECASE)
_ALONE = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\]]?")
_MARKED = re.compile(r"(?<![A-Za-z])(?:[(\[]([A-Z])[)\]]|([A-Z])[.):](?=\s|$))")
_OFFERED = re.compile(  # "A. a b c d": letters in a row, or nothing but a letter
    r"(?<![A-Za-z'])[A-Ja-j](?:(?:\s*[,;/|&]\s*|\s+)(?:(?:and|or)\s+)?[A-Ja-j](?![A-Za-z'(^]))+|^\W*[A-Ja-j]\W*$"
)
_SMALL = re.compile(r"[(\[]?[a-z][)\]]\s")
_NAMED = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z'])")


def choice(text: str) -> str | None:
    """The one letter or yes/no that an answer commits to: `choice("(B) Paris") == "B"`, `choice("A or B") is None`."""
    text = spelling.characters(text[: answers.MAX_ANSWER_CHARS])
    text = _COMMAND.sub("", text).strip(" \t\n$*{}\"'`.")
    while (lead := _LEAD.match(text)) and lead.end():
        text = text[lead.end() :].strip(" \t\n$*{}\"'`")
    text = _TAIL.sub("", text)
    alone = _ALONE.fullmatch(text)
    if alone:
        return alone[1].upper()
    return _polarity(text) or _letter(text)


def verify_choice(response: str, reference: str) -> Verdict:
    """Right if the answer commits to the reference's choice and to no other."""
    prediction = answers.extract(response)
    expected = choice(answers.reference(reference))
    if expected is None:
        return Verdict(correct=None, extracted=prediction, detail=f"the reference is no choice: {reference[:80]!r}")
    if prediction is None:
        return Verdict(correct=False, detail="no answer found")
    given = choice(prediction)
    if given is None:
        return Verdict(correct=False, extracted=prediction, detail="the answer does not commit to one choice")
    return Verdict(correct=given == expected, extracted=given, detail=f"chose {given}, the reference is {expected}")


def _polarity(text: str) -> str | None:
    words = re.findall(r"[a-z]+", text.casefold())
    first = _POLARITY.get(words[0]) if words else _POLARITY.get(text)
    if first is None or (words and not re.match(r"[A-Za-z]+(?:[\s]*[.,;:!—-]|\s*$)", text)):
        return None
    rest = text[len(words[0]) :] if words else ""
    return None if _OPPOSITE[first] in words[1:] or _DENIED.search(rest) else first


def _letter(text: str) -> str | None:
    """A letter that opens the text as a mark, "B) Paris", and is the only letter that is marked or named alone."""
    if _SMALL.match(text):
        text = text.upper()
    opening = _MARKED.match(text)
    if not opening or _DENIED.search(text):
        return None
    if _OFFERED.search(text[opening.end() :]):
        return None
    letters = {a or b for a, b in _MARKED.findall(text)} | (set(_NAMED.findall(text)) - {"A", "I"})
    letters |= {(a or b).upper() for a, b in _RIVAL.findall(text)}
    return opening[1] or opening[2] if letters <= {opening[1] or opening[2]} else None
