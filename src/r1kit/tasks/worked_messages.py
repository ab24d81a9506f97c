"""Prompts and answers kept as messages, in OpenAI's words (role, content) or ShareGPT's (from, value)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from r1kit.data.errors import DataError, encodable, shown
from r1kit.data.messages import parse_messages
from r1kit.tasks.references import boxed
from r1kit.types import Message

BOX_REQUEST = re.compile(r"^Return your final response within \\boxed\{\}\.\s*")

STRATOS_REPLY = re.compile(
    r"<\|begin_of_thought\|>\s*(?P<thought>.*?)\s*<\|end_of_thought\|>\s*"
    r"<\|begin_of_solution\|>\s*(?P<solution>.*?)\s*<\|end_of_solution\|>",
    re.DOTALL,
)


def read_turns(value: Any) -> tuple[Message, ...]:
    """`parse_messages`, with the place of a bad turn in the reason: the field of the error is the data's column."""
    try:
        return parse_messages(value, "turns")
    except DataError as error:
        raise DataError(error.kind, f"{error.field}: {error.reason}") from None


def user_text(value: Any, with_system: bool = True) -> str:
    """The question: text, or a list of messages with one user turn.

    A system message opens the question, as the prompt format brings its own; without `with_system`, it is left out.
    """
    if isinstance(value, list):
        turns = read_turns(value)
        if sum(turn.role == "user" for turn in turns) != 1 or any(turn.role == "assistant" for turn in turns):
            roles = ", ".join(turn.role for turn in turns)
            raise DataError("wrong type", f"the messages are those of {roles}: expected one question of the user")
        kept = [turn.content.strip() for turn in turns if with_system or turn.role == "user"]
        value = "\n\n".join(filter(None, kept))
    if value is None:
        raise DataError("empty prompt", "the prompt is empty: drop the row or fill it in")
    if not isinstance(value, str):
        raise DataError("wrong type", f"the prompt is {shown(value)}: expected text or a list of messages")
    return encodable(value.strip())


def first_question(value: Any) -> str:
    """Bespoke-Stratos: the user's first turn, without its request for a box, as the response format is ours to ask."""
    question = next((turn.content for turn in read_turns(value) if turn.role == "user"), None)
    return BOX_REQUEST.sub("", user_text(question))


def last_reply(value: Any) -> str:
    """Bespoke-Stratos: the assistant's last turn, thought and solution."""
    replies = [turn.content for turn in read_turns(value) if turn.role == "assistant"]
    if not replies:
        raise DataError("empty answer", "the conversation has no assistant turn")
    return replies[-1]


def worked_reply(row: Mapping[str, Any]) -> str:
    """OpenR1-Math: the first verified trace, as the assistant's turn."""
    return last_reply(row["messages"])


def thought_and_solution(value: Any) -> str:
    """Bespoke-Stratos: the assistant's last turn, with its marks of thought and solution as <think> tags."""
    reply = last_reply(value)
    match = STRATOS_REPLY.fullmatch(reply.strip())
    return f"<think>\n{match['thought']}\n</think>\n\n{match['solution']}" if match else reply


def replied_box(value: Any) -> str:
    """Bespoke-Stratos: the boxed answer between the solution's marks."""
    text = last_reply(value).rpartition("<|begin_of_solution|>")[2]
    return boxed(text.partition("<|end_of_solution|>")[0])
