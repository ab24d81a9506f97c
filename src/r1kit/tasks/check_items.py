"""Rows of a file as a check shows them: problems, conversations or preference pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.data.columns import is_empty
from r1kit.data.conversations import COLUMNS, conversation, preference, renamed
from r1kit.data.errors import DataError
from r1kit.tasks.conversion import convert
from r1kit.tasks.mapping import mapped
from r1kit.tasks.recognition import guess
from r1kit.tasks.schemas import relabelled
from r1kit.types import Message

OURS = ("messages", "conversations", "completion", "response", "output", "chosen", "rejected")  # never in a problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A usable row, with the `fields` that a person should see. The last three are set for problems only.

    `field` and `answer_field` are the columns of prompt and answer.
    """

    row: int
    prompt: str
    answer: str
    fields: Mapping[str, str]
    verifier: str = ""
    field: str | None = None
    answer_field: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How rows are read. `reading` says it in words; `convert` raises `DataError` for a row that cannot be used."""

    name: str
    reading: str
    convert: Callable[[dict[str, Any], int], Item]


def problem_reader(
    head: Sequence[Mapping[str, Any]], file: str, columns: Mapping[str, str] | None, verifier: str | None
) -> Reader:
    """Problems for `rl` and `eval`; raises `DataError` if the first rows do not show which columns they are."""
    schema = relabelled(mapped(columns) if columns else guess(head, file), verifier, None)

    def item(row: dict[str, Any], number: int) -> Item:
        problem = convert(row, schema, name="check", file=file, number=number)
        fields = {"prompt": problem.prompt, "reference": problem.answer, "verifier": problem.verifier}
        places = {"field": schema.prompt[0], "answer_field": schema.answer}
        return Item(
            row=number, prompt=problem.prompt, answer=problem.answer, fields=fields, verifier=problem.verifier, **places
        )

    return Reader(name=schema.name, reading=schema.reading(column for row in head for column in row), convert=item)


def conversation_reader(sample: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> Reader | None:
    """Conversations for `sft`, or preference pairs for `reward_model`; None if the columns are those of neither."""
    named = {name for name, value in sample.items() if not is_empty(value)} | set(columns or ())
    if columns and not set(columns) & set(OURS):
        return None
    convert: Callable[[Mapping[str, Any]], dict[str, str]]
    if {"chosen", "rejected"} <= named:
        name, reading, convert = "preference pairs", "pairs for the stage reward_model", _pair
    elif {"messages", "conversations"} & named or any(set(pair) <= named for pair in COLUMNS):
        name, reading, convert = "conversations", "conversations for the stage sft", _turns
    else:
        return None
    convert = renamed(convert, columns) if columns else convert

    def item(row: dict[str, Any], number: int) -> Item:
        fields = convert(row)
        reply = fields.get("trained") or fields.get("chosen", "")
        return Item(row=number, prompt=fields["prompt"], answer=reply, fields=fields)

    return Reader(name=name, reading=reading, convert=item)


def _turns(row: Mapping[str, Any]) -> dict[str, str]:
    messages = conversation(row).messages
    last = max((place for place, turn in enumerate(messages) if turn.role == "assistant"), default=-1)
    if last < 1:
        raise DataError("wrong type", "no turn of the assistant answers a prompt: there is nothing to train on")
    return {"prompt": _text(messages[:last]), "trained": messages[last].content}


def _pair(row: Mapping[str, Any]) -> dict[str, str]:
    pair = preference(row)
    return {"prompt": _text(pair.prompt), "chosen": pair.chosen, "rejected": pair.rejected}


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(f"{turn.role}: {turn.content}" for turn in messages)
