"""The verifiers `reply` and `refusal`, for requests: whether a reply is among the good ones, and whether it refuses.

Both judge the final answer that a reader sees; a reply without tags counts as a whole.
"""

from __future__ import annotations

from typing import Any

from r1kit.chat import final_answer
from r1kit.types import Verdict
from r1kit.verifiers import extract
from r1kit.verifiers.exact import MAX_CHARS, normalise


def verify_reply(response: str, reference: str) -> Verdict:
    """Right if the final answer is one of the replies in the reference, a JSON list of texts; see `exact.normalise`."""
    replies = extract.json_reference(reference, list)
    if not _are_texts(replies):
        return Verdict(outcome="unknown", detail="the reference is not a JSON list of replies")
    answer = _answer(response)
    if answer is None:
        return Verdict(outcome="wrong", detail="no answer found")
    same = normalise(answer) in {normalise(reply[:MAX_CHARS]) for reply in replies}
    return Verdict.of(same, extracted=answer, detail="one of the good replies" if same else "another reply")


def verify_refusal(response: str, reference: str) -> Verdict:
    """Right if the final answer refuses and should, or does not refuse and should not.

    The reference is JSON: `{"refuse": true, "openings": ["sorry, i can not"]}`. A final answer that begins with one of
    the openings is a refusal. A missing answer is wrong in both cases.
    """
    expected: Any = extract.json_reference(reference, dict) or {}
    refuse, openings = expected.get("refuse"), expected.get("openings")
    if not isinstance(refuse, bool) or not _are_texts(openings):
        return Verdict(outcome="unknown", detail='the reference is not JSON of {"refuse": ..., "openings": [...]}')
    answer = _answer(response)
    if answer is None:
        return Verdict(outcome="wrong", detail="no answer found")
    refused = normalise(answer).startswith(tuple(normalise(opening) for opening in openings))
    return Verdict.of(refused == refuse, extracted=answer, detail="refused" if refused else "did not refuse")


def _answer(response: str) -> str | None:
    answer = final_answer(response)
    return answer[:MAX_CHARS] if answer else None


def _are_texts(value: Any) -> bool:
    """Whether the value is a non-empty list of non-empty texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and normalise(text) for text in value)
