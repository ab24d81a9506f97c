r"""Multiple choice and yes/no. An answer must commit to one choice: "A, B, C, D" is wrong.

The reference is a letter ("B", "(B)") or one of yes, no, true, false, 是, 否, 对, 错.
"""

from __future__ import annotations

import re

from r1kit.types import Verdict
from r1kit.verifiers import extract, spelling

_OPPOSITE = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_CHINESE = (
    dict.fromkeys(("是", "是的"), "yes")
    | dict.fromkeys(("否", "不是"), "no")
    | dict.fromkeys(("对", "对的", "正确"), "true")
    | dict.fromkeys(("错", "错误", "不对", "不正确"), "false")
)
_MARKUP = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf)(?![A-Za-z])|\*\*|__|</?(?:b|strong|i|em)>")
_CHOICE = r"(?:answer|option|choice|one)"
_LEAD = re.compile(
    r"(?i:(?:so|thus|hence|therefore|finally)\b[\s,]*"
    r"|(?:(?:the|my)\s+)?(?:(?:final|correct|right|best|most appropriate)\s+)*(?:answer|option|choice|letter)\b"
    r"(?:\s+(?:is|would be|must be|should be)\b)?\s*:?\s*"
    r"|(?:it|this|that)(?:\s+is|'s)\s+|(?:the|this|that)\s+(?:statement|claim|assertion)\s+is\s+"
    r"|i(?:\s+would|'d)?\s+(?:choose|pick|select|go with)\s+)"
    r"|(?:所以|因此|故|我)*(?:答案[是为选]?|应?选择?)\s*:?\s*"
)
_TAIL = re.compile(
    rf"\s+is\s+(?:correct|right|true|the (?:correct |right |best |final )*{_CHOICE})"
    r"(?=\s*$|[.,;:]|\s+(?:because|since)\b)",
    re.I,
)
_DENIED = re.compile(
    r"\b(?:not|cannot|never|neither|nor|no|nope|nah|wrong|incorrect|false|untrue|except|excluded|rejected|but|or|unsure"
    r"|maybe|perhaps|possibly|unless|if|instead|actually|rather)\b|n['’]t\b",
    re.IGNORECASE,
)
_UNSURE = re.compile(r"\b(?:except|but|or|unsure|maybe|perhaps|possibly|unless|if|actually)\b", re.IGNORECASE)
_REASON = re.compile(r"\s*,?\s*\b(?:because|since)\b", re.IGNORECASE)
_ALONE = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\]]?")
_SMALL = re.compile(r"[(\[]?[a-z][)\]]\s")
# A mark before an option's text: "(B)", "B.", "B because", or (weak) a letter that is only set apart: "B - Paris".
_MARK = re.compile(
    r"(?:[(\[]\s*([A-Z])\s*[)\]]|([A-Z])(?:[.):](?=\s|$)|,?\s+(?=(?:because|since)\b)"
    r"|(?P<weak>,\s|\s+-+\s|[ ]*\n|\s+(?=\())))"
)
# A text that only says that the letter is wrong.
_REFUSED = re.compile(
    r"\W*(?:(?:definitely|certainly|clearly|surely|probably|it|this|that)\s+)*"
    r"(?:(?:is|was|ca|wo|could|would|does)n't|(?:(?:is|was|can|could|would|must)\s+)?not|cannot"
    r"|(?:is|was)(?=\s+(?:wrong|false|incorrect|excluded|impossible|untrue)))"
    r"(?:\s+be)?(?:\s+(?:it|right|correct|true|possible|wrong|false|incorrect|excluded|impossible|untrue"
    rf"|the (?:(?:right|correct|best) )?{_CHOICE}))?\W*",
    re.IGNORECASE,
)
_BRACKETS = re.compile(r"\([^()]*\)")
_SEPARATOR = r"(?:\s*[,;/|&]\s*|\s+)(?:(?:and|or|nor)\s+)?"
_LISTED = re.compile(  # a list of letters only, such as "a b c d" or "and A"; a single I is a numeral
    r"[\W_]*(?:(?:both|neither|either|options?|and|or|also|as well as)\b\W*)*"
    rf"[A-HJa-hj](?:{_SEPARATOR}[A-Ja-j])*(?:\s+only)?[\W_]*"
)
_BOTH = re.compile(
    r"\W*(?:(?:both|neither|options?)\s+)?[A-J](?:[\s,]+[A-J])*[\s,]+(?:and|nor)\s+[A-J]\W*(?:only\W*)?", re.I
)
_ROW = re.compile(rf"(?<![A-Za-z'])[A-Ja-j](?:{_SEPARATOR}[A-Ja-j](?![A-Za-z'(^])){{2,}}")
_NAMED = re.compile(r"(?<![A-Za-z])([B-HJ-Z])(?![A-Za-z'])")
_RIVALS = (
    re.compile(r"(?<![\w)])[(\[]\s*([A-HJa-hj])\s*[)\]]"),
    re.compile(r"\b(?i:option|choice|answer)(?i:\s+is)?\W{1,3}([A-Jb-j])(?![\w'])"),
    re.compile(r"\b(?i:and|or|nor|also|as well as|but|no|wait|instead|rather)\W+([A-HJ])\W*$"),
    re.compile(r"\b(?i:be|it is|it's|also|actually|maybe|perhaps|possibly|wait)\W+([A-HJa-hj])\W*$"),
)
_MARKED = re.compile(r"(?<![\w.'])([A-HJ])(?:\)(?=\s|$)|[.:](?=\s+\S))|(?<![\w.'])([a-hj])\)(?=\s|$)")
_LOOKS_LIKE = str.maketrans("АВСЕНЈасејΑΒΕΗ", "ABCEHJacejABEH")  # Cyrillic and Greek


