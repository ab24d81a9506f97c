"""Completions to read, early beside late, chosen by position and never by how good they look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.chat import TAGS
from r1kit.report.curves import figure
from r1kit.report.folders import Row, Stage, read_lines

LONGEST = 4000  # characters of a completion that are shown
FILES = 12  # rollout files read at each end of a run in search of a question that came up at both
TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + ")")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One completion: where it is from, its pieces (text, is it a tag), what it got, and whether that is right."""

    origin: str
    pieces: list[tuple[str, bool]]
    facts: list[tuple[str, str]]
    correct: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Early and late; `late_question` is set only where no question came up at both ends."""

    question: str
    early: Sample
    late: Sample
    late_question: str = ""


def held_out(first: Stage, last: Stage, count: int = 4) -> list[Pair]:
    """The same held-out questions before and after, evenly spread over the file."""
    before = {row["problem_id"]: row for row in reversed(first.completions) if row.get("sample") == 0}
    after = {row["problem_id"]: row for row in reversed(last.completions) if row.get("sample") == 0}
    shared = [name for name in reversed(before) if name in after]
    chosen = [shared[i * len(shared) // count] for i in range(count)] if len(shared) > count else shared
    return [
        Pair(
            question=str(before[name].get("question", name)),
            early=judged(first.name, before[name]),
            late=judged(last.name, after[name]),
        )
        for name in chosen
    ]


def judged(origin: str, row: Row) -> Sample:
    """A completion of an evaluation."""
    facts = [("answer", str(row.get("extracted"))), ("tokens", str(row.get("completion_tokens")))]
    facts += [(title, "yes") for key, title in (("truncated", "cut off"), ("mixed", "mixed")) if row.get(key)]
    return Sample(origin=origin, pieces=pieces(row.get("completion")), facts=facts, correct=row.get("correct"))


def training(stage: Stage, count: int = 3) -> list[Pair]:
    """Rollouts from the first and the last stored steps, of the same questions where some came up at both ends."""
    files = stage.rollouts
    if len(files) < 2:
        return []
    half = len(files) // 2
    head = [row for path in files[:half][:FILES] for row in read_lines(path)]
    tail = [row for path in reversed(files[half:][-FILES:]) for row in read_lines(path)]
    early, late = first_of_each(head), first_of_each(tail)
    shared = [name for name in early if name in late][:count]
    if shared:
        return [rollout_pair(early[name], late[name]) for name in shared]
    return [rollout_pair(a, b) for a, b in list(zip(early.values(), late.values(), strict=False))[:count]]


def first_of_each(rows: Sequence[Row]) -> dict[str, Row]:
    """The first rollout of each problem."""
    found: dict[str, Row] = {}
    for row in rows:
        found.setdefault(str(row.get("problem_id")), row)
    return found


def rollout_pair(early: Row, late: Row) -> Pair:
    question, other = question_of(early), question_of(late)
    return Pair(
        question=question, early=rollout(early), late=rollout(late), late_question=other if other != question else ""
    )


def question_of(row: Row) -> str:
    return str(row.get("question") or row.get("prompt") or row.get("problem_id"))


def rollout(row: Row) -> Sample:
    """A completion of a training step with the parts of its reward."""
    parts = as_dict(row.get("parts"))
    facts = [("reward", amount(row.get("reward"))), *((str(name), amount(value)) for name, value in parts.items())]
    facts += [("tokens", str(row["tokens"]))] if "tokens" in row else []
    facts += [("cut off", "yes")] if row.get("finish_reason") == "length" else []
    origin, correct = f"step {row.get('step')}", is_right(row)
    return Sample(origin=origin, pieces=pieces(row.get("completion")), facts=facts, correct=correct)


def is_right(row: Row) -> bool | None:
    """What the accuracy reward says of a rollout; None for any value between, which stands for "cannot tell"."""
    accuracy = as_dict(row.get("parts")).get("accuracy")
    return bool(accuracy) if accuracy in (0, 1) else None


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def amount(value: object) -> str:
    return figure(float(value)) if isinstance(value, (int, float)) else "none"


def pieces(completion: object) -> list[tuple[str, bool]]:
    """Model text as plain pieces, with the tags of the format apart so that the page can set them off."""
    text = completion if isinstance(completion, str) else ""
    if len(text) > LONGEST:
        half = LONGEST // 2
        text = f"{text[:half]}\n[... {len(text) - LONGEST} characters left out ...]\n{text[-half:]}"
    return [(piece, piece in TAGS) for piece in TAG.split(text.strip()) if piece]
