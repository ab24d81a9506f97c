"""Completions as a page shows and filters them, whatever file their rows are in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from r1kit import chat
from r1kit.curate import formats
from r1kit.numeric import is_number
from r1kit.report.completions import is_right, parts_of
from r1kit.report.curve_svg import readable_number
from r1kit.report.folders import Row
from r1kit.report.live.places import RowPlace
from r1kit.verifiers.language import is_mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One completion with what is known about it. `thinking` is the place of its reasoning in `text`, in characters."""

    at: RowPlace
    problem_id: str
    question: str
    text: str
    answer: str
    verdict: str | None
    extracted: str
    why: str
    thinking: tuple[int, int] | None
    truncated: bool
    mixed: bool
    wrong_formatted: bool
    tokens: int | None
    reward: float | None = None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    advantage: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    facts: Sequence[tuple[str, str]] = ()

    @property
    def head(self) -> Row:
        """The answer without its texts."""
        names = ("at", "reward", "parts", "advantage", "verdict", "truncated", "mixed", "wrong_formatted", "tokens")
        return {name: getattr(self, name) for name in names}


Test = Callable[[Answer], bool]
FILTERS: Mapping[str, Test] = {
    "right": lambda answer: answer.verdict == "right",
    "wrong": lambda answer: answer.verdict == "wrong",
    "unknown": lambda answer: answer.verdict in ("unknown", "failed"),
    "not_judged": lambda answer: answer.verdict is None,
    "truncated": lambda answer: answer.truncated,
    "mixed": lambda answer: answer.mixed,
    "wrong_formatted": lambda answer: answer.wrong_formatted,
}


def test_of(text: str, filters: Sequence[str]) -> Test:
    """Whether an answer passes all filters and has a text in its question or completion, in upper or lower case.

    Raises ValueError for an unknown filter.
    """
    for name in filters:
        if name not in FILTERS:
            raise ValueError(f"there is no filter {name!r:.40}: known are {', '.join(FILTERS)}")
    needle, tests = text.casefold(), [FILTERS[name] for name in filters]

    def passes(answer: Answer) -> bool:
        if needle and needle not in answer.text.casefold() and needle not in answer.question.casefold():
            return False
        return all(test(answer) for test in tests)

    return passes


def answer_of(row: Row, at: RowPlace) -> Answer:
    """A row of rollouts, of an evaluation, or of data for training; a value of an unexpected type counts as missing."""
    inner = row.get("metadata") if row.get("id") is None else None  # a row of `mix` has all columns there
    row = {**inner, **row} if isinstance(inner, dict) else row
    question, text = texts_of(row)
    notes = row["notes"] if isinstance(row.get("notes"), dict) else {}
    verdict, extracted, why = verdict_of(row, notes)
    truncated = row.get("finish_reason") == "length" or row.get("truncated") is True
    tokens = row.get("tokens", row.get("completion_tokens"))
    return Answer(
        at=at,
        problem_id=text_in(row, "problem_id"),
        question=question,
        text=text,
        answer=text_in(row, "answer"),
        verdict=verdict,
        extracted=extracted,
        why=why,
        thinking=thinking_in(text),
        truncated=truncated,
        mixed=is_mixed(text),
        wrong_formatted=verdict == "wrong" and chat.parse(text).well_formed,
        tokens=tokens if isinstance(tokens, int) else None,
        reward=number_in(row, "reward"),
        parts=parts_of(row),
        advantage=number_in(row, "advantage"),
        notes={name: value for name, value in notes.items() if name not in ("verdict", "extracted", "detail")},
        facts=facts_of(row),
    )


def texts_of(row: Row) -> tuple[str, str]:
    """Question and response, from fields of their own or from a conversation."""
    messages = row.get("messages")
    turns = [turn for turn in messages if isinstance(turn, dict)] if isinstance(messages, list) else []
    if turns:
        asked = [text_in(turn, "content") for turn in turns if turn.get("role") == "user"]
        return (asked[-1] if asked else ""), text_in(turns[-1], "content")
    question = text_in(row, "question") or text_in(row, "prompt")
    return question, text_in(row, "completion") or text_in(row, "response") or text_in(row, "chosen")


def verdict_of(row: Row, notes: Row) -> tuple[str | None, str, str]:
    """Verdict (None if nothing judged), the extracted answer, and the verifier's reason."""
    words = {True: "right", False: "wrong", None: "unknown"}
    if "verdict" in notes:
        return text_in(notes, "verdict") or None, text_in(notes, "extracted"), text_in(notes, "detail")
    verdicts = row.get("verdicts")
    for name, verdict in verdicts.items() if isinstance(verdicts, dict) else ():
        if isinstance(verdict, dict):
            why = f"{name}: {text_in(verdict, 'detail')}"
            return words.get(verdict.get("correct")), text_in(verdict, "extracted"), why
    if "correct" in row:
        return words.get(row["correct"]), text_in(row, "extracted"), ""
    right = is_right(row)
    return (None if right is None else words[right]), "", ""


def facts_of(row: Row) -> list[tuple[str, str]]:
    """What else a row says, in words: scores, judges, reasons, who made it."""
    facts = [(name, text_in(row, name)) for name in ("id", "source", "language", "parent") if text_in(row, name)]
    made_by = row.get("made_by")
    if isinstance(made_by, dict):
        names = ("model", "prompting", "temperature", "sample")
        facts += [(name, str(made_by[name])) for name in names if made_by.get(name) is not None]
    verdicts, scores = row.get("verdicts"), row.get("scores")
    for name, verdict in verdicts.items() if isinstance(verdicts, dict) else ():
        if isinstance(verdict, dict):
            word = {True: "right", False: "wrong"}.get(verdict.get("correct"), "cannot tell")  # type: ignore[arg-type]
            facts.append((f"verdict of {name}", f"{word}: {verdict.get('detail', '')}"))
    for name, score in scores.items() if isinstance(scores, dict) else ():
        facts.append((name, readable_number(score) if is_number(score) else str(score)))
    if is_number(row.get("pass_rate")):
        facts.append(("pass rate of the problem", readable_number(row["pass_rate"], is_share=True)))
    if reason := drop_reason(row):
        facts.append(("dropped", reason))
    return facts


def drop_reason(row: Row) -> str:
    """Why a filter dropped the row, as `dropped.jsonl` has it; "" if it was kept."""
    dropped = row.get("dropped")
    if not isinstance(dropped, dict):
        return ""
    detail = text_in(dropped, "detail")
    return f"{text_in(dropped, 'step')}: {text_in(dropped, 'reason')}{f' ({detail})' if detail else ''}"


def thinking_in(text: str) -> tuple[int, int] | None:
    """The place of the reasoning in a response, in any of our formats; an open `<think>` reaches to the end."""
    if parts := formats.split(text):
        start = text.find(parts.reasoning)
        return start, start + len(parts.reasoning)
    start, end = text.find("<think>"), text.find("</think>")
    if start < 0 and end < 0:
        return None
    start = start + len("<think>") if start >= 0 and (end < 0 or start < end) else 0
    return start, end if end >= 0 else len(text)


def text_in(row: Row, name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""


def number_in(row: Row, name: str) -> float | None:
    value = row.get(name)
    return value if is_number(value) else None
