"""Completions to read, early beside late, chosen by position and not by how good they look."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.chat import TAGS
from r1kit.data.jsonl import read_rows
from r1kit.report.curve_svg import readable_number
from r1kit.report.folders import Row, StageFolder

MAX_CHARS = 4000  # of a completion
MAX_FILES = 12  # rollout files read at each end of a run to find questions that occur at both
TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + ")")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionView:
    """One completion. `pieces` are (text, whether it is a tag); `facts` are (name, value) as text."""

    origin: str
    pieces: list[tuple[str, bool]]
    facts: list[tuple[str, str]]
    correct: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An early and a late completion. `late_question` is set only if the two answer different questions."""

    question: str
    early: CompletionView
    late: CompletionView
    late_question: str = ""


def held_out(first: StageFolder, last: StageFolder, count: int = 4) -> list[Pair]:
    """Sample 0 of the same held-out questions before and after, evenly spread over the file."""
    before = {row["problem_id"]: row for row in reversed(first.completions) if row.get("sample") == 0}
    after = {row["problem_id"]: row for row in reversed(last.completions) if row.get("sample") == 0}
    shared = [name for name in reversed(before) if name in after]
    chosen = [shared[i * len(shared) // count] for i in range(count)] if len(shared) > count else shared
    return [
        Pair(
            question=str(before[name].get("question", name)),
            early=evaluation_view(first.name, before[name]),
            late=evaluation_view(last.name, after[name]),
        )
        for name in chosen
    ]


def evaluation_view(origin: str, row: Row) -> CompletionView:
    facts = [("answer", str(row.get("extracted"))), ("tokens", str(row.get("completion_tokens")))]
    facts += [(title, "yes") for key, title in (("truncated", "cut off"), ("mixed", "mixed")) if row.get(key)]
    return CompletionView(origin=origin, pieces=pieces(row.get("completion")), facts=facts, correct=row.get("correct"))


def training(stage: StageFolder, count: int = 3) -> list[Pair]:
    """Rollouts of the first and the last stored steps, of the same questions if any occur at both ends."""
    files = stage.rollouts
    if len(files) < 2:
        return []
    half = len(files) // 2
    early = first_of_problem([row for path in files[:half][:MAX_FILES] for row in read_rows(path)])
    late = first_of_problem([row for path in reversed(files[half:][-MAX_FILES:]) for row in read_rows(path)])
    shared = [name for name in early if name in late][:count]
    if shared:
        return [rollout_pair(early[name], late[name]) for name in shared]
    return [rollout_pair(a, b) for a, b in list(zip(early.values(), late.values(), strict=False))[:count]]


def first_of_problem(rows: Sequence[Row]) -> dict[str, Row]:
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(str(row.get("problem_id")), row)
    return first


def rollout_pair(early: Row, late: Row) -> Pair:
    question, other = question_of(early), question_of(late)
    late_question = other if other != question else ""
    return Pair(question=question, early=rollout_view(early), late=rollout_view(late), late_question=late_question)


def question_of(row: Row) -> str:
    return str(row.get("question") or row.get("prompt") or row.get("problem_id"))


def rollout_view(row: Row) -> CompletionView:
    """A completion of a training step with the parts of its reward."""
    amounts = {"reward": row.get("reward"), **parts_of(row)}
    facts = [
        (str(name), readable_number(float(value)) if isinstance(value, int | float) else "none")
        for name, value in amounts.items()
    ]
    facts += [("tokens", str(row["tokens"]))] if "tokens" in row else []
    facts += [("cut off", "yes")] if row.get("finish_reason") == "length" else []
    origin, completion = f"step {row.get('step')}", pieces(row.get("completion"))
    return CompletionView(origin=origin, pieces=completion, facts=facts, correct=is_right(row))


def is_right(row: Row) -> bool | None:
    """The verdict that a rollout's accuracy reward stands for; None unless it is 0 or 1 (0.5 is "cannot tell")."""
    accuracy = parts_of(row).get("accuracy")
    return bool(accuracy) if accuracy in (0, 1) else None


def parts_of(row: Row) -> dict[str, Any]:
    parts = row.get("parts")
    return parts if isinstance(parts, dict) else {}


def pieces(completion: object) -> list[tuple[str, bool]]:
    """Split model text at the format's tags, which the page sets apart; the middle of a long text is left out."""
    text = completion if isinstance(completion, str) else ""
    if len(text) > MAX_CHARS:
        half = MAX_CHARS // 2
        text = f"{text[:half]}\n[... {len(text) - MAX_CHARS} characters left out ...]\n{text[-half:]}"
    return [(piece, piece in TAGS) for piece in TAG.split(text.strip()) if piece]
