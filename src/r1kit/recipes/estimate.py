"""What a recipe costs before it runs: samples, tokens, memory and hours of each stage on given hardware.

Three bounds decide: the arithmetic of training (6 operations per parameter and token, 2 more for each pass without
gradient), the arithmetic of sampling at large batches, and the longest completion of a rollout, which is written token
by token while all others wait. `benchmarks` and training curves give real times; this gives the order of magnitude.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.curate.mixing import MixSettings
from r1kit.models.known import parameters_in
from r1kit.pipeline import External, Output, Recipe, Stage
from r1kit.recipes.r1_scales import r1_scales
from r1kit.settings import SettingsError
from r1kit.stages.data_requests import DataRequestsSettings
from r1kit.stages.evaluate import EvaluateSettings
from r1kit.stages.generate import GenerateSettings
from r1kit.stages.pretrain import PretrainSettings
from r1kit.stages.rl import RLSettings
from r1kit.stages.tiny_requests import TinyRequestsSettings
from r1kit.tasks import TaskSpec
from r1kit.tasks.spec import GENERATED
from r1kit.tiny import everyday
from r1kit.train.supervised import TrainingSettings

# Shares of a device's peak. Training: DeepSeek-V3's 14.8T tokens x 37B in 2.788M H800-hours are 33 % of bf16. Sampling:
# its serving gives 14.8k tokens/s on a node of 8, 14 %. A step of one token costs at least LATENCY beside the weights.
TRAINING, SAMPLING, LATENCY = 0.33, 0.14, 0.01
LONGEST = 5  # a rollout's longest completion, in mean lengths
PROMPT = 150  # tokens, R1's problems (V2, table 4)
KEPT = 0.25  # of samples, by filters
STATE = 16  # bytes per parameter in training: weights, gradients and two moments in fp32
GIB = 2**30
PRETRAINED = 137  # tokens of a document of the tiny world


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


@dataclass(frozen=True)
class Size:
    """A model: parameters in all and per token, layers, width, and cached values per token and layer."""

    parameters: float
    active: float
    layers: int
    width: int
    cached: int


PLANNED = {
    "deepseek-ai/DeepSeek-V3-Base": Size(671e9, 37e9, 61, 7168, 576),
    "Qwen/Qwen2.5-32B": Size(32.8e9, 32.8e9, 64, 5120, 2048),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Of one stage: samples it makes or trains on, their tokens, memory of each device, hours by the clock."""

    stage: str
    samples: int = 0
    tokens: int = 0
    memory_gib: float = 0.0
    hours: float = 0.0


def estimates(
    recipe: Recipe, hardware: str, devices: int = 1, lengths: Mapping[str, int] | None = None
) -> dict[str, Estimate]:
    """An estimate of each stage by name. `lengths` are tokens per sample by stage, a third of the longest without.

    Raises `SettingsError` for hardware that is not known.
    """
    if hardware not in HARDWARE:
        raise SettingsError(f"there is no hardware {hardware!r}: give one of {', '.join(HARDWARE)}")
    if devices < 1:
        raise SettingsError(f"devices is {devices}: give at least 1")
    work = _Work(HARDWARE[hardware], devices, lengths or {})
    return {stage.name: work.estimate(stage) for stage in recipe.stages}


def lengths_of(recipe: Recipe) -> Mapping[str, int]:
    """What the scale, with which a recipe's name ends, knows of lengths by stage; R1-Zero's RL is R1's stage `zero`."""
    scale = r1_scales().get(recipe.name.rpartition("-")[2])
    if scale is None or "zero" not in scale.lengths:
        return {}
    return {**scale.lengths, "rl": scale.lengths["zero"]}


