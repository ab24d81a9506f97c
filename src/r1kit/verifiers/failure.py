"""A verifier that broke or ran out of time: its verdict is None, and is told from a reference that cannot be used."""

from __future__ import annotations

from r1kit.types import Verdict

FAILED = "verifier failed"


def failed(reason: str, extracted: str | None = None) -> Verdict:
    """The verdict of a verifier that could not judge, whatever the response is."""
    return Verdict(correct=None, extracted=extracted, detail=f"{FAILED}: {reason}")


def has_failed(verdict: Verdict) -> bool:
    """Whether the verifier itself is why the verdict is None."""
    return verdict.correct is None and verdict.detail.startswith(FAILED)
