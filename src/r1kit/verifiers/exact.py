"""Exact text: equal up to white space, case, Unicode form and a final full stop."""

from __future__ import annotations

import unicodedata

from r1kit.types import Verdict
from r1kit.verifiers import answers


def normalise(text: str) -> str:
    """`normalise("  New\\n York. ") == "new york"`."""
    text = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return text[:-1].rstrip() if text.endswith((".", "。")) else text


def verify_exact(response: str, reference: str) -> Verdict:
    """Right if the answer is the reference, letter by letter after `normalise`; an empty reference cannot tell."""
    prediction = answers.extract(response)
    expected = normalise(answers.reference(reference))
    if not expected:
        return Verdict(correct=None, extracted=prediction, detail="the reference is empty")
    if prediction is None:
        return Verdict(correct=False, detail="no answer found")
    same = normalise(prediction) == expected
    return Verdict(correct=same, extracted=prediction, detail="same text" if same else "different text")
