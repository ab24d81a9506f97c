"""The one reader of conversations: turns in OpenAI's form (role, content) or ShareGPT's (from, value)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

from r1kit.data.errors import DataError, shown
from r1kit.types import Message

Role = Literal["system", "user", "assistant"]
ROLES = get_args(Role)
OTHER_NAMES = {"human": "user", "gpt": "assistant", "developer": "system"}
BESIDE_TEXT = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call")  # would be lost silently


def parse_messages(value: Any, field: str = "messages") -> tuple[Message, ...]:
    """A list of turns; raises `DataError` that names the field of the first bad one, such as `messages.2.role`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        kind = "missing column" if value is None else "wrong type"
        reason = f'the value is {shown(value)}: expected a list of {{"role": ..., "content": ...}}'
        raise DataError(kind, reason, field=field)
    messages = []
    for place, turn in ((f"{field}.{index}", turn) for index, turn in enumerate(value)):
        if not isinstance(turn, Mapping):
            reason = f'the turn is {shown(turn)}: expected {{"role": ..., "content": ...}}'
            raise DataError("wrong type", reason, field=place)
        role = turn.get("role", turn.get("from"))
        role = OTHER_NAMES.get(role, role) if isinstance(role, str) else role
        if role not in ROLES:
            reason = f"the role is {shown(role)}: expected one of {', '.join(ROLES)}"
            raise DataError("wrong type", reason, field=f"{place}.role")
        if name := next((name for name in BESIDE_TEXT if turn.get(name)), None):
            reason = f"the turn has {name} beside its text: write into the text what the model should learn"
            raise DataError("wrong type", reason, field=place)
        text = parse_text(turn.get("content", turn.get("value")), f"{place}.content")
        messages.append(Message(role=cast(Role, role), content=text))
    return tuple(messages)


def parse_text(value: Any, field: str) -> str:
    """The text of a turn: a string, or a list of text parts (`[{"type": "text", "text": ...}]`)."""
    if isinstance(value, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise DataError("wrong type", f"the content is {shown(value)}: expected text", field=field)
    return value
