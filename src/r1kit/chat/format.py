"""The prompt format: from a conversation to the exact token ids that a policy continues."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import field_validator

from r1kit.settings import Settings
from r1kit.types import Message, Problem, Prompt

# The structure of the paper's Table 1 (R1-Zero): who speaks, what to do, which tags to use, then the question.
R1_ZERO_SYSTEM = (
    "The user asks a question and the assistant solves it. The assistant first reasons about the question, then gives "
    "the final answer. The reasoning goes inside <think> </think> and the answer inside <answer> </answer>, like this: "
    "<think> reasoning here </think> <answer> answer here </answer>"
)
_PLACEHOLDER = re.compile(r"\{(?:system|history|question)\}")


class ChatFormat(Settings):
    """How a problem becomes a prompt.

    `template="chat"` uses the tokenizer's chat template; `"plain"` fills the text `plain`, for base models. `exemplars`
    are (question, response) pairs that come before the question. `prefill` starts the assistant's turn: it is part of
    the prompt, and `complete` puts it back before a response is judged.
    """

    template: Literal["plain", "chat"] = "plain"
    system: str = R1_ZERO_SYSTEM
    plain: str = "{system}\n{history}User: {question}\nAssistant: "
    exemplars: tuple[tuple[str, str], ...] = ()
    prefill: str = ""

    @field_validator("plain")
    @classmethod
    def _has_question(cls, plain: str) -> str:
        if "{question}" not in plain:
            raise ValueError("it must contain {question}")
        return plain

    def messages(self, problem: Problem) -> tuple[Message, ...]:
        """The system message (if any), exemplars as earlier turns, and the problem's question."""
        turns = [Message(role="system", content=self.system)] if self.system else []
        for question, response in self.exemplars:
            turns += [Message(role="user", content=question), Message(role="assistant", content=response)]
        return (*turns, Message(role="user", content=problem.prompt))

    def render(self, problem: Problem, tokenizer: Any) -> Prompt:
        """The exact ids that the policy continues, the same in training, sampling and evaluation."""
        messages = self.messages(problem)
        return Prompt(problem_id=problem.id, messages=messages, token_ids=tuple(self.encode(messages, tokenizer)))

    def encode(self, messages: tuple[Message, ...], tokenizer: Any) -> list[int]:
        """Token ids of a conversation that ends with a user's turn, and of the start of the assistant's turn."""
        return list(tokenizer.encode(self.text(messages, tokenizer) + self.prefill, add_special_tokens=False))

    def text(self, messages: tuple[Message, ...], tokenizer: Any) -> str:
        """The prompt as text, without the prefill."""
        if self.template == "chat":
            if not tokenizer.chat_template:
                raise ValueError("the tokenizer has no chat template: set chat.template to 'plain'")
            turns = [{"role": turn.role, "content": turn.content} for turn in messages]
            remedy = "set chat.system to '' if the template takes no system message"
            return apply_template(tokenizer, turns, remedy, add_generation_prompt=True)
        system = "\n".join(turn.content for turn in messages if turn.role == "system")
        *history, question = [turn for turn in messages if turn.role != "system"]
        names = {"user": "User", "assistant": "Assistant"}
        earlier = "".join(f"{names[turn.role]}: {turn.content}\n" for turn in history)
        parts = {"{system}": system, "{history}": earlier, "{question}": question.content}
        # in one pass, so that "{question}" inside a message stays as it is
        filled = _PLACEHOLDER.sub(lambda match: parts[match[0]], self.plain)
        return (tokenizer.bos_token or "") + filled.lstrip("\n")

    def complete(self, text: str) -> str:
        """The whole response: the prompt's prefill and the policy's completion."""
        return self.prefill + text


def apply_template(tokenizer: Any, turns: list[dict[str, str]], remedy: str, **options: Any) -> str:
    """The chat template's text. Raises ValueError if the template refuses the turns, for whatever reason."""
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))
    except TemplateError as error:
        raise ValueError(f"the model's chat template refuses these messages ({error}): {remedy}") from error
