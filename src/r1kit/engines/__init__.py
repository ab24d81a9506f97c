"""Engines turn prompts into completions. `local` shares the learner's own tensors, `remote` asks a server over HTTP.

`r1kit.engines.opening.EngineSettings` describes either, and opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from r1kit.types import Completion, Prompt, SamplingParams

Report = Callable[[int, int], None]  # (completions done, completions asked for)


class EngineError(ValueError):
    """An engine cannot give the completions that it was asked for; the message says why and how to mend it."""


class PromptError(EngineError):
    """One prompt cannot be answered (too long, refused); the others could be. `prompt_id` names it."""

    def __init__(self, message: str, prompt_id: str) -> None:
        super().__init__(message)
        self.prompt_id = prompt_id


class Engine(Protocol):
    """`params.n` completions for each prompt, in the prompts' order."""

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]: ...


@runtime_checkable
class StructuredEngine(Engine, Protocol):
    """An engine that can hold its answers to a JSON schema."""

    def structured(self, schema: Mapping[str, Any]) -> Self: ...


def require_token_ids(completions: Sequence[Completion], purpose: str) -> None:
    """Raise `EngineError` for a completion that has text but no token ids, as most servers send them."""
    for completion in completions:
        if completion.text and not completion.token_ids:
            raise EngineError(
                f"{purpose} needs the token ids of a completion, and this one has text alone: sample with the local "
                "engine, or have the server send ids (vLLM: extra_body={'return_token_ids': true, 'logprobs': true})"
            )
