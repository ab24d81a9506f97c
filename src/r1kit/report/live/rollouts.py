"""The rollouts of a stage: groups of one step, one group with its tokens, and a search over all steps."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.data.errors import DataError
from r1kit.data.jsonl import read_rows
from r1kit.report.folders import Row
from r1kit.report.live.answers import FILTERS, Answer, Test, answer_of, test_of
from r1kit.report.live.places import NotThere, RowPlace, file_in

STEP = re.compile(r"step-(\d+)\.jsonl")
MAX_STEPS = 8  # in memory
EXTREMES = {"highest": max, "lowest": min}  # filters by the advantages of a step
SORTS = ("", "advantage", "-advantage", "reward", "-reward", "tokens", "-tokens")
AROUND = 80  # characters of an excerpt on each side


@dataclass(frozen=True, slots=True)
class Group:
    """The completions of one prompt at one step; `number` counts from 0 in the file."""

    number: int
    answers: Sequence[Answer]


class RolloutReader:
    """Reads steps of rollouts; the last ones stay in memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: OrderedDict[Path, tuple[tuple[int, int], list[Group]]] = OrderedDict()

    def groups(self, stage: Path, step: int) -> list[Group]:
        """All groups of a step. Raises `NotThere`, and `DataError` for a damaged row."""
        files = step_files(stage)
        if step not in files:
            raise NotThere(f"stage {stage.name} has no rollouts of step {step}")
        path = file_in(stage, files[step])
        state = path.stat()
        stamp = (state.st_size, state.st_mtime_ns)
        with self._lock:
            known = self._steps.get(path)
            if known is not None and known[0] == stamp:
                self._steps.move_to_end(path)
                return known[1]
        rows = enumerate(read_rows(path), 1)
        file = files[step]
        groups = grouped([answer_of(row, RowPlace(stage=stage.name, file=file, row=number)) for number, row in rows])
        with self._lock:
            self._steps[path] = stamp, groups
            if len(self._steps) > MAX_STEPS:
                self._steps.popitem(last=False)
        return groups

    def step(self, stage: Path, step: int, text: str, filters: Sequence[str], sort: str) -> dict[str, Any]:
        """A step without the texts of its completions: only groups with a completion that passes all filters.

        Raises ValueError for an unknown filter or order.
        """
        if sort not in SORTS:
            raise ValueError(f"cannot sort by {sort!r:.40}: known are {', '.join(SORTS[1:])}")
        steps, groups = list(step_files(stage)), self.groups(stage, step)
        answers = [answer for group in groups for answer in group.answers]
        passes = passing(answers, text, filters)
        matching = [row for group in groups if (row := group_row(group, passes))["matches"]]
        place = steps.index(step)
        return {
            "stage": stage.name,
            "step": step,
            "previous": steps[place - 1] if place else None,
            "next": steps[place + 1] if place + 1 < len(steps) else None,
            "counts": {"all": len(answers)}
            | {name: sum(test(answer) for answer in answers) for name, test in FILTERS.items()},
            "matches": sum(row["matches"] for row in matching),
            "parts": list(dict.fromkeys(name for answer in answers for name in answer.parts)),
            "groups": in_order(matching, sort),
        }

    def group(self, stage: Path, step: int, number: int, with_tokens: bool) -> dict[str, Any]:
        """One group with the texts, and with the tokens if they are asked for and stored."""
        groups = self.groups(stage, step)
        if not 0 <= number < len(groups):
            raise NotThere(f"step {step} of {stage.name} has {len(groups)} groups, no group {number}")
        answers = groups[number].answers
        tokens = stored_tokens(stage, step) if with_tokens else []
        return {
            "stage": stage.name,
            "step": step,
            "group": number,
            "groups": len(groups),
            "problem_id": answers[0].problem_id,
            "question": answers[0].question,
            "answer": answers[0].answer,
            "completions": [
                answer.head
                | {"completion": answer.text, "thinking": answer.thinking, "extracted": answer.extracted}
                | {"why": answer.why, "notes": answer.notes, "pieces": pieces_of(answer, tokens)}
                for answer in answers
            ],
        }

    def search(
        self, stage: Path, text: str, filters: Sequence[str], before: int | None, limit: int, seconds: float
    ) -> dict[str, Any]:
        """Completions of all stored steps, newest first: one step at least, then as many as `seconds` allow."""
        deadline, hits, searched = time.monotonic() + seconds, list[Row](), list[int]()
        steps = [step for step in step_files(stage) if before is None or step < before]
        while steps and len(hits) < limit and (not searched or time.monotonic() < deadline):
            step = steps.pop()
            try:
                groups = self.groups(stage, step)
            except (DataError, NotThere):  # damaged, or removed by a run that starts again
                continue
            searched.append(step)
            passes = passing([answer for group in groups for answer in group.answers], text, filters)
            hits += [
                answer.head
                | {"step": step, "group": group.number, "question": answer.question}
                | {"excerpt": excerpt(answer.text, text)}
                for group in groups
                for answer in group.answers
                if passes(answer)
            ]
        return {
            "hits": hits[:limit],
            "searched": [searched[-1], searched[0]] if searched else [],
            "next": searched[-1] if steps and searched else None,
        }


