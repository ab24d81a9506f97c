"""The prompt format: from a conversation to the exact token ids that a policy continues."""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal

from pydantic import Field, field_validator

from r1kit.chat.turn import apply_template, dated, opened_by, require_opening
from r1kit.settings import Settings
from r1kit.types import Message, Problem, Prompt

# The structure of the paper's Table 1 (R1-Zero): who speaks, what to do, which tags to use, then the question.
R1_ZERO_SYSTEM = (
    "The user asks a question and the assistant solves it. The assistant first reasons about the question, then gives "
    "the final answer. The reasoning goes inside <think> </think> and the answer inside <answer> </answer>, like this: "
    "<think> reasoning here </think> <answer> answer here </answer>"
)
# arguments of `apply_chat_template` that are not variables of a template
_ARGUMENTS = frozenset({"conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"})
_PLACEHOLDER = re.compile(r"\{(?:system|history|question)\}")


class ChatFormat(Settings):
    """How a problem becomes a prompt.

    `template="chat"` uses the tokenizer's chat template; `"plain"` fills the text `plain`, for base models. `exemplars`
    are (question, response) pairs that come before the question. `prefill` starts the assistant's turn: it is part of
    the prompt, and of the response that is judged (`turn.whole_response`).
    """

    template: Literal["plain", "chat"] = "plain"
    system: str = R1_ZERO_SYSTEM
    plain: str = "{system}\n{history}User: {question}\nAssistant: "
    exemplars: tuple[tuple[str, str], ...] = ()
    prefill: str = ""
    options: dict[str, Any] = Field(
        {}, description="variables of the chat template, such as {'enable_thinking': false} (Qwen3)"
    )
    date: datetime.date = Field(
        datetime.date(2024, 7, 26),
        description="the day for chat templates that write today's (Llama 3), so that prompts are the same every day",
    )

    @field_validator("plain")
    @classmethod
    def _has_question(cls, plain: str) -> str:
        if "{question}" not in plain:
            raise ValueError("it must contain {question}")
        return plain

    @field_validator("options")
    @classmethod
    def _are_free(cls, options: dict[str, Any]) -> dict[str, Any]:
        if reserved := sorted(options.keys() & _ARGUMENTS):
            raise ValueError(f"{reserved[0]} is set by r1kit itself: name variables of the chat template only")
        return options

    def messages(self, problem: Problem) -> tuple[Message, ...]:
        """The system message (if any), exemplars as earlier turns, and the problem's question."""
        turns = [Message(role="system", content=self.system)] if self.system else []
        for question, response in self.exemplars:
            turns += [Message(role="user", content=question), Message(role="assistant", content=response)]
        return (*turns, Message(role="user", content=problem.prompt))

    def render(self, problem: Problem, tokenizer: Any) -> Prompt:
        """The exact ids that the policy continues, the same in training, sampling and evaluation."""
        return self.prompt(self.messages(problem), tokenizer, problem.id)

    def prompt(self, messages: tuple[Message, ...], tokenizer: Any, problem_id: str = "") -> Prompt:
        """The prompt of a conversation that ends with a user's turn."""
        text = self.text(messages, tokenizer)
        ids = tokenizer.encode(text + self.prefill, add_special_tokens=False)
        opened = opened_by(text) + self.prefill
        return Prompt(problem_id=problem_id, messages=messages, token_ids=tuple(ids), opened=opened)

    def opened(self, tokenizer: Any) -> str:
        """The part of a response that every prompt of this format holds: reasoning that is open, and the prefill.

        Raises ValueError for a chat template that does not begin the assistant's turn, and for a prefill that repeats
        what the template opens.
        """
        messages = self.messages(Problem(id="", prompt="Q", answer=""))
        if self.template == "chat":
            require_opening(tokenizer, _plain(messages), self._variables(tokenizer))
        opened = opened_by(self.text(messages, tokenizer))
        if opened and self.prefill.lstrip().startswith("<think>"):
            raise ValueError(f"the template opens {opened!r} itself: leave the prefill {self.prefill!r} out")
        return opened + self.prefill

    def text(self, messages: tuple[Message, ...], tokenizer: Any) -> str:
        """The prompt as text, without the prefill."""
        if self.template == "chat":
            return apply_template(tokenizer, _plain(messages), add_generation_prompt=True, **self._variables(tokenizer))
        system = "\n".join(turn.content for turn in messages if turn.role == "system")
        *history, question = [turn for turn in messages if turn.role != "system"]
        names = {"user": "User", "assistant": "Assistant"}
        earlier = "".join(f"{names[turn.role]}: {turn.content}\n" for turn in history)
        parts = {"{system}": system, "{history}": earlier, "{question}": question.content}
        # in one pass, so that "{question}" inside a message stays as it is
        filled = _PLACEHOLDER.sub(lambda match: parts[match[0]], self.plain)
        return (tokenizer.bos_token or "") + filled.lstrip("\n")

    def _variables(self, tokenizer: Any) -> dict[str, Any]:
        """The options, and the chat template with the format's date in place of today's."""
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template: set chat.template to 'plain'")
        # a tokenizer may have several templates by name, of which it picks one
        return {"chat_template": dated(tokenizer.get_chat_template(), self.date), **self.options}


def _plain(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in messages]
