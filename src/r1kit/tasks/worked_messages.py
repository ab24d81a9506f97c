"""Prompts and answers kept as messages, in OpenAI's words (role, content) or ShareGPT's (from, value)."""

from __future__ import annotations

import re
from typing import Any

from r1kit.data.errors import DataError, encodable, shown
from r1kit.data.messages import message_role, message_text
from r1kit.tasks.references import boxed

BOX_REQUEST = re.compile(r"^Return your final response within \\boxed\{\}\.\s*")


def user_text(value: Any) -> str:
    """The question: text, or a list of messages with one user turn; the chat format brings its own system message."""
    if isinstance(value, list):
        turns = [(message_role(turn), turn) for turn in value]
        asked = [turn for role, turn in turns if role == "user"]
        if len(asked) != 1 or any(role == "assistant" for role, _ in turns):
            raise DataError("wrong type", f"{len(turns)} messages with {len(asked)} user turns: expected one question")
        value = message_text(asked[0])
    if value is None:
        raise DataError("empty prompt", "the prompt is empty: drop the row or fill it in")
    if not isinstance(value, str):
        raise DataError("wrong type", f"the prompt is {shown(value)}: expected text or a list of messages")
    return encodable(value.strip())


def first_question(value: Any) -> str:
    """Bespoke-Stratos: the user's first turn, without its request for a box, as the response format is ours to ask."""
    asked = [turn for turn in as_turns(value) if message_role(turn) == "user"]
    return BOX_REQUEST.sub("", user_text(asked[:1]))


def last_reply(value: Any) -> str:
    """Bespoke-Stratos: the assistant's last turn, thought and solution."""
    replies = [message_text(turn) for turn in as_turns(value) if message_role(turn) == "assistant"]
    if not replies or not isinstance(replies[-1], str):
        raise DataError("empty answer", "the conversation has no assistant turn with text")
    return replies[-1]


def replied_box(value: Any) -> str:
    """Bespoke-Stratos: the boxed answer between the solution's marks."""
    text = last_reply(value).rpartition("<|begin_of_solution|>")[2]
    return boxed(text.partition("<|end_of_solution|>")[0])


def as_turns(value: Any) -> list[Any]:
    """A conversation, which must be a list."""
    if not isinstance(value, list):
        raise DataError("wrong type", f"the conversation is {shown(value)}: expected a list of messages")
    return value
