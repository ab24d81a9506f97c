"""Ask a local engine as a server is asked: by messages, which become token ids here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.engines import PromptError, Report
from r1kit.types import Completion, Prompt, SamplingParams


@dataclass(frozen=True)
class MessageEngine:
    """A `LocalEngine` that takes prompts without token ids and renders their messages with `chat`.

    Only the template of `chat` counts: system prompt and exemplars stand in the messages already. Prompts that have
    token ids pass as they are. A plain-text template stops where the model goes on as the user.
    """

    engine: Any
    chat: ChatFormat

    @property
    def policy(self) -> Any:
        return self.engine.policy

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Raises `PromptError`, before any work, for a prompt that leaves no room for `max_tokens`."""
        rendered = [self._rendered(prompt, params) for prompt in prompts]
        if self.chat.template == "plain" and not params.stop:
            params = replace(params, stop=("\nUser:", "\nuser:"))  # a tokenizer may put text into lower case
        answers: list[list[Completion]] = self.engine.generate(rendered, params, report)
        return answers

    def _rendered(self, prompt: Prompt, params: SamplingParams) -> Prompt:
        if not prompt.token_ids:
            if not prompt.messages:
                raise PromptError(
                    f"the prompt {prompt.problem_id} has no messages: give it a question", prompt.problem_id
                )
            prompt = replace(prompt, token_ids=tuple(self.chat.encode(prompt.messages, self.policy.tokenizer)))
        size, context = len(prompt.token_ids), self.policy.context
        if size + params.max_tokens > context:
            raise PromptError(
                f"the prompt {prompt.problem_id} has {size} tokens; with max_tokens {params.max_tokens} that is "
                f"{size + params.max_tokens}, and the model's context is {context}: shorten it or lower max_tokens",
                prompt.problem_id,
            )
        return prompt
