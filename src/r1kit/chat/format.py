"""The prompt format: from a conversation to the exact token ids that a policy continues."""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal

from pydantic import Field, field_validator

from r1kit.chat.template import dated, rendered, require_kept, takes_system, template_turns
from r1kit.chat.turn import lead_of, opened_by, require_opening
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

        Raises ValueError for a chat template that does not begin the assistant's turn or drops a part of an exemplar,
        and for a prefill that repeats what the template opens.
        """
        messages = self.messages(Problem(id="", prompt="Q", answer=""))
        if self.template == "chat":
            require_opening(tokenizer, *self._template_arguments(messages, tokenizer))
        self.require_kept(messages, tokenizer)
        opened = opened_by(self.text(messages, tokenizer))
        if opened and self.prefill.lstrip().startswith("<think>"):
            raise ValueError(f"the template opens {opened!r} itself: leave the prefill {self.prefill!r} out")
        return opened + self.prefill

    def folds_system(self, tokenizer: Any) -> bool:
        """Whether the system message begins the first question, because the chat template does not take one."""
        if self.template == "plain" or not self.system:
            return False
        messages = self.messages(Problem(id="", prompt="Q", answer=""))
        return not takes_system(tokenizer, *self._template_arguments(messages, tokenizer))

    def require_kept(self, messages: tuple[Message, ...], tokenizer: Any) -> None:
        """Raise ValueError if the chat template drops a part of an earlier answer: the reasoning of an exemplar."""
        if self.template == "chat":
            turns, _ = self._template_arguments(messages, tokenizer)
            require_kept(turns, self.text(messages, tokenizer))

    def keeps_reasoning(self, tokenizer: Any) -> bool:
        """Whether prompts hold the reasoning of earlier answers; templates of reasoning models drop it."""
        answer = Message(role="assistant", content="<think>1+2=3</think>3")
        question = Message(role="user", content="1+2?")
        return "1+2=3" in self.text((question, answer, question), tokenizer)

    def lead(self, tokenizer: Any) -> str:
        """White space that the chat template writes before an answer, and that no prompt ends with: Mistral's space."""
        if self.template == "plain":
            return ""
        turns, variables = self._template_arguments((Message(role="user", content="Q"),), tokenizer)
        return lead_of(tokenizer, turns, variables)

    def text(self, messages: tuple[Message, ...], tokenizer: Any) -> str:
        """The prompt as text, without the prefill."""
        if self.template == "chat":
            turns, variables = self._template_arguments(messages, tokenizer)
            return rendered(tokenizer, turns, add_generation_prompt=True, **variables)
        system = "\n".join(turn.content for turn in messages if turn.role == "system")
        *history, question = [turn for turn in messages if turn.role != "system"]
        names = {"user": "User", "assistant": "Assistant"}
        earlier = "".join(f"{names[turn.role]}: {turn.content}\n" for turn in history)
        parts = {"{system}": system, "{history}": earlier, "{question}": question.content}
        # in one pass, so that "{question}" inside a message stays as it is
        filled = _PLACEHOLDER.sub(lambda match: parts[match[0]], self.plain)
        return (tokenizer.bos_token or "") + filled.lstrip("\n")

    def _template_arguments(
        self, messages: tuple[Message, ...], tokenizer: Any
    ) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """The turns as the chat template reads them, and its variables: the options, and the template with the
        format's date in place of today's."""
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template: set chat.template to 'plain'")
        template = tokenizer.get_chat_template()  # a tokenizer may have several by name, of which it picks one
        return template_turns(messages, template), {"chat_template": dated(template, self.date), **self.options}
