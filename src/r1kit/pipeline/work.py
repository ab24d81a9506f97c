"""How much a stage has to do, in numbers that an estimate can turn into memory and hours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelSize:
    """A causal language model in numbers.

    parameters, active: weights in total, and those that a token goes through: of routed experts only the chosen ones.
    layers, width: of the residual stream.
    cached: values of keys and values that sampling keeps per token and layer.
    inner: values per token and layer, beside the residual stream, that training keeps for the backward pass.
    vocabulary: rows of the head.
    sides: inputs and outputs of all linear layers; LoRA of rank r adds r times as many weights.
    routed, chosen: weights of routed experts among the parameters, and how many of them a token goes through per layer.
    choices: experts that a token goes through, over all layers.
    """

    parameters: float
    active: float
    layers: int
    width: int
    cached: int
    inner: int = 0
    vocabulary: int = 0
    sides: int = 0
    routed: float = 0
    chosen: int = 0
    choices: int = 0


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
    tokens_per_batch: packed tokens per forward pass. update: samples per update, whose tokens may be fewer.
    head: whether training goes through the vocabulary's head; a classifier has none.
    recomputes, weights_dtype, optimizer, lora_rank, compute_dtype: the settings that decide the memory of training.
    reference: whether a second copy of the model is there; idles_off: whether it leaves the device while it idles.
    sequence_devices: how many devices share the tokens of a batch. shard: whether devices divide the weights.
    routing: whether the experts of each sampled token are kept for training.
    teachers: models of about the model's size that stay beside it.
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
    update: int = 0
    head: bool = True
    recomputes: bool = False
    weights_dtype: str = "fp32"
    optimizer: str = "adamw"
    lora_rank: int = 0
    compute_dtype: str = "auto"
    reference: bool = False
    routing: bool = False
    teachers: int = 0
    idles_off: bool = False
    sequence_devices: int = 1
    shard: bool = True
    model: ModelSize | None = None
