"""Many prompts to one engine, where a prompt that the engine refuses does not cost the others their answers."""

from __future__ import annotations

from collections.abc import Sequence

from r1kit.engines import Engine, PromptError, Report
from r1kit.types import Completion, Prompt, SamplingParams

Answers = Sequence[Completion] | str  # completions, or why the engine refuses the prompt


def ask(
    engine: Engine, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
) -> list[Answers]:
    """The completions of each prompt, or the reason for which the engine refused it (too long, not allowed).

    Prompts need names of their own. Raises `EngineError` of a dead engine, and where it refuses more than a tenth of
    the prompts: then it is not the prompts' fault.
    """
    refused: dict[str, str] = {}
    allowed = max(3, len(prompts) // 10)
    while left := [prompt for prompt in prompts if prompt.problem_id not in refused]:
        try:
            answers = dict(zip([one.problem_id for one in left], engine.generate(left, params, report), strict=True))
            return [
                answers[one.problem_id] if one.problem_id in answers else refused[one.problem_id] for one in prompts
            ]
        except PromptError as error:
            if error.prompt_id in refused or len(refused) >= allowed:
                raise
            refused[error.prompt_id] = str(error)
    return [refused[prompt.problem_id] for prompt in prompts]


def refuse_long(size: int, prompt: str, max_tokens: int, context: int, remedy: str) -> None:
    """Raise ValueError for `prompt`, of `size` tokens, where `max_tokens` more do not fit into a model's context."""
    if max_tokens >= context:
        raise ValueError(
            f"max_tokens is {max_tokens}, and the model's context is {context} tokens for prompt and answer together: "
            "lower max_tokens"
        )
    if size + max_tokens > context:
        raise ValueError(
            f"{prompt} has {size} tokens; with max_tokens {max_tokens} that is {size + max_tokens}, and the model's "
            f"context is {context}: lower max_tokens or {remedy}"
        )
