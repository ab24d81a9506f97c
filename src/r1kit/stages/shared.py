"""Settings that several kinds of work share, and how they become objects."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from r1kit.chat import R1_ZERO_SYSTEM, ChatFormat
from r1kit.settings import Settings
from r1kit.tasks import Task
from r1kit.types import Problem

HIDDEN: dict[str, Any] = {"fingerprint": False}  # for settings that change speed or comfort, never the result


class ChatSettings(Settings):
    """How a problem becomes a prompt; see `r1kit.chat.ChatFormat`."""

    template: Literal["plain", "chat"] = "plain"
    system: str = R1_ZERO_SYSTEM
    exemplars: tuple[tuple[str, str], ...] = ()
    prefill: str = ""

    def format(self) -> ChatFormat:
        return ChatFormat(**self.model_dump())


class DeviceSettings(Settings):
    """Where models run. `max_rows` is how many completions grow at once in the local engine."""

    device: str = Field("auto", json_schema_extra=HIDDEN)
    max_rows: int = Field(128, ge=1, json_schema_extra=HIDDEN)


class Fitting:
    """The problems of a task whose prompts leave room for an answer.

    `limit` drops problems with longer prompts (counted in `dropped`); without it a prompt that does not fit is an
    error. Raises ValueError before any work, naming the problem.
    """

    def __init__(self, task: Task, chat: ChatFormat, tokenizer: Any, *, room: int, limit: int | None) -> None:
        self.name = task.name
        self.problems: list[Problem] = []
        self.dropped = 0
        for index in range(len(task)):
            problem = task[index]
            size = len(chat.render(problem, tokenizer).token_ids)
            if limit is not None and size > limit:
                self.dropped += 1
            elif size > room:
                raise ValueError(
                    f"the prompt of {problem.id} has {size} tokens and only {room} fit beside max_tokens: "
                    "lower max_tokens, or set max_prompt_tokens to leave longer prompts out"
                )
            else:
                self.problems.append(problem)
        if not self.problems:
            raise ValueError(f"{task.name}: no problem has a prompt of at most {limit} tokens: raise max_prompt_tokens")

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int, /) -> Problem:
        return self.problems[index]
