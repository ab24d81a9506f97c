"""What a recipe costs before it runs: samples, tokens, memory and hours of each stage on given hardware.

Three bounds decide: the arithmetic of training (6 operations per parameter and token, 2 more for each pass without
gradient), the arithmetic of sampling at large batches, and the longest completion of a rollout, which is sampled token
by token while all others wait. This gives the order of magnitude; benchmarks and training curves give real times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from r1kit.models.known import parameters_in
from r1kit.pipeline import ModelSize, Output, Recipe, Stage, Work
from r1kit.settings import SettingsError, nearest

# Shares of a device's peak. Training: DeepSeek-V3's 14.8T tokens x 37B in 2.788M H800-hours are 33 % of bf16. Sampling:
# its serving gives 14.8k tokens/s on a node of 8, 14 %. A sampling step takes at least STEP_S, beside reading weights.
TRAINING_SHARE, SAMPLING_SHARE, STEP_S = 0.33, 0.14, 0.01
LONGEST = 5  # a rollout's longest completion, in mean lengths
PROMPT_TOKENS = 150  # R1's problems (V2, table 4)
STATE_BYTES = 16  # per parameter in training: weights, gradients and two moments in fp32
GIB = 2**30


@dataclass(frozen=True)
class Hardware:
    """One device: operations and bytes per second at its peak, memory, bytes of a weight in sampling."""

    flops: float
    bandwidth: float
    memory_gib: float
    weight_bytes: int = 2


HARDWARE = {
    "cpu": Hardware(8e10, 1.5e10, 4, weight_bytes=4),  # a core
    "rtx-4090": Hardware(1.65e14, 1.0e12, 24),
    "a100": Hardware(3.12e14, 2.0e12, 80),
    "h100": Hardware(9.89e14, 3.35e12, 80),
    "h800": Hardware(9.89e14, 3.35e12, 80),
    "h200": Hardware(9.89e14, 4.8e12, 141),
}
PLANNED = {
    "deepseek-ai/DeepSeek-V3-Base": ModelSize(671e9, 37e9, 61, 7168, 576),
    "Qwen/Qwen2.5-32B": ModelSize(32.8e9, 32.8e9, 64, 5120, 2048),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Samples that a stage generates or trains on, their tokens, memory per device, hours of wall-clock time."""

    stage: str
    samples: int = 0
    tokens: int = 0
    memory_gib: float = 0.0
    hours: float = 0.0

    def as_text(self) -> dict[str, str]:
        return {
            "samples": _short(self.samples),
            "tokens": _short(self.tokens),
            "GiB": f"{self.memory_gib:.1f}",
            "hours": f"{self.hours:.2f}",
        }


def estimates(recipe: Recipe, hardware: str, devices: int = 1) -> dict[str, Estimate]:
    """An estimate of each stage by name. A sample has the recipe's mean length, or a third of the longest.

    Raises `SettingsError` for unknown hardware and unknown model sizes.
    """
    if hardware not in HARDWARE:
        raise SettingsError(f"there is no hardware {hardware!r}: {nearest(hardware, HARDWARE)}")
    if devices < 1:
        raise SettingsError(f"devices is {devices}: give at least 1")
    estimator = _Estimator(HARDWARE[hardware], devices, recipe.lengths)
    return {stage.name: estimator.estimate(stage) for stage in recipe.stages}


def total(parts: Mapping[str, Estimate]) -> Estimate:
    """The sum of all stages; of the memory, the most."""
    every = parts.values()
    return Estimate(
        stage="all",
        samples=sum(part.samples for part in every),
        tokens=sum(part.tokens for part in every),
        memory_gib=max((part.memory_gib for part in every), default=0.0),
        hours=sum(part.hours for part in every),
    )


