"""Verifiers: right, wrong or cannot tell. The same objects judge in training, in rejection sampling and in evaluation.

A verifier takes the whole response and extracts the answer itself. `correct=None` means that nobody can tell: the
reference cannot be used, or the verifier itself failed. An unusable reference gives None for every response, the empty
one too, so `verify_all(name, [""] * n, references)` checks a data set. A reference is text or a number; whatever else a
row holds in its place (nothing, NaN, a list) gives None. To add a verifier: a file, and a line in `VERIFIERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import Any, Protocol

from r1kit.settings import SettingsError, nearest
from r1kit.types import Verdict
from r1kit.verifiers.choice import verify_choice
from r1kit.verifiers.code.grading import verify_code, verify_code_batch
from r1kit.verifiers.countdown import verify_countdown
from r1kit.verifiers.exact import verify_exact
from r1kit.verifiers.gym_scorer import verify_reasoning_gym
from r1kit.verifiers.math.equivalence import verify_math, verify_math_batch
from r1kit.verifiers.number import verify_last_number, verify_number
from r1kit.verifiers.replies import verify_refusal, verify_reply

__all__ = ["VERIFIERS", "Verifier", "find", "verify_all"]


class Verifier(Protocol):
    """Judges one response against one reference; no text raises, and none takes more than a few seconds."""

    def __call__(self, response: str, reference: str) -> Verdict: ...


VERIFIERS: dict[str, Verifier] = {
    "math": verify_math,
    "number": verify_number,
    "last-number": verify_last_number,
    "exact": verify_exact,
    "choice": verify_choice,
    "code": verify_code,
    "countdown": verify_countdown,
    "reasoning_gym": verify_reasoning_gym,
    "reply": verify_reply,
    "refusal": verify_refusal,
}
# Verifiers that judge many at a time faster than one by one.
BATCHED: dict[str, Callable[[Sequence[str], Sequence[str]], list[Verdict]]] = {
    "math": verify_math_batch,
    "code": verify_code_batch,
}


_MISSING = ("nan", "NaN", "NaT", "<NA>")  # what tables write where a value is missing


def find(name: str) -> Verifier:
    """The verifier of that name; raises `SettingsError` with the nearest name for one that does not exist."""
    return partial(_checked, _registered(name))


def verify_all(name: str, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """One verdict per pair, in order; hard math is spread over worker processes."""
    if len(responses) != len(references):
        raise ValueError(f"{len(responses)} responses but {len(references)} references: give one for each")
    verifier = _registered(name)
    if name not in BATCHED:
        return [_checked(verifier, *pair) for pair in zip(responses, references, strict=True)]
    wanted = [_as_text(reference) for reference in references]
    rows = [row for row, reference in enumerate(wanted) if reference is not None]
    judged = BATCHED[name]([_as_text(responses[row]) or "" for row in rows], [wanted[row] or "" for row in rows])
    verdicts = dict(zip(rows, judged, strict=True))
    return [verdicts.get(row) or _unusable(reference) for row, reference in enumerate(references)]


def _registered(name: str) -> Verifier:
    if name not in VERIFIERS:
        raise SettingsError(f"there is no verifier {name!r}: {nearest(name, VERIFIERS)}")
    return VERIFIERS[name]


def _checked(verifier: Verifier, response: Any, reference: Any) -> Verdict:
    wanted = _as_text(reference)
    return _unusable(reference) if wanted is None else verifier(_as_text(response) or "", wanted)


def _as_text(value: Any) -> str | None:
    """Text, or a number as text; None for everything else, which can be no reference."""
    if isinstance(value, str):
        return None if value.strip() in _MISSING else value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number and isfinite(value) else None


def _unusable(reference: Any) -> Verdict:
    return Verdict(outcome="unknown", detail=f"the reference is no text: {str(reference)[:60]!r}")