def choice(text: str) -> str | None:
    """The letter or yes/no that an answer commits to: `choice("(B) Paris") == "B"`, `choice("A or B") is None`."""
    text = spelling.characters(text[: extract.MAX_ANSWER_CHARS])
    text = _MARKUP.sub("", text).strip(" \t\n$*{}\"'`.")
    while (lead := _LEAD.match(text)) and lead.end():
        text = text[lead.end() :].strip(" \t\n$*{}\"'`")
    text = _TAIL.sub("", text)
    if alone := _ALONE.fullmatch(text):
        return alone[1].upper()
    return _polarity(text) or _letter(text)


def verify_choice(response: str, reference: str) -> Verdict:
    """Right if the answer commits to the reference's choice and to no other."""
    prediction = extract.extract(response)
    expected = choice(extract.reference(reference))
    if expected is None:
        detail = f"the reference is not a choice: {reference[:80]!r}"
        return Verdict(outcome="unknown", extracted=prediction, detail=detail)
    if prediction is None:
        return Verdict(outcome="wrong", detail="no answer found")
    chosen = choice(prediction)
    if chosen is None:
        return Verdict(outcome="wrong", extracted=prediction, detail="the answer does not commit to one choice")
    return Verdict.of(chosen == expected, extracted=chosen, detail=f"chose {chosen}, the reference is {expected}")


def _polarity(text: str) -> str | None:
    """The yes or no at the start of a text. Denials contradict a yes, except in its reason; they agree with a no."""
    if text in _CHINESE:
        return _CHINESE[text]
    opening = re.match(r"([A-Za-z]+)(?=\s*(?:[.,;:!—-]|$)|\s+(?:because|since)\b)", text)
    first = opening[1].casefold() if opening else ""
    if first not in _OPPOSITE:
        return None
    rest = text[len(first) :]
    claim = _REASON.split(rest, maxsplit=1)[0]
    if first in ("yes", "true"):
        contradicted = re.search(rf"\b{_OPPOSITE[first]}\b", rest, re.I) or _DENIED.search(claim)
    else:
        contradicted = _UNSURE.search(claim) or re.search(
            rf"(?<!not )(?<!n't )\b{_OPPOSITE[first]}\b|(?:not|n't)\s+(?:a\s+)?{first}\b", rest, re.I
        )
    return None if contradicted else first


def _letter(text: str) -> str | None:
    """The letter that marks the text ("B) Paris"), unless the text denies it, names another choice or lists letters.

    An option's own text may contain denials and letters: "B. not guilty" and "C. both A and B" are choices.
    """
    if _SMALL.match(text):
        text = text.upper()
    mark = _MARK.match(text)
    if not mark:
        return None
    letter, rest = mark[1] or mark[2], text[mark.end() :].translate(_LOOKS_LIKE)
    weak = mark["weak"] or ""
    both = _BOTH.fullmatch(rest)  # "both A and B" is one choice if it is the text of a third letter
    is_list = _LISTED.fullmatch(rest) or any(letter in row[0].upper() for row in _ROW.finditer(rest))
    if is_list and not (both and letter not in re.findall(r"\b[A-J]\b", rest.upper())):
        return None
    if _REFUSED.fullmatch(rest) or (weak.startswith(",") and _DENIED.search(rest)):
        return None
    others = {(a or b).upper() for a, b in _MARKED.findall(_BRACKETS.sub(" ", rest))}
    if not both:
        others |= {rival.upper() for pattern in _RIVALS for rival in pattern.findall(rest)}
    others |= set(_NAMED.findall(rest)) if weak else set()
    return letter if others <= {letter} else None
