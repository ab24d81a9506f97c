"""Conversations, preference pairs and labelled responses from files, in the forms in which data sets keep them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from r1kit.data.errors import DataError, encodable
from r1kit.data.messages import message_role, message_text
from r1kit.data.rows import read_rows
from r1kit.types import Conversation, Message, PreferencePair

Row = Mapping[str, Any]
T = TypeVar("T")
# How data sets name a question and its response, most specific first.
COLUMNS = (("prompt", "completion"), ("prompt", "response"), ("question", "response"), ("instruction", "output"))
SAFE = {"safe": True, "unsafe": False, "good": True, "bad": False, "true": True, "false": False}
BESIDE_TEXT = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call")  # would be lost silently
_DIALOGUE = re.compile(r"\n\n(Human|Assistant): ?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A response to a prompt and whether it is good (safe)."""

    prompt: tuple[Message, ...]
    response: str
    label: bool


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A record and where it is from."""

    file: str
    row: int
    record: T


def read(paths: Sequence[Path], convert: Callable[[Row], T]) -> Iterator[Found[T] | DataError]:
    """Records of JSONL, JSON or Parquet files by one of the functions below, a row that is none as its error."""
    for path in paths:
        for number, row in read_rows(path):
            if isinstance(row, DataError):
                yield row
                continue
            try:
                yield Found(str(path), number, convert(row))
            except DataError as error:
                yield error.at(str(path), number)


def renamed(convert: Callable[[Row], T], columns: Mapping[str, str]) -> Callable[[Row], T]:
    """`convert` for data with column names of its own: `{"prompt": "q", "completion": "a"}` reads `q` and `a`.

    Raises `DataError` for a row that lacks one of them.
    """

    def renaming(row: Row) -> T:
        for ours, theirs in columns.items():
            if theirs not in row:
                raise DataError("missing field", f"there is no column {theirs!r}: it has {', '.join(row)}", field=ours)
        taken = dict.fromkeys(columns.values())
        rest = {name: value for name, value in row.items() if name not in taken and name not in columns}
        return convert(rest | {ours: row[theirs] for ours, theirs in columns.items()})

    return renaming


def conversation(row: Row) -> Conversation:
    """`messages` (or `conversations`), or a prompt and a completion as text or messages; see `COLUMNS`.

    `source` and `metadata` are kept. Raises `DataError` for a row that is none of these.
    """
    return Conversation(messages=_turns(row), source=str(row.get("source") or ""), metadata=_metadata(row))


def _turns(row: Row) -> tuple[Message, ...]:
    for name in ("messages", "conversations"):
        if row.get(name) is not None:
            return _messages(row[name])
    for question, response in COLUMNS:
        if row.get(question) is not None and row.get(response) is not None:
            asked = _with_input(row) if question == "instruction" else _prompt(row[question])
            return (*asked, *_reply(row[response]))
    known = ", ".join(f"{one} + {other}" for one, other in COLUMNS)
    raise DataError("missing field", f"the row has {', '.join(row)}: expected messages, or one of {known}")


def _metadata(row: Row) -> dict[str, Any]:
    value = row.get("metadata")
    return dict(value) if isinstance(value, Mapping) else {}


def preference(row: Row) -> PreferencePair:
    """A prompt with `chosen` and `rejected`, or two whole dialogues that differ at the end.

    Dialogues are message lists, with the prompt beside them or without (UltraFeedback), or texts of
    "\\n\\nHuman: ... \\n\\nAssistant: ..." turns (HH-RLHF).
    """
    if row.get("chosen") is None or row.get("rejected") is None:
        raise DataError("missing field", f"the row has {', '.join(row)}: expected chosen and rejected")
    kept = _metadata(row)
    asked = next((row[name] for name in ("prompt", "conversations", "messages") if row.get(name) is not None), None)
    if asked is not None and not _holds_prompt(row["chosen"]):
        sides = [_only(_reply(row[side])) for side in ("chosen", "rejected")]
        return PreferencePair(prompt=_prompt(asked), chosen=sides[0], rejected=sides[1], metadata=kept)
    (*prompt, chosen), (*other, rejected) = (_dialogue(row[side]) for side in ("chosen", "rejected"))
    if prompt != other or {chosen.role, rejected.role} != {"assistant"}:
        raise DataError("wrong type", "chosen and rejected do not answer one and the same prompt: drop the row")
    return PreferencePair(prompt=tuple(prompt), chosen=chosen.content, rejected=rejected.content, metadata=kept)


def labelled(row: Row) -> Labelled:
    """A conversation whose last turn is judged by `label` (or `safe`): true, 1, "safe" or false, 0, "unsafe"."""
    name = next((name for name in ("label", "safe") if row.get(name) is not None), None)
    if name is None:
        raise DataError("missing field", f"the row has {', '.join(row)}: expected a label")
    *prompt, response = conversation(row).messages
    if response.role != "assistant" or not prompt:
        raise DataError("wrong type", "the last turn must be the assistant's answer to a prompt")
    return Labelled(prompt=tuple(prompt), response=response.content, label=_label(row[name]))


def _label(value: Any) -> bool:
    found = SAFE.get(value.lower()) if isinstance(value, str) else value
    if found not in (0, 1):
        reason = f"the label is {value!r:.60}: expected true or false, or one of {', '.join(SAFE)}"
        raise DataError("wrong type", reason)
    return bool(found)


def _with_input(row: Row) -> tuple[Message, ...]:
    """Alpaca's instruction and, where there is one, what it works on."""
    given = row.get("input")
    return _prompt("\n".join([_text(row["instruction"]), *([given] if isinstance(given, str) and given else [])]))


def _prompt(value: Any) -> tuple[Message, ...]:
    return (Message(role="user", content=_text(value)),) if isinstance(value, str) else _messages(value)


def _reply(value: Any) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message(role="assistant", content=value),)
    return _messages([value] if isinstance(value, Mapping) else value)


def _holds_prompt(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 1


def _only(turns: tuple[Message, ...]) -> str:
    if len(turns) != 1 or turns[0].role != "assistant":
        raise DataError("wrong type", f"an answer of {len(turns)} turns: expected one of the assistant's")
    return turns[0].content


def _dialogue(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, str):
        return _messages(value)
    opening, *parts = _DIALOGUE.split(value)
    if opening.strip() or not parts:
        reason = "without a prompt, chosen and rejected must be dialogues: messages, or Human and Assistant turns"
        raise DataError("wrong type", reason)
    names = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[::2], parts[1::2], strict=True)
    return _messages([{"role": names[name], "content": text.strip()} for name, text in turns])


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError("wrong type", f"{value!r:.60} is no conversation: expected a list of messages")
    turns = [(message_role(turn), _text(message_text(turn))) for turn in value]
    for (role, _), turn in zip(turns, value, strict=True):
        if role not in ("system", "user", "assistant"):
            raise DataError("wrong type", f"a turn of {role!r:.40}: expected system, user or assistant")
        if beside := next((name for name in BESIDE_TEXT if turn.get(name)), None):
            raise DataError(
                "wrong type", f"a turn has {beside} beside its text: write into the text what is to be learned"
            )
    return tuple(Message(role=role, content=text) for role, text in turns)  # type: ignore[arg-type]


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)  # content in parts
    if not isinstance(value, str):
        raise DataError("wrong type", f"the text of a turn is {value!r:.60}: expected text")
    return encodable(value)
