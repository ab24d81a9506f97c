"""The proof of an export: the written file is run in a fresh process, and its answers are compared with the model's."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from r1kit.evaluate.table import align
from r1kit.export.questions import Answers, Questions
from r1kit.export.reference import Reference
from r1kit.models.known import ModelError
from r1kit.pipeline.provenance import threads
from r1kit.store import write_json


class ExportError(ModelError):
    """An export that is not like the trained model; nothing was left of it."""


@dataclass(frozen=True)
class Check:
    """One line of the proof, with what was measured and what was demanded."""

    name: str
    measured: str
    demanded: str
    ok: bool


@dataclass(frozen=True)
class Limits:
    """How far log-probs may be off, on average and at most; `tie`: how close a second best token may win instead."""

    mean: float
    largest: float
    tie: float


# two to ten times what SmolLM2 and the tiny model show (docs/guides/export.md); a permuted head is off by more than 1
LIMITS = {
    "fp32": Limits(1e-3, 1e-2, 1e-3),
    "bf16": Limits(0.05, 0.5, 0.25),  # an adapter merged into weights that bf16 rounds
    "f16": Limits(0.01, 0.1, 0.05),
    "q8_0": Limits(0.25, 2.5, 1.5),
}


NO_EFFECT = 1e-5  # nats: an adapter that changes less, as before its first update, cannot be lost
MOST_ROUNDING = 3.0  # times the adapter's effect
Passages = Sequence[Sequence[float | None]]  # log-probs of texts


def run(program: Path, exported: Path, questions: Questions) -> Answers:
    """The exported model's answers. Raises `ExportError` if the program fails, with the last line of its output."""
    with tempfile.TemporaryDirectory() as temporary:
        questions_file, answers_file = Path(temporary) / "questions.json", Path(temporary) / "answers.json"
        write_json(questions_file, questions)
        # -P: the folder of the program, whose files have common names, is no place to import from
        files = [str(program), str(exported), str(questions_file), str(answers_file)]
        command = [sys.executable, "-P", *files, str(threads() or 1)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode or not answers_file.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = lines[-1] if lines else f"the program ended with status {done.returncode}"
            raise ExportError(f"the exported model does not run ({reason}): nothing was written")
        return Answers(**json.loads(answers_file.read_text(encoding="utf-8")))


def compare(reference: Reference, exported: Answers, limits: Limits) -> list[Check]:
    """All checks of an export's answers; log-probs are compared wherever both sides read the same tokens."""
    ours, checks = reference.answers, []
    for name, mine, theirs in (
        ("token ids of texts", ours.texts, exported.texts),
        ("prompts by the chat template", ours.chats, exported.chats),
        ("end tokens end an answer", ours.ended, exported.ended),
    ):
        equal = sum(a == b for a, b in zip(mine, theirs, strict=True))
        checks.append(Check(name, f"{equal} of {len(mine)}", "all", equal == len(mine)))
    checks.append(_greedy(reference, exported, limits.tie))
    gaps = [abs(a - b) for a, b in _known(ours.passages, exported.passages)]
    same = [place for place, answer in enumerate(ours.answers) if answer == exported.answers[place]]
    answered = _known([ours.logprobs[place] for place in same], [exported.logprobs[place] for place in same])
    gaps += [abs(a - b) for a, b in answered]
    mean, largest = sum(gaps) / max(1, len(gaps)), max(gaps, default=0.0)
    tokens = f"log-prob gap of {len(gaps)} tokens"
    # a NaN is not below the limit
    checks.append(
        Check(f"{tokens}, mean", f"{mean:.2g}", f"at most {limits.mean:g}", bool(gaps) and mean <= limits.mean)
    )
    checks.append(
        Check(f"{tokens}, largest", f"{largest:.2g}", f"at most {limits.largest:g}", largest <= limits.largest)
    )
    if reference.base_passages is not None:
        checks.append(_adapter(reference.base_passages, ours.passages, exported.passages))
    return checks


def _adapter(base: Passages, ours: Passages, exported: Passages) -> Check:
    """How much of the adapter's effect on the log-probs the export shows: 1 if all, 0 if the adapter was lost.

    It is the slope of the export's changes over the adapter's: a small adapter changes log-probs less than rounding
    does, and yet both can be told apart, up to a ratio of about 3.
    """
    changes = [(b - a, c - a) for a, b, c in _known(base, ours, exported)]  # of the adapter, and of the export
    size = sum(wanted * wanted for wanted, _ in changes)
    if math.sqrt(size) <= NO_EFFECT * math.sqrt(len(changes)):
        return Check("adapter's effect", "none: it changes nothing", "at least 0.5 of it", True)
    share = sum(wanted * shown for wanted, shown in changes) / size
    rounding = math.sqrt(sum((shown - share * wanted) ** 2 for wanted, shown in changes) / size)
    measured = f"{share:.2g} of it, and rounding of {rounding:.2g} times its size"
    is_there = share >= 0.5 and rounding <= MOST_ROUNDING
    return Check("adapter's effect", measured, f"at least 0.5, at most {MOST_ROUNDING:g}", is_there)


def _greedy(reference: Reference, exported: Answers, tie: float) -> Check:
    """Answers are equal, or part at a token whose second best was nearly as probable."""
    ours, equal, margins = reference.answers, 0, []
    for place, (mine, theirs) in enumerate(zip(ours.answers, exported.answers, strict=True)):
        if (mine, ours.stopped[place]) == (theirs, exported.stopped[place]):
            equal += 1
            continue
        parted = next((at for at, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
        parted = min(len(mine), len(theirs)) if parted is None else parted
        at_each = reference.margins[place]
        margins.append(at_each[parted] if parted < len(at_each) else float("inf"))
    measured = f"{equal} of {len(ours.answers)}"
    if margins:
        measured += f"; the others part where the second best token is {max(margins):.2g} behind or less"
    return Check("greedy answers", measured, f"all, or a tie within {tie:g}", max(margins, default=0.0) <= tie)


def _known(*sides: Passages) -> Iterator[tuple[float, ...]]:
    """The log-probs of each token on all sides, if all report it."""
    for passages in zip(*sides, strict=True):
        for values in zip(*passages, strict=True):
            known = tuple(value for value in values if value is not None)
            if len(known) == len(sides):
                yield known


def table(checks: Sequence[Check]) -> str:
    """The checks as text for people."""
    lines = [[check.name, check.measured, check.demanded, "ok" if check.ok else "NOT OK"] for check in checks]
    return align([["check", "measured", "demanded", ""], *lines])


def require(checks: Sequence[Check]) -> None:
    """Raise `ExportError` with the table if a check failed."""
    if not all(check.ok for check in checks):
        failed = ", ".join(check.name for check in checks if not check.ok)
        raise ExportError(f"{table(checks)}\nthe export is not the trained model ({failed}): nothing was written")
