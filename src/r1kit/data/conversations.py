"""Conversations, preference pairs and labelled responses from files, in the forms that public data sets use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from r1kit.data.columns import is_empty, normal
from r1kit.data.errors import DataError, encodable, shown
from r1kit.data.messages import parse_messages, parse_text
from r1kit.data.rows import numbered_rows
from r1kit.types import Conversation, Message, PreferencePair

Row = Mapping[str, Any]
T = TypeVar("T")
# Column names for a question and its response, most specific first.
COLUMNS = (
    *(("prompt", "completion"), ("prompt", "response"), ("question", "response")),
    *(("instruction", "output"), ("instruction", "response")),
)
LOST = re.compile(r"tools|functions|images?|videos?|audios?")
SAFE = {"safe": True, "unsafe": False, "good": True, "bad": False, "true": True, "false": False}
_DIALOGUE = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A response to a prompt and whether it is good (safe)."""

    prompt: tuple[Message, ...]
    response: str
    label: bool


@dataclass(frozen=True, slots=True)
class Located(Generic[T]):
    """A record with the file and row that it was read from."""

    file: str
    row: int
    record: T


def read(paths: Sequence[Path], convert: Callable[[Row], T]) -> Iterator[Located[T] | DataError]:
    """Records of JSONL, JSON or Parquet files, read by one of the functions below; a bad row comes as its error."""
    for path in paths:
        for number, row in numbered_rows(path):
            if isinstance(row, DataError):
                yield row
                continue
            try:
                yield Located(str(path), number, convert(row))
            except DataError as error:
                yield error.at(str(path), number)


def renamed(convert: Callable[[Row], T], columns: Mapping[str, str]) -> Callable[[Row], T]:
    """`convert` for data with other column names: `{"prompt": "q", "completion": "a"}` reads `q` and `a`.

    Raises `DataError` for a row that lacks one of them.
    """

    def convert_renamed(row: Row) -> T:
        for ours, theirs in columns.items():
            if theirs not in row:
                reason = f"there is no column {theirs!r}: the row has {', '.join(row)}"
                raise DataError("missing field", reason, field=ours)
        replaced = {*columns, *columns.values()}
        rest = {name: value for name, value in row.items() if name not in replaced}
        return convert(rest | {ours: row[theirs] for ours, theirs in columns.items()})

    return convert_renamed


def conversation(row: Row) -> Conversation:
    """`messages` (or `conversations`), or a prompt and a completion as text or messages; see `COLUMNS`.

    A column `system` becomes the first message, and Alpaca's `history` of pairs the first turns. Keeps `source` and
    `metadata`. Raises `DataError` for any other row, and for columns that would be lost, such as tools and images.
    """
    return Conversation(messages=_turns(row), source=str(row.get("source") or ""), metadata=_metadata(row))


def _turns(row: Row) -> tuple[Message, ...]:
    """The turns in the row's main columns, after those in `system` and `history`."""
    refuse_lost(row)
    turns = _spoken(row)
    history = [] if _is_blank(row.get("history")) else row["history"]
    if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
        raise DataError("wrong type", f"the history is {shown(history)}: expected pairs of texts", field="history")
    earlier: list[Message] = []
    for question, reply in history:
        earlier.append(Message(role="user", content=encodable(parse_text(question, "history"))))
        earlier.append(Message(role="assistant", content=encodable(parse_text(reply, "history"))))
    if _is_blank(system := row.get("system")):
        return (*earlier, *turns)
    if turns[0].role == "system":
        reason = "there is a column system beside a system message: leave one of them out"
        raise DataError("wrong type", reason, field="system")
    return (Message(role="system", content=encodable(parse_text(system, "system"))), *earlier, *turns)


def refuse_lost(row: Row) -> None:
    """Raise `DataError` for a row with tools, images or the like, which no text can hold."""
    if lost := [name for name, value in row.items() if LOST.fullmatch(normal(name)) and not _is_blank(value)]:
        reason = f"{', '.join(lost)} would be lost: drop the row, or write into the messages what the model should see"
        raise DataError("ambiguous columns", reason, field=lost[0])


def _is_blank(value: Any) -> bool:
    return is_empty(value) or (isinstance(value, str) and value.strip() in ("[]", "{}"))


