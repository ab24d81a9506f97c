"""The form of completions and prompts: plain text, or lists of messages as in TRL's conversational data sets."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.rewards.inputs import RewardFunction, question_of, texts

_MESSAGES = re.compile(r"\b(?:dict|mapping|message)s?\b(?:\[[^\]]*\])?", re.IGNORECASE)


def annotated_form(function: RewardFunction) -> bool | None:
    """Whether the annotation of `completions` says messages (`list[list[dict[str, str]]]`) or text (`list[str]`).

    None if it says neither or both.
    """
    parameter = inspect.signature(function).parameters.get("completions")
    annotation = inspect.Parameter.empty if parameter is None else parameter.annotation
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    rest, messages = _MESSAGES.subn("", text)
    has_text = re.search(r"\bstr\b", rest) is not None
    return bool(messages) if has_text != bool(messages) else None


def is_messages(value: Any) -> bool:
    """Whether a prompt or completion is a list of messages."""
    is_list = isinstance(value, list | tuple) and bool(value)
    return is_list and all(isinstance(turn, Mapping) and "content" in turn for turn in value)


def in_form(
    chat: bool | None, completions: Sequence[Any], prompts: Sequence[Any] | None, conversations: Sequence[Any] | None
) -> tuple[bool, dict[str, Any]]:
    """Whether a function gets messages, and its `completions` and `prompts` (if there are any) in that form.

    `conversations` are the data's own prompts; messages among them replace those of `prompts`. With `chat` None, the
    form is that of the data, as in TRL. Raises ValueError if rows differ in it.
    """
    requests = [None] * len(completions) if prompts is None else list(prompts)
    if conversations is not None:
        requests = [own if is_messages(own) else prompt for own, prompt in zip(conversations, requests, strict=True)]
    if chat is None:
        forms = {is_messages(c) or is_messages(p) for c, p in zip(completions, requests, strict=True)}
        if len(forms) > 1:
            raise ValueError("some rows are messages and others text: set its option `chat` to true or false")
        chat = True in forms
    arguments: dict[str, Any] = {}
    if chat:
        arguments["completions"] = [c if is_messages(c) else [{"role": "assistant", "content": c}] for c in completions]
        arguments["prompts"] = [p if is_messages(p) else [{"role": "user", "content": p}] for p in requests]
    else:
        arguments["completions"] = texts(completions)
        arguments["prompts"] = [question_of(prompt) for prompt in prompts or ()]
    if prompts is None:
        del arguments["prompts"]
    return chat, arguments
