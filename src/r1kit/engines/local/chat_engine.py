"""Ask a local engine the way a server is asked: by messages, which are rendered to token ids here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from r1kit.chat import ChatFormat
from r1kit.engines import PolicyEngine, PromptError, Report
from r1kit.engines.ask import refuse_long
from r1kit.types import Completion, Prompt, SamplingParams


@dataclass(frozen=True)
class ChatEngine:
    """An engine that renders prompts without token ids with the template of `chat`.

    The messages already hold the system prompt and exemplars; those of `chat` are ignored. Prompts with token ids pass
    unchanged. With a plain-text template, generation stops where the model continues as the user.
    """

    engine: PolicyEngine
    chat: ChatFormat

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Raises `PromptError`, before any work, if a prompt leaves no room for `max_tokens`."""
        rendered = []
        for prompt in prompts:
            token_ids = prompt.token_ids
            if not token_ids:
                if not prompt.messages:
                    name = prompt.problem_id
                    raise PromptError(f"the prompt {name} has no messages: give it a question", name)
                token_ids = tuple(self.chat.encode(prompt.messages, self.engine.tokenizer))
            refuse_long(prompt.problem_id, len(token_ids), params.max_tokens, self.engine.context, "shorten the prompt")
            # messages stay, for whoever logs the prompt
            rendered.append(replace(prompt, token_ids=token_ids))
        if self.chat.template == "plain" and not params.stop:
            params = replace(params, stop=("\nUser:", "\nuser:"))  # some tokenizers lower-case all text
        return self.engine.generate(rendered, params, report)
