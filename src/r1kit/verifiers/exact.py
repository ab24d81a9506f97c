"""Exact text, up to white space, case, Unicode form, markup and a final full stop."""

from __future__ import annotations

import re
import unicodedata

from r1kit.types import Verdict
from r1kit.verifiers import extract, spelling

MAX_CHARS = 4096  # Unicode normalisation may take quadratic time
_TEXT = re.compile(r"^\\(?:text|mbox|mathrm|textbf|textit)\s*\{([^{}]*)\}$")


def normalise(text: str) -> str:
    """`normalise("  New\\n York. ") == "new york"`."""
    text = spelling.characters(" ".join(unicodedata.normalize("NFC", text).split()))
    before = None
    while text != before:
        before, text = text, spelling.unwrapped(_TEXT.sub(r"\1", text)).removesuffix(".").strip()
    return " ".join(text.casefold().split())


def verify_exact(response: str, reference: str) -> Verdict:
    """Right if answer and reference are equal after `normalise`; unknown if the reference is empty."""
    prediction = extract.extract(response)
    text = extract.reference(reference)
    if len(text) > MAX_CHARS:
        detail = f"the reference is longer than {MAX_CHARS} characters"
        return Verdict(outcome="unknown", extracted=prediction and prediction[:MAX_CHARS], detail=detail)
    expected = normalise(text)
    if not expected:
        return Verdict(outcome="unknown", extracted=prediction, detail="the reference is empty")
    if prediction is None:
        return Verdict(outcome="wrong", detail="no answer found")
    if len(prediction) > MAX_CHARS:
        detail = f"the answer is longer than {MAX_CHARS} characters"
        return Verdict(outcome="wrong", extracted=prediction[:MAX_CHARS], detail=detail)
    same = normalise(prediction) == expected
    return Verdict.of(same, extracted=prediction, detail="same text" if same else "different text")