def step_files(stage: Path) -> dict[int, str]:
    """The stored steps in order, and their files; none if there is no folder."""
    try:
        names = [path.name for path in (stage / "rollouts").iterdir()]
    except OSError:
        return {}
    return dict(sorted((int(match[1]), f"rollouts/{name}") for name in names if (match := STEP.fullmatch(name))))


def grouped(answers: Sequence[Answer]) -> list[Group]:
    """Neighbours with the same problem are one group."""
    groups: list[list[Answer]] = []
    for answer in answers:
        same = groups and (groups[-1][0].problem_id, groups[-1][0].question) == (answer.problem_id, answer.question)
        groups[-1].append(answer) if same else groups.append([answer])
    return [Group(number, members) for number, members in enumerate(groups)]


def passing(answers: Sequence[Answer], text: str, filters: Sequence[str]) -> Test:
    """`test_of` with two more filters: the highest and the lowest advantage among the answers."""
    passes = test_of(text, [name for name in filters if name not in EXTREMES])
    advantages = [answer.advantage for answer in answers if answer.advantage is not None]
    limits = {choose(advantages, default=None) for name, choose in EXTREMES.items() if name in filters}
    return lambda answer: passes(answer) and (not limits or answer.advantage in limits - {None})


def group_row(group: Group, passes: Test) -> Row:
    """A group without texts of completions."""
    first = group.answers[0]
    completions = [answer.head | {"matches": passes(answer)} for answer in group.answers]
    facts = {"problem_id": first.problem_id, "question": first.question, "answer": first.answer}
    matches = sum(completion["matches"] for completion in completions)
    return {"group": group.number, **facts, "matches": matches, "completions": completions}


def in_order(groups: list[Row], sort: str) -> list[Row]:
    """Groups by the best of their completions, highest first; with a minus, by the lowest."""
    if not sort:
        return groups
    name, choose = sort.removeprefix("-"), min if sort.startswith("-") else max

    def key(group: Row) -> float:
        values = [row[name] for row in group["completions"] if row[name] is not None]
        return float(choose(values, default=0.0))

    return sorted(groups, key=key, reverse=not sort.startswith("-"))


def stored_tokens(stage: Path, step: int) -> list[Row]:
    """The tokens of each row of a step; none if an older version wrote the rollouts."""
    path = stage / "logprobs" / f"step-{step:06d}.jsonl"
    return list(read_rows(path, missing_ok=True))


def pieces_of(answer: Answer, tokens: Sequence[Mapping[str, Any]]) -> list[tuple[str, float | None]] | None:
    """The tokens of a completion, (text, log-prob), which joined are its text; None if they are not stored.

    The prompt's opened tag has no log-prob. The end token and a stop string are not part of the text: they are left
    out.
    """
    row = tokens[answer.at.row - 1] if answer.at.row <= len(tokens) else {}
    opened, texts, logprobs = row.get("opened", ""), row.get("texts"), row.get("logprobs")
    if not isinstance(texts, list) or not isinstance(logprobs, list) or len(texts) != len(logprobs):
        return None
    pieces, left = [], answer.text
    for text, logprob in [(opened, None)] * bool(opened) + list(zip(texts, logprobs, strict=True)):
        if not isinstance(text, str) or not left.startswith(text := text[: len(left)]):
            return None
        left = left[len(text) :]
        pieces.append((text, logprob))
        if not left:
            break
    return None if left else pieces


def excerpt(text: str, needle: str) -> str:
    """The text around the first place of the needle, or its beginning."""
    place = max(0, text.casefold().find(needle.casefold())) if needle else 0
    start, end = max(0, place - AROUND), place + len(needle) + AROUND
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"
