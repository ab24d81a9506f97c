"""Verifiers: one `Verdict` per response. Training, rejection sampling and evaluation use the same ones.

A verifier receives the whole response and extracts the answer itself. An unusable reference gives the outcome `unknown`
for every response, even an empty one, so `verify_all(name, [""] * n, references)` checks a data set. A reference is
text or a number; anything else in its place (null, NaN, a list) is unusable. `{"any_of": [...]}` holds several answers,
any of them right, for every verifier. `math+thinking` is `math` for tasks whose answers may stand in the reasoning: a
box there counts if nothing follows `</think>`. To add a verifier: write a file, and add a line to `VERIFIERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from math import isfinite
from typing import Any, Protocol

from r1kit.numeric import shown
from r1kit.settings import SettingsError, nearest
from r1kit.types import Verdict
from r1kit.verifiers import extract
from r1kit.verifiers.alternatives import alternatives, best
from r1kit.verifiers.choice import verify_choice
from r1kit.verifiers.code.grading import verify_code, verify_code_batch
from r1kit.verifiers.countdown import verify_countdown
from r1kit.verifiers.exact import verify_exact
from r1kit.verifiers.gym_scorer import verify_reasoning_gym
from r1kit.verifiers.ifeval import verify_ifeval, verify_ifeval_loose
from r1kit.verifiers.math.equivalence import verify_math, verify_math_batch
from r1kit.verifiers.number_verifier import verify_last_number, verify_number
from r1kit.verifiers.replies import verify_refusal, verify_reply

__all__ = ["STRUCTURED", "THINKING", "VERIFIERS", "Verifier", "find", "verify_all"]


class Verifier(Protocol):
    """Judges one response against one reference, within a few seconds; no text makes it raise."""

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
    "ifeval": verify_ifeval,
    "ifeval-loose": verify_ifeval_loose,
}
# Verifiers that judge a batch faster than one pair at a time.
BATCHED: dict[str, Callable[[Sequence[str], Sequence[str]], list[Verdict]]] = {
    "math": verify_math_batch,
    "code": verify_code_batch,
}
# Verifiers whose references are JSON.
STRUCTURED = ("code", "countdown", "reasoning_gym", "reply", "refusal", "ifeval", "ifeval-loose")
THINKING = "+thinking"
_MISSING = ("nan", "NaN", "NaT", "<NA>")  # how tables write a missing value


def find(name: str) -> Verifier:
    """The verifier of that name; raises `SettingsError`, which suggests the nearest name, if there is none."""
    verifier = _registered(name)
    return lambda response, reference: best([_checked(verifier, response, each) for each in alternatives(reference)])


def verify_all(name: str, responses: Sequence[str], references: Sequence[str]) -> list[Verdict]:
    """One verdict per pair, in order; worker processes share the mathematics that needs algebra."""
    if len(responses) != len(references):
        raise ValueError(f"{len(responses)} responses but {len(references)} references: give one for each")
    if name.endswith(THINKING):
        answered = [extract.answered_in_thinking(_as_text(response) or "") for response in responses]
        return verify_all(name.removesuffix(THINKING), answered, references)
    judge = _registered(name)
    answers = [alternatives(reference) for reference in references]
    pairs = [(response, answer) for response, group in zip(responses, answers, strict=True) for answer in group]
    if name in BATCHED:
        texts = [_as_text(reference) for _, reference in pairs]
        rows = [row for row, text in enumerate(texts) if text is not None]
        judged = BATCHED[name]([_as_text(pairs[row][0]) or "" for row in rows], [texts[row] or "" for row in rows])
        of_rows = dict(zip(rows, judged, strict=True))
        verdicts = [of_rows.get(row) or _unusable(reference) for row, (_, reference) in enumerate(pairs)]
    else:
        verdicts = [_checked(judge, *pair) for pair in pairs]
    if len(pairs) == len(references):
        return verdicts
    rest = iter(verdicts)
    return [best(list(islice(rest, len(group)))) for group in answers]


def _registered(name: str) -> Verifier:
    verifier = VERIFIERS.get(name.removesuffix(THINKING))
    if verifier is None:
        raise SettingsError(f"there is no verifier {name!r}: {nearest(name, VERIFIERS)}")
    if not name.endswith(THINKING):
        return verifier
    return lambda response, reference: verifier(extract.answered_in_thinking(response), reference)


def _checked(verifier: Verifier, response: Any, reference: Any) -> Verdict:
    text = _as_text(reference)
    return _unusable(reference) if text is None else verifier(_as_text(response) or "", text)


def _as_text(value: Any) -> str | None:
    """Text as it is, a finite number as text, None for anything else."""
    if isinstance(value, str):
        return None if value.strip() in _MISSING else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return str(value) if isinstance(value, int) or isfinite(value) else None
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return None


def _unusable(reference: Any) -> Verdict:
    return Verdict(outcome="unknown", detail=f"the reference is not text: {shown(reference, 60)}")