def _spoken(row: Row) -> tuple[Message, ...]:
    """The turns in the row's main columns."""
    for name in ("messages", "conversations"):
        if row.get(name) is not None:
            return _messages(row[name], name)
    for question, response in COLUMNS:
        if row.get(question) is not None and row.get(response) is not None:
            text, more = row[question], row.get("input") or row.get("context")
            if question == "instruction":  # Alpaca, Dolly: on the next line, the optional input that it applies to
                text = parse_text(text, question)
                text = f"{text}\n{more}" if isinstance(more, str) and more else text
            return (*_prompt(text, question), *_reply(row[response], response))
    known = ", ".join(f"{question} + {response}" for question, response in COLUMNS)
    raise DataError("missing field", f"the row's fields are {', '.join(row)}: expected messages, or one of {known}")


def _metadata(row: Row) -> dict[str, Any]:
    value = row.get("metadata")
    return dict(value) if isinstance(value, Mapping) else {}


def preference(row: Row) -> PreferencePair:
    """A prompt with `chosen` and `rejected`, or two whole dialogues that differ in their last turn.

    Dialogues are message lists, with the prompt beside them or inside them (UltraFeedback), or text with
    "\\n\\nHuman: ... \\n\\nAssistant: ..." turns (HH-RLHF).
    """
    refuse_lost(row)
    if row.get("chosen") is None or row.get("rejected") is None:
        raise DataError("missing field", f"the row's fields are {', '.join(row)}: expected chosen and rejected")
    prompt_name = next((name for name in ("prompt", "conversations", "messages") if row.get(name) is not None), None)
    has_prompt = isinstance(row["chosen"], Sequence) and not isinstance(row["chosen"], str) and len(row["chosen"]) > 1
    if prompt_name is not None and not has_prompt:
        prompt = _prompt(row[prompt_name], prompt_name)
        replies = []
        for side in ("chosen", "rejected"):
            turns = _reply(row[side], side)
            if len(turns) != 1 or turns[0].role != "assistant":
                reason = f"{len(turns)} turns, the last one the {turns[-1].role}'s: expected one turn of the assistant"
                raise DataError("wrong type", reason, field=side)
            replies.append(turns[0].content)
        chosen, rejected = replies
    else:
        (*before, last), (*other_before, other_last) = (_dialogue(row[side], side) for side in ("chosen", "rejected"))
        if before != other_before or {last.role, other_last.role} != {"assistant"}:
            raise DataError("wrong type", "chosen and rejected do not answer the same prompt: drop the row")
        prompt, chosen, rejected = tuple(before), last.content, other_last.content
    return PreferencePair(prompt=prompt, chosen=chosen, rejected=rejected, metadata=_metadata(row))


def labelled(row: Row) -> Labelled:
    """A conversation whose last turn is labelled by `label` (or `safe`): true, 1, "safe" or false, 0, "unsafe"."""
    name = next((name for name in ("label", "safe") if row.get(name) is not None), None)
    if name is None:
        raise DataError("missing field", f"the row's fields are {', '.join(row)}: expected a label")
    *prompt, response = conversation(row).messages
    if response.role != "assistant" or not prompt:
        raise DataError("wrong type", "the last turn must be the assistant's answer to a prompt")
    value = row[name]
    label = SAFE.get(value.lower()) if isinstance(value, str) else value
    if label not in (0, 1):
        reason = f"the label is {value!r:.60}: expected true, false, 0 or 1, or one of {', '.join(SAFE)} as text"
        raise DataError("wrong type", reason)
    return Labelled(prompt=tuple(prompt), response=response.content, label=bool(label))


def _prompt(value: Any, field: str) -> tuple[Message, ...]:
    return (Message(role="user", content=encodable(value)),) if isinstance(value, str) else _messages(value, field)


def _reply(value: Any, field: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(role="assistant", content=encodable(value)),)
    return _messages([value] if isinstance(value, Mapping) else value, field)


def _dialogue(value: Any, field: str) -> tuple[Message, ...]:
    if not isinstance(value, str):
        return _messages(value, field)
    opening, *parts = _DIALOGUE.split(value)
    if opening.strip() or not parts:
        reason = "without a prompt, chosen and rejected must be dialogues: messages, or Human and Assistant turns"
        raise DataError("wrong type", reason, field=field)
    names = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[::2], parts[1::2], strict=True)
    return _messages([{"role": names[name], "content": text.strip()} for name, text in turns], field)


def _messages(value: Any, field: str) -> tuple[Message, ...]:
    turns = parse_messages(value, field)
    for turn in turns:
        encodable(turn.content)
    return turns
