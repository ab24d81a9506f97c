"""Verifiers: right, wrong or cannot tell. The same objects judge in training, in rejection sampling and in evaluation.

A verifier takes the whole response and extracts the answer itself. `correct=None` means that nobody can tell: the
reference cannot be used, or the verifier itself failed. An unusable reference gives None for every response, the empty
one too, so `verify_all(name, [""] * n, references)` checks a data set. To add one: a file, and a line in `VERIFIERS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Protocol

from r1kit.types import Verdict
from r1kit.verifiers.choice import verify_choice
from r1kit.verifiers.code import verify_code, verify_code_batch
from r1kit.verifiers.countdown import verify_countdown
from r1kit.verifiers.exact import verify_exact
from r1kit.verifiers.gym import verify_reasoning_gym
from r1kit.verifiers.math import verify_math, verify_math_batch
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


def find(name: str) -> Verifier:
    """The verifier of that name; raises ValueError with the nearest name for one that does not exist."""
    if name not in VERIFIERS:
        near = difflib.get_close_matches(name, VERIFIERS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(VERIFIERS)}"
        raise ValueError(f"there is no verifier {name!r}: {hint}")
    return VERIFIERS[name]


def verify_all(name: str, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """One verdict per pair, in order; hard math is spread over worker processes."""
    if len(responses) != len(references):
        raise ValueError(f"{len(responses)} responses but {len(references)} references: give one for each")
    verifier = find(name)
    if name in BATCHED:
        return BATCHED[name](responses, references)
    return [verifier(response, reference) for response, reference in zip(responses, references, strict=True)]
