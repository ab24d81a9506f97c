"""Ask a local engine the way a server is asked: by messages, which are rendered to token ids here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from r1kit.chat import ChatFormat, whole_response
from r1kit.engines import PolicyEngine, PromptError, Report
from r1kit.engines.ask import refuse_long
from r1kit.types import Completion, Prompt, SamplingParams


@dataclass(frozen=True)
class ChatEngine:
    """An engine that renders prompts without token ids with the template of `chat`.

    The messages already hold the system prompt and exemplars; those of `chat` are ignored. Completions of such prompts
    begin with the text that the prompt opened, like a server's replies. Prompts with token ids pass unchanged, and so
    do their completions. With a plain-text template, generation stops where the model continues as the user.
    """

    engine: PolicyEngine
    chat: ChatFormat

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Raises `PromptError`, before any work, if a prompt leaves no room for `max_tokens`."""
        rendered = []
        for prompt in prompts:
            name = prompt.problem_id
            if not prompt.token_ids and not prompt.messages:
                raise PromptError(f"the prompt {name} has no messages: give it a question", name)
            own = prompt if prompt.token_ids else self.chat.prompt(prompt.messages, self.engine.tokenizer, name)
            rendered.append(own)
            refuse_long(name, len(own.token_ids), params.max_tokens, self.engine.context, "shorten the prompt")
        if self.chat.template == "plain" and not params.stop:
            params = replace(params, stop=("\nUser:", "\nuser:"))  # some tokenizers lower-case all text
        answers = self.engine.generate(rendered, params, report)
        return [
            completions if prompt.token_ids else [replace(each, text=whole_response(own, each)) for each in completions]
            for prompt, own, completions in zip(prompts, rendered, answers, strict=True)
        ]
