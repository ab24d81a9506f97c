"""One turn of a conversation, in OpenAI's words (role, content) or ShareGPT's (from, value)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.data.errors import DataError, shown


def message_role(turn: Any) -> str:
    """A turn's speaker, in OpenAI's words or ShareGPT's."""
    role = turn.get("role", turn.get("from")) if isinstance(turn, Mapping) else None
    if not isinstance(role, str):
        raise DataError("wrong type", f"{shown(turn)} is no message: expected role and content (or from and value)")
    return {"human": "user", "gpt": "assistant"}.get(role, role)


def message_text(turn: Mapping[str, Any]) -> Any:
    """What a turn says."""
    return turn.get("content", turn.get("value"))
