"""Ask an engine many prompts: a prompt that it refuses does not cost the others their answers."""

from __future__ import annotations

from collections.abc import Sequence

from r1kit.engines import Engine, PromptError, Report, require_all
from r1kit.types import Completion, Prompt, SamplingParams

Answers = Sequence[Completion] | str  # completions, or the reason for which the engine refused the prompt


def ask(
    engine: Engine, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
) -> list[Answers]:
    """The completions of each prompt, or the reason for which the engine refused it (too long, not allowed).

    Prompts need distinct `problem_id`s. Raises `EngineError` if the engine fails, or if it refuses more than a tenth
    of the prompts: then the prompts are not the cause.
    """
    refused: dict[str, str] = {}
    max_refused = max(3, len(prompts) // 10)
    while accepted := [prompt for prompt in prompts if prompt.problem_id not in refused]:
        try:
            # answers come in the order of the accepted prompts
            answers = engine.generate(accepted, params, report)
            require_all(answers, accepted, params.n)
            groups = iter(answers)
            return [refused[p.problem_id] if p.problem_id in refused else next(groups) for p in prompts]
        except PromptError as error:  # without this prompt, the rest is tried again (a server's replies are cached)
            if error.prompt_id in refused or len(refused) >= max_refused:
                raise
            refused[error.prompt_id] = str(error)
    return [refused[prompt.problem_id] for prompt in prompts]


def refuse_long(prompt_id: str, size: int, max_tokens: int, context: int, remedy: str) -> None:
    """Raise `PromptError` unless a prompt of `size` tokens and `max_tokens` more fit into the model's context."""
    if max_tokens >= context:
        limit = f"the model's context is {context} tokens for prompt and completion together"
        raise PromptError(f"max_tokens is {max_tokens}, and {limit}: lower max_tokens", prompt_id)
    if (total := size + max_tokens) > context:
        prompt = f"the prompt{prompt_id and f' of {prompt_id}'} has {size} tokens"
        limit = f"with max_tokens {max_tokens} that is {total}, and the model's context is {context}"
        raise PromptError(f"{prompt}; {limit}: lower max_tokens or {remedy}", prompt_id)
