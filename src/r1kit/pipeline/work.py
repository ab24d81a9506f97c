"""How much a stage has to do, in numbers that an estimate can turn into memory and hours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters in total and per token, layers, width, and cached values per token and layer."""

    parameters: float
    active: float
    layers: int
    width: int
    cached: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of one stage.

    rows: left for the stages that read this one.
    samples: completions that are sampled, or rows that are trained on, over the whole stage.
    length: mean tokens of a sample, if the kind knows it; otherwise it is estimated from max_tokens, the longest.
    rollouts: how often the stage samples. Each rollout takes at least as long as its longest completion.
    max_rows: completions that are sampled at once.
    passes: operations per parameter and trained token, such as 6 for forward and backward; 0 trains nothing.
    prompts: prompts per trained sample; completions of a group share theirs.
    tokens_per_batch, recomputes: what decides the memory of activations.
    model: the size of the model that the stage makes from nothing; otherwise that of its input `model` counts.
    """

    rows: int = 0
    samples: int = 0
    length: int | None = None
    max_tokens: int = 0
    rollouts: int = 0
    max_rows: int = 0
    passes: int = 0
    prompts: float = 1.0
    tokens_per_batch: int = 0
    recomputes: bool = False
    model: ModelSize | None = None
