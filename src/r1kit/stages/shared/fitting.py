"""Problems whose prompts fit into the model's context, checked before any work starts."""

from __future__ import annotations

from typing import Any

from r1kit.chat import ChatFormat
from r1kit.engines.ask import refuse_long
from r1kit.pipeline import Context
from r1kit.tasks import Task, load_tasks
from r1kit.types import Problem

LEAVE_OUT = "leave the problem out"


class Fitting:
    """A task without the problems whose prompts are longer than `limit` tokens; `dropped` counts these, and `longest`
    is the number of tokens of the prompt with the longest text.

    `policy` needs a tokenizer and a context only (`models.load.outline`). Raises ValueError if a prompt leaves no room
    for `max_tokens` tokens, or if no problem is left; `remedy` is the advice beside lowering `max_tokens`.
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
        self.dropped = self.longest = 0
        characters: list[int] = []  # of each problem's prompt
        context = policy.context  # a look into the configuration, which is slow
        refuse_long("", 0, max_tokens, context, remedy)
        room = context - max_tokens
        for index in range(len(task)):
            problem = task[index]
            # Tokenizing is slow, so a cheap upper bound comes first: every token covers at least one byte, and
            # normalization (NFC) makes text at most three times longer.
            text = chat.text(chat.messages(problem), policy.tokenizer) + chat.prefill
            size = 3 * len(text.encode())
            if size > (room if limit is None else min(room, limit)):
                size = len(chat.render(problem, policy.tokenizer).token_ids)
            if limit is not None and size > limit:
                self.dropped += 1
                continue
            refuse_long(problem.id, size, max_tokens, context, remedy)
            characters.append(len(text))
            self.problems.append(problem)
        if not self.problems:
            raise ValueError(f"{task.name}: no problem has a prompt of at most {limit} tokens: raise max_prompt_tokens")
        longest = self.problems[characters.index(max(characters))]
        self.longest = len(chat.render(longest, policy.tokenizer).token_ids)

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int, /) -> Problem:
        return self.problems[index]


def check_model(
    context: Context, *, training: bool, limit: int | None = None, remedy: str = LEAVE_OUT, nested_columns: bool = False
) -> Fitting:
    """Check device, model, tasks and prompts without loading the model's weights. Raises ValueError.

    The stage's settings have `device`, `tasks`, `chat` and `max_tokens`.
    """
    from r1kit.models.devices import device_of
    from r1kit.models.load import outline

    settings = context.settings
    device_of(settings.device)
    task = load_tasks(settings.tasks, training=training, nested_columns=nested_columns)
    policy = outline(str(context.input("model")))
    policy.turn(settings.chat)  # refuses a format that the model's chat template cannot follow
    return Fitting(task, settings.chat, policy, max_tokens=settings.max_tokens, limit=limit, remedy=remedy)
