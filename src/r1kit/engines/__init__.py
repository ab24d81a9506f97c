"""Engines turn prompts into completions: `local` samples with the learner's own tensors, `openai` asks a server, and
`remote` has servers that take the weights of a policy in training.

`engine_settings.EngineSettings` describes each kind, also an engine of your own; `opening` opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from r1kit.types import Completion, Prompt, SamplingParams

Report = Callable[[int, int], None]  # (completions done, completions in total)


class EngineError(ValueError):
    """The engine cannot produce the completions; the message says why and how to fix it."""


class PromptError(EngineError):
    """One prompt cannot be answered (too long, refused), while others could be. `prompt_id` names it."""

    def __init__(self, message: str, prompt_id: str) -> None:
        super().__init__(message)
        self.prompt_id = prompt_id


class Engine(Protocol):
    """Samples `params.n` completions for each prompt; the results are in the order of the prompts."""

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]: ...


class PolicyEngine(Engine, Protocol):
    """An engine that samples from a policy in training: it takes token ids, and its weights can be replaced."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def context(self) -> int:
        """The longest sequence in tokens, prompt and completion together."""
        ...

    @property
    def dtype(self) -> str:
        """The type in which it multiplies matrices, such as float32: its rounding shows in log-probs."""
        ...

    def load_weights(self, named_tensors: Iterable[tuple[str, Any]], version: int) -> None:
        """Sample from these weights from now on, and mark completions with `policy_version=version`.

        Names are those of the saved model; LoRA adapters are merged into the weights (`models.load.named_weights`).
        """
        ...


@runtime_checkable  # judges ask with isinstance whether an engine can do this
class StructuredEngine(Engine, Protocol):
    """An engine that can constrain its answers to a JSON schema."""

    def structured(self, schema: Mapping[str, Any]) -> Self: ...


def require_all(answers: Sequence[Sequence[Completion]], prompts: Sequence[Prompt], n: int) -> None:
    """Raise `EngineError` unless each prompt got its `n` completions.

    Otherwise groups would mix, and a measure would leave out the problems that an engine drops.
    """
    if len(answers) != len(prompts):
        raise EngineError(f"the engine answered {len(answers)} of {len(prompts)} prompts: each needs a list of its own")
    for prompt, completions in zip(prompts, answers, strict=True):
        if len(completions) != n:
            raise EngineError(
                f"the engine gave {len(completions)} completions for prompt {prompt.problem_id}, expected {n}: an "
                "engine must retry what it aborts"
            )