def rows(recipe: Recipe, hardware: str, devices: int, lengths: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """The estimates as text, by stage, and their sum under an empty name."""
    found = estimates(recipe, hardware, devices, lengths)
    told = {name: _told(one.samples, one.tokens, one.memory_gib, one.hours) for name, one in found.items()}
    every = found.values()
    most = max((one.memory_gib for one in every), default=0.0)
    total = sum(one.samples for one in every), sum(one.tokens for one in every), most, sum(one.hours for one in every)
    return told | {"": _told(*total)}


def _told(samples: int, tokens: int, memory: float, hours: float) -> dict[str, str]:
    return {"samples": _short(samples), "tokens": _short(tokens), "GiB": f"{memory:.1f}", "hours": f"{hours:.2f}"}


def _short(count: float) -> str:
    """`12`, `1.5k`, `3.2M`, `31G`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


class _Work:
    """Goes through stages in order; `rows` are what those before left."""

    def __init__(self, device: Hardware, devices: int, lengths: Mapping[str, int]) -> None:
        self.device, self.devices, self.lengths = device, devices, lengths
        self.rows: dict[str, int] = {}

    def estimate(self, stage: Stage) -> Estimate:
        settings: Any = stage.settings
        self.rows[stage.name] = self._rows(stage)
        if isinstance(settings, RLSettings):
            return self._rl(stage, settings)
        if isinstance(settings, GenerateSettings | EvaluateSettings):
            return self._sampled(stage, settings)
        if isinstance(settings, TrainingSettings):
            return self._trained(stage, settings)
        if isinstance(settings, PretrainSettings):
            samples = settings.steps * settings.documents_per_step
            return self._training(stage, samples, samples * PRETRAINED, 6)
        return Estimate(stage=stage.name, samples=self.rows[stage.name])

    def _rows(self, stage: Stage) -> int:
        """How many rows a stage leaves for others."""
        settings: Any = stage.settings
        given = sum(self.rows[parent.name] for parent in stage.parents if parent.name in self.rows)
        if isinstance(settings, GenerateSettings):
            if settings.prompting == "reference":
                return given + _asked(settings.tasks)
            return round(_asked(settings.tasks) * settings.samples * KEPT)
        if isinstance(settings, MixSettings):
            return settings.size or given
        if isinstance(settings, DataRequestsSettings):
            return settings.rows
        if isinstance(settings, TinyRequestsSettings):
            return settings.rows or sum(1 for _ in everyday.replies())
        return given if stage.kind.name in ("review", "preferences") else 0

    def _rl(self, stage: Stage, settings: RLSettings) -> Estimate:
        each = settings.prompts_per_step * settings.group_size
        length = self._length(stage, settings.max_tokens)
        size, samples = size_of(stage), settings.steps * each
        sampling = settings.steps * self._rollout(size, each, length, settings.max_tokens)
        passes = 6 * settings.epochs + 2 * (bool(settings.algorithm.kl_coef) + settings.recompute_old_logprobs)
        trained = samples * (length + PROMPT / settings.group_size)
        judges = sum(
            2 * size_of(source.stage).active * samples * (length + PROMPT)
            for name, source in stage.inputs.items()
            if name.startswith("reward/") and isinstance(source, Output)
        )
        seconds = sampling + (passes * size.active * trained + judges) / self._speed(TRAINING)
        memory = max(self._state(size, settings), self._cache(size, settings.max_rows, length))
        return _of(stage, samples, samples * length, memory, seconds)

    def _sampled(self, stage: Stage, settings: GenerateSettings | EvaluateSettings) -> Estimate:
        if isinstance(settings, GenerateSettings) and settings.prompting == "reference":
            return Estimate(stage=stage.name, samples=self.rows[stage.name])
        length, samples = self._length(stage, settings.max_tokens), _asked(settings.tasks) * settings.samples
        if "model" not in stage.inputs:  # a model behind a server
            return Estimate(stage=stage.name, samples=samples, tokens=samples * length)
        size = size_of(stage)
        seconds = self._rollout(size, samples, length, settings.max_tokens)
        return _of(stage, samples, samples * length, self._cache(size, settings.max_rows, length), seconds)

    def _trained(self, stage: Stage, settings: TrainingSettings) -> Estimate:
        given = [
            source.stage
            for name, source in stage.inputs.items()
            if name.startswith("data") and isinstance(source, Output)
        ]
        rows = sum(self.rows[one.name] for one in given)
        known = next((self.lengths[one.name] for one in given if one.name in self.lengths), None)
        length = self.lengths.get(stage.name) or known or self._length(stage, min(settings.max_tokens or 512, 8192))
        passes = 8 if "teacher" in stage.inputs else 6
        samples = rows * settings.epochs
        return self._training(stage, samples, samples * (length + PROMPT), passes)

    def _training(self, stage: Stage, samples: int, tokens: int, passes: int) -> Estimate:
        size = size_of(stage)
        seconds = passes * size.active * tokens / self._speed(TRAINING)
        return _of(stage, samples, tokens, self._state(size, stage.settings), seconds)

    def _length(self, stage: Stage, longest: int) -> int:
        return self.lengths.get(stage.name) or max(1, longest // 3)

    def _speed(self, share: float) -> float:
        return share * self.device.flops * self.devices

    def _rollout(self, size: Size, samples: int, length: int, longest: int) -> float:
        """Seconds of writing `samples` completions: all of them at full batches, or the longest one alone."""
        together = 2 * size.active * samples * length / self._speed(SAMPLING)
        each = size.active * self.device.weight_bytes / self.device.bandwidth + LATENCY
        return max(together, min(longest, LONGEST * length) * each)

    def _state(self, size: Size, settings: Any) -> float:
        """Bytes on each device in training: sharded weights and moments, activations of one pass (Korthikanti et al.,
        2205.05198: 34 per token, layer and width; 2 where they are computed again)."""
        each = 2 if getattr(settings, "activation_checkpointing", False) else 34
        batch: int = settings.tokens_per_batch
        return size.parameters * STATE / self.devices + batch * size.layers * size.width * each

    def _cache(self, size: Size, rows: int, length: int) -> float:
        """Bytes on each device in sampling: weights and cached keys and values."""
        cached = rows * (length + PROMPT) * size.layers * size.cached * self.device.weight_bytes
        return size.parameters * self.device.weight_bytes / self.devices + cached


def _of(stage: Stage, samples: int, tokens: float, memory: float, seconds: float) -> Estimate:
    return Estimate(
        stage=stage.name, samples=samples, tokens=round(tokens), memory_gib=memory / GIB, hours=seconds / 3600
    )


def _asked(tasks: tuple[TaskSpec, ...]) -> int:
    return sum(spec.limit or _whole(spec.name.removeprefix("tiny/")) for spec in tasks)


def _whole(name: str) -> int:
    """How much a task without a limit asks; of public sets a round number."""
    return len(everyday.problems(name, "test")) if name in everyday.NAMES else GENERATED


def size_of(stage: Stage) -> Size:
    """The size of the model that a stage works on: that of the one it starts from."""
    if isinstance(stage.settings, PretrainSettings):
        return _made(stage.settings)
    source = stage.inputs["model"]
    return size_of(source.stage) if isinstance(source, Output) else _external(source)


def _made(settings: PretrainSettings) -> Size:
    parameters = settings.layers * 12 * settings.width**2
    return Size(parameters, parameters, settings.layers, settings.width, 2 * settings.width)


def _external(source: External) -> Size:
    if source.fetch is not None:
        if str(source.path) not in PLANNED:
            raise SettingsError(f"the size of {source.path} is not known: known are {', '.join(PLANNED)}")
        return PLANNED[str(source.path)]
    config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    parameters = sum(parameters_in(file) for file in Path(source.path).glob("*.safetensors"))
    heads = config.get("num_attention_heads", 1)
    head = config.get("head_dim") or config.get("hidden_size", 0) // heads
    cached = 2 * config.get("num_key_value_heads", heads) * head
    return Size(parameters, parameters, config.get("num_hidden_layers", 0), config.get("hidden_size", 0), cached)
