"""The labelled cases: one JSON object per line, in `cases/<verifier>.jsonl` and `cases/rewards.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1kit.data.jsonl import read_rows

FOLDER = Path(__file__).with_name("cases")
CASES = ("math", "number", "last-number", "exact", "choice", "countdown", "code", "ifeval")  # verifiers that have cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An answer, a reference, and whether the answer is right (None: cannot be decided).

    `Case(id="math:7", kind="unicode", prediction="７２", answer="72", correct=True)`; `prediction` is an answer or a
    whole response, as in `r1kit.verifiers.extract.as_response`.
    """

    id: str
    kind: str
    prediction: str
    answer: str
    correct: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardCase:
    """A completion, the other columns of its row, the reward's options, and the value that the formula gives."""

    id: str
    kind: str
    reward: str
    completion: str
    expected: float | None
    columns: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def cases(source: str | Path) -> tuple[Case, ...]:
    """The cases of a verifier or of a file; raises ValueError with file, line and field of a fault."""
    path = source if isinstance(source, Path) else FOLDER / f"{source}.jsonl"
    if not path.is_file():
        raise ValueError(f"there are no cases {str(source)!r}: expected one of {', '.join(CASES)}, or a .jsonl file")
    labelled = []
    for number, row in enumerate(read_rows(path), start=1):
        where, correct = f"{path}, case {number}", row.get("correct")
        for name in ("prediction", "answer"):
            if not isinstance(row.get(name), str):
                raise ValueError(f"{where}: field {name!r} is {row.get(name)!r:.60}: expected text")
        if "correct" not in row or not (correct is None or isinstance(correct, bool)):
            raise ValueError(f"{where}: field 'correct' is {correct!r:.60}: expected true, false or null")
        texts = {name: row[name] for name in ("prediction", "answer")}
        case = Case(id=f"{path.stem}:{number}", kind=str(row.get("kind", "")), correct=correct, **texts)
        labelled.append(case)
    if not labelled:  # rates of no cases would look like a success
        raise ValueError(f"{path} has no cases: expected one JSON object per line")
    return tuple(labelled)


def reward_cases() -> tuple[RewardCase, ...]:
    """The cases of all rewards."""
    rows = enumerate(read_rows(FOLDER / "rewards.jsonl"), start=1)
    return tuple(RewardCase(id=f"rewards:{number}", **row) for number, row in rows)