def _short(count: float) -> str:
    """`12`, `1.5k`, `3.2M`, `31G`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


class _Estimator:
    """Goes through stages in order and keeps the rows that each leaves for the next."""

    def __init__(self, device: Hardware, devices: int, lengths: Mapping[str, int]) -> None:
        self.device, self.devices, self.lengths = device, devices, lengths
        self.rows: dict[str, int] = {}

    def estimate(self, stage: Stage) -> Estimate:
        rows = sum(self.rows[parent.name] for parent in stage.parents)
        work = Work() if stage.kind.cost is None else stage.kind.cost(stage, rows)
        self.rows[stage.name] = work.rows
        if not work.rollouts and not work.passes:
            return Estimate(stage=stage.name, samples=work.samples)
        # rows are as long as the stage that wrote them made them
        data = [source for name, source in stage.inputs.items() if name.startswith("data")]
        writers = [source.stage.name for source in data if isinstance(source, Output)]
        known = (self.lengths[name] for name in (stage.name, *writers) if name in self.lengths)
        length = work.length if work.length is not None else next(known, max(1, work.max_tokens // 3))
        tokens_trained = work.samples * (length + PROMPT_TOKENS * work.prompts)
        tokens = round(work.samples * length if work.rollouts else tokens_trained)
        if work.model is None and "model" not in stage.inputs:  # the model runs on a server
            return Estimate(stage=stage.name, samples=work.samples, tokens=tokens)
        size = work.model or size_of(stage)
        # Reward models that are inputs score every sample: one forward pass each.
        judges = [source for name, source in stage.inputs.items() if name.startswith("reward/")]
        active = sum(size_of(judge.stage).active for judge in judges if isinstance(judge, Output))
        judged = 2 * active * work.samples * (length + PROMPT_TOKENS)
        operations = work.passes * size.active * tokens_trained + judged
        seconds = operations / self._speed(TRAINING_SHARE)
        if work.rollouts:  # each takes the time of all completions at full batches, or of the longest one alone
            together = 2 * size.active * work.samples / work.rollouts * length / self._speed(SAMPLING_SHARE)
            step = size.active * self.device.weight_bytes / self.device.bandwidth + STEP_S
            seconds += work.rollouts * max(together, min(work.max_tokens, LONGEST * length) * step)
        return Estimate(
            stage=stage.name,
            samples=work.samples,
            tokens=tokens,
            memory_gib=self._memory(size, work, length) / GIB,
            hours=seconds / 3600,
        )

    def _speed(self, share: float) -> float:
        return share * self.device.flops * self.devices

    def _memory(self, size: ModelSize, work: Work, length: int) -> float:
        """Bytes per device: the larger of training state with activations, and weights with cached keys and values.

        Activations of one pass (Korthikanti et al., 2205.05198): 34 per token, layer and width; 2 if recomputed.
        """
        training = sampling = 0.0
        if work.passes:
            activations = work.tokens_per_batch * size.layers * size.width * (2 if work.recomputes else 34)
            training = size.parameters * STATE_BYTES / self.devices + activations
        if work.rollouts:
            cached = work.max_rows * (length + PROMPT_TOKENS) * size.layers * size.cached * self.device.weight_bytes
            sampling = size.parameters * self.device.weight_bytes / self.devices + cached
        return max(training, sampling)


def size_of(stage: Stage) -> ModelSize:
    """The size of the model that a stage trains or samples: that of the model at the start of the chain."""
    work = Work() if stage.kind.cost is None else stage.kind.cost(stage, 0)
    if work.model is not None:
        return work.model
    source = stage.inputs["model"]
    if isinstance(source, Output):
        return size_of(source.stage)
    if source.fetch is not None:
        name = str(source.path)
        if name not in PLANNED:
            known = ", ".join(PLANNED)
            raise SettingsError(f"the size of {name} is unknown until the model is on this machine; known are {known}")
        return PLANNED[name]
    config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    parameters = sum(parameters_in(file) for file in source.path.glob("*.safetensors"))
    heads = config.get("num_attention_heads", 1)
    head_width = config.get("head_dim") or config.get("hidden_size", 0) // heads
    cached = 2 * config.get("num_key_value_heads", heads) * head_width
    return ModelSize(parameters, parameters, config.get("num_hidden_layers", 0), config.get("hidden_size", 0), cached)
