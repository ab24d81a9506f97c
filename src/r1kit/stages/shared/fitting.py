"""Settings that several kinds of work share, and how they become objects."""

from __future__ import annotations

from typing import Any

from r1kit.chat import ChatFormat
from r1kit.engines.ask import refuse_long
from r1kit.pipeline import Context
from r1kit.tasks import Task, load_tasks
from r1kit.types import Problem

LEAVE_OUT = "leave the problem out"


class Fitting:
    """The problems of a task whose prompts leave room for an answer.

    `policy` needs a tokenizer and a context only (`models.load.outline`). `limit` drops problems with longer prompts
    (counted in `dropped`); without it a prompt that does not fit is an error. Raises ValueError before any work, naming
    the problem and `remedy`, what to do beside lowering `max_tokens`.
    """

    def __init__(
        self,
        task: Task,
        chat: ChatFormat,
        policy: Any,
        *,
        max_tokens: int,
        limit: int | None = None,
        remedy: str = LEAVE_OUT,
    ) -> None:
        self.name = task.name
        self.problems: list[Problem] = []
        self.dropped = 0
        refuse_long("", 0, max_tokens, policy.context, remedy)
        room = policy.context - max_tokens
        for index in range(len(task)):
            problem = task[index]
            size = _size(problem, chat, policy.tokenizer, min(room, limit or room))
            if limit is not None and size > limit:
                self.dropped += 1
                continue
            refuse_long(problem.id, size, max_tokens, policy.context, remedy)
            self.problems.append(problem)
        if not self.problems:
            raise ValueError(f"{task.name}: no problem has a prompt of at most {limit} tokens: raise max_prompt_tokens")

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int, /) -> Problem:
        return self.problems[index]


def _size(problem: Problem, chat: ChatFormat, tokenizer: Any, short: int) -> int:
    """The tokens of a prompt; of one that cannot have more than `short`, a quick upper bound.

    Tokenising takes most of the time. A token stands for a byte of text at least, and normalisation (NFC) makes text
    three times longer at most.
    """
    text = chat.text(chat.messages(problem), tokenizer) + chat.prefill
    most = 3 * len(text.encode())
    return most if most <= short else len(chat.render(problem, tokenizer).token_ids)


def check_model(context: Context, *, training: bool, limit: int | None = None, remedy: str = LEAVE_OUT) -> None:
    """Refuse a device, a model, tasks and prompts that cannot work, without the model's weights.

    The stage's settings have `device`, `tasks`, `chat` and `max_tokens`; raises ValueError.
    """
    from r1kit.models.load import device_of, outline

    settings = context.settings
    device_of(settings.device)
    task, policy = load_tasks(settings.tasks, training=training), outline(str(context.input("model")))
    Fitting(task, settings.chat, policy, max_tokens=settings.max_tokens, limit=limit, remedy=remedy)
