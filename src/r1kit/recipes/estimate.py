"""What a recipe costs before it runs: samples, tokens, memory and hours of each stage on given hardware.

Three bounds decide: the arithmetic of training (6 operations per parameter and token, 2 more for each pass without
gradient), the arithmetic of sampling at large batches, and the longest completion of a rollout, which is sampled token
by token while all others wait. With a device's peak this gives the order of magnitude, and with rates measured here
(`recipes.measure`) the hours. The memory is that of `train.memory`, and what devices send each other that of
`recipes.links`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from r1kit.data.jsonl import lines
from r1kit.models.known import ModelError, config_folder
from r1kit.models.size import size_of_model
from r1kit.pipeline import External, ModelSize, Output, Recipe, Stage, Work
from r1kit.pipeline.sharing import require_row_devices
from r1kit.recipes.hardware import ROW_BYTES, Hardware, Rates, hardware_named
from r1kit.recipes.links import HANDED_BYTES, Layout, Pipeline, Traffic, pipeline_of, traffic_of
from r1kit.recipes.sizing import USABLE
from r1kit.settings import SettingsError
from r1kit.train.memory import GIB, Parts, sampling_parts, sharded, training_parts

LONGEST = 5  # a rollout's longest completion, in mean lengths
PROMPT_TOKENS = 150  # R1's problems (V2, table 4)
ENGINE_SHARE = 0.6  # of a device's memory for the weights of an engine that several devices share
PLANNED = {
    "deepseek-ai/DeepSeek-V3-Base": ModelSize(671e9, 37e9, 61, 7168, 576, 265_000, 129_280, 0, 654e9, 8),
    "Qwen/Qwen2.5-32B": ModelSize(32.8e9, 32.8e9, 64, 5120, 2048, 122_880, 152_064),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Samples that a stage generates or trains on, their tokens, memory per device, hours of wall-clock time.

    `parts` are the gibibytes of the memory by what they hold. `devices` work on the stage, and `engine` of them hold
    one copy of the model that is sampled: more than 1 needs engines that r1kit does not have itself. `traffic` is what
    several devices send each other, and `pipeline` a step of a stage that also samples.
    """

    stage: str
    devices: int = 1
    engine: int = 1
    samples: int = 0
    tokens: int = 0
    memory_gib: float = 0.0
    hours: float = 0.0
    parts: Mapping[str, float] = field(default_factory=dict)
    traffic: Traffic | None = None
    pipeline: Pipeline | None = None

    def as_text(self) -> dict[str, str]:
        return {
            "devices": str(self.devices),
            "samples": _short(self.samples),
            "tokens": _short(self.tokens),
            "GiB": f"{self.memory_gib:.1f}",
            "hours": f"{self.hours:.2f}",
        }


def estimates(
    recipe: Recipe, hardware: str, devices: int | Layout = 1, measured: Mapping[Path, Rates] | None = None
) -> dict[str, Estimate]:
    """An estimate of each stage by name. A sample has the recipe's mean length, or a third of the longest; a row
    that a stage wrote has the length of that stage's samples.

    `devices` share each training stage; other stages have one device, or those of their engines. For a CPU they are
    cores, which all stages use. `measured` are the rates of models on this machine, by their folder. Raises
    `SettingsError` for unknown hardware and unknown model sizes, and for rows that so many devices cannot share.
    """
    layout = devices if isinstance(devices, Layout) else Layout.of(devices)
    for stage in recipe.stages:
        require_row_devices(stage, layout.devices)
    estimator = _Estimator(hardware_named(hardware), layout, recipe.lengths, measured or {})
    return {stage.name: estimator.estimate(stage) for stage in recipe.stages}


def hours_of(recipe: Recipe) -> dict[str, float]:
    """The hours of each stage by name, on as many cores as the recipe has devices: what stages side by side are ordered
    by. Empty if the size of a model is unknown."""
    try:
        return {name: each.hours for name, each in estimates(recipe, "cpu", recipe.devices).items()}
    except SettingsError:
        return {}


def total(parts: Mapping[str, Estimate]) -> Estimate:
    """The sum of all stages; of the memory, the most."""
    every = parts.values()
    return Estimate(
        stage="all",
        devices=max((part.devices for part in every), default=1),
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

    def __init__(
        self, hardware: Hardware, layout: Layout, lengths: Mapping[str, int], measured: Mapping[Path, Rates]
    ) -> None:
        self.hardware, self.layout, self.lengths, self.measured = hardware, layout, lengths, measured
        self.rows: dict[str, int] = {}
        self.row_lengths: dict[str, int] = {}  # mean tokens of the responses in them, if known

    def estimate(self, stage: Stage) -> Estimate:
        source = model_of(stage)
        measured = self.measured.get(source.path) if source is not None else None
        file_rows = rows_given(stage, ROW_BYTES if measured is None else measured.row_bytes)
        rows = sum(self.rows[parent.name] for parent in stage.parents) + file_rows.rows
        work = Work() if stage.kind.cost is None else stage.kind.cost(stage, rows)
        self.rows[stage.name] = work.rows
        if not work.rollouts and not work.passes:
            self._keep_length(stage, work.length or self._length_read(stage.parents))
            return Estimate(stage=stage.name, samples=work.samples)
        length = self._length(stage, work, file_rows, measured)
        if work.rollouts:
            self._keep_length(stage, length)
        prompt = 0 if file_rows.rows else PROMPT_TOKENS  # rows of a file hold their prompts
        tokens_trained = work.samples * (length + prompt * work.prompts)
        tokens = round(work.samples * length if work.rollouts else tokens_trained)
        if source is None and work.model is None:  # the model runs on a server
            return Estimate(stage=stage.name, samples=work.samples, tokens=tokens)
        size = size_of(stage)
        rates = measured or self.hardware.rates(size)  # measured with all cores of this machine
        judges = [_size_at(judge) for name, judge in stage.inputs.items() if name.startswith("reward/")]
        teachers = [_size_at(stage.inputs["teacher"])] if "teacher" in stage.inputs else []
        # reward models that are inputs score every sample: one forward pass each
        judged = 2 * sum(judge.active for judge in judges) * work.samples * (length + PROMPT_TOKENS)
        operations = work.passes * size.active * tokens_trained + judged
        longest = file_rows.longest or work.max_tokens + prompt
        # on a GPU, reward models are there only to score, when training's activations are not
        beside = teachers + (judges if self.hardware.device == "cpu" else [])
        others = sum(4 * other.parameters for other in beside)
        low = self._computes_low(work, size, rates)
        devices, engine, parts = self._memory(stage, size, work, longest, others, low=low)
        gib = {name: count / GIB for name, count in parts.items()}
        counted = 1 if measured else devices  # what was measured took all cores
        seconds = operations / (rates.training * counted)
        traffic = pipeline = None
        if devices > 1 and stage.kind.shards and self.hardware.device == "cuda":
            each, speed, teacher = length + prompt * work.prompts, rates.training, bool(teachers)
            shared = self.layout, self.hardware
            traffic = traffic_of(size, work, each, operations, *shared, training=speed, teacher=teacher, engine=engine)
            # what r1kit runs itself waits for its links; TRAINING_SHARE of larger models was measured with theirs
            seconds += traffic.exposed * traffic.updates if engine == 1 else 0.0
        if work.rollouts:
            together = work.samples * length * rates.token
            alone = work.rollouts * min(work.max_tokens, LONGEST * length) * rates.step
            if traffic is not None:
                sampled, longest_s, trained = (s / work.rollouts for s in (together, alone, seconds * devices))
                pipeline = pipeline_of(sampled, longest_s, trained, traffic, self.layout, engine)
                seconds += work.rollouts * traffic.handing_seconds
            seconds += together / counted + alone
        return Estimate(
            stage=stage.name,
            devices=devices,
            engine=engine,
            samples=work.samples,
            tokens=tokens,
            memory_gib=sum(gib.values()),
            hours=seconds / 3600,
            parts=gib,
            traffic=traffic,
            pipeline=pipeline,
        )

    def _length(self, stage: Stage, work: Work, file_rows: FileRows, measured: Rates | None) -> int:
        """Mean tokens of a sample: of a row of the data file, or of a sample of the stage that wrote the rows."""
        if work.length is not None:
            return work.length
        if file_rows.rows:
            return min(file_rows.length, work.max_tokens)
        assumed = self.lengths.get(stage.name)
        if assumed is None and not work.rollouts:
            data = [source for name, source in stage.inputs.items() if name.startswith("data")]
            assumed = self._length_read([source.stage for source in data if isinstance(source, Output)])
        if assumed is None and work.rollouts and measured is not None and measured.length is not None:
            assumed = round(measured.length)
        return max(1, min(work.max_tokens, assumed)) if assumed is not None else max(1, work.max_tokens // 3)

    def _length_read(self, writers: Iterable[Stage]) -> int | None:
        """Mean length of the rows that stages wrote; None if no length is known."""
        known = [writer.name for writer in writers if writer.name in self.row_lengths and self.rows[writer.name]]
        rows = sum(self.rows[name] for name in known)
        return round(sum(self.rows[name] * self.row_lengths[name] for name in known) / rows) if rows else None

    def _keep_length(self, stage: Stage, length: int | None) -> None:
        length = self.lengths.get(stage.name, length)
        if length is not None:
            self.row_lengths[stage.name] = length

    def _computes_low(self, work: Work, size: ModelSize, rates: Rates) -> bool:
        """Whether linear layers compute in bf16; on a CPU `auto` depends on the processor (`models.compute`)."""
        if work.compute_dtype != "auto":
            return work.compute_dtype == "bf16"
        if self.hardware.device == "cuda" or rates.low is not None:
            return rates.low is not False
        from r1kit.models.compute import SMALL, has_bf16_kernels

        return size.parameters >= SMALL and has_bf16_kernels()

    def _memory(
        self, stage: Stage, size: ModelSize, work: Work, longest: int, others: float, *, low: bool
    ) -> tuple[int, int, Parts]:
        """The devices of a stage, those of one engine, and bytes per device at the peak: of training or of sampling.

        `others` are the bytes of models beside its own.
        """
        device, peaks = self.hardware.device, list[Parts]()
        if work.passes:
            everything = (work.update or work.samples) * longest
            largest = min(max(work.tokens_per_batch, longest), everything)
            batches = 1 if everything <= largest else 2
            peaks.append(training_parts(size, work, largest, device=device, low=low, batches=batches))
        if work.rollouts:
            rows = min(work.max_rows, work.samples // work.rollouts)
            peaks.append(sampling_parts(size, work, rows, longest, device=device, low=low))
        peaks = [{**parts, "other models": others} for parts in peaks]
        if device == "cpu":  # cores share one memory
            return self.layout.devices, 1, _largest(peaks)
        memory = self.hardware.memory_gib * GIB
        shards = stage.kind.shards and self.layout.devices > 1
        devices = self.layout.devices if shards else 1 if stage.kind.shards else getattr(stage.settings, "engines", 1)
        divides = shards and work.shard
        alone = _largest([sharded(parts, size, devices, whole=True) for parts in peaks] if divides else peaks)
        weights, engine = HANDED_BYTES * size.parameters, 1
        while weights / engine > ENGINE_SHARE * memory:
            engine *= 2
        is_last = engine == 1 or (stage.kind.shards and engine > devices) or (shards and not divides)
        if is_last or sum(alone.values()) <= USABLE * memory:  # `remarks` say what is too much
            return devices, 1, alone
        # in sampling, an engine's devices share the weights and the cache of its rows
        parts_of_engine = {"engine": weights / engine, "cache": sum(p.get("cache", 0.0) for p in peaks) / engine}
        if not stage.kind.shards:
            return devices * engine, engine, {"process": peaks[0]["process"], **parts_of_engine}
        apart = [sharded(parts, size, devices, whole=False) for parts in peaks]
        return devices, engine, _largest({**p, **parts_of_engine} if "cache" in p else p for p in apart)


def _largest(peaks: Iterable[Parts]) -> Parts:
    return max(peaks, key=lambda parts: sum(parts.values()))


@dataclass(frozen=True)
class FileRows:
    """The rows of a stage's data files, and the mean and longest row in tokens."""

    rows: int = 0
    length: int = 0
    longest: int = 0


def rows_given(stage: Stage, row_bytes: float) -> FileRows:
    """The rows of the stage's inputs `data...` that are JSONL files of the user's own."""
    sizes = [size for path in files_given(stage) for size in _row_sizes(path, path.stat().st_mtime_ns)]
    if not sizes:
        return FileRows()
    mean = sum(sizes) / len(sizes) / row_bytes
    return FileRows(len(sizes), max(1, round(mean)), round(max(sizes) / row_bytes))


def files_given(stage: Stage) -> list[Path]:
    """The stage's inputs `data...` that are JSONL files and that no stage writes."""
    return [
        source.path
        for name, source in stage.inputs.items()
        if name.startswith("data") and isinstance(source, External) and source.path.suffix == ".jsonl"
    ]


@cache
def _row_sizes(path: Path, changed: int) -> tuple[int, ...]:
    """Bytes of each row of a file. `changed`, its time, keeps the cache fresh."""
    return tuple(line.length for line in lines(path))


def model_of(stage: Stage) -> External | None:
    """The model at the start of the chain that a stage trains or samples; None if it has no input `model`."""
    source = stage.inputs.get("model")
    return model_of(source.stage) if isinstance(source, Output) else source


def size_of(stage: Stage) -> ModelSize:
    """The size of the model that a stage trains or samples: that of the model at the start of the chain."""
    work = Work() if stage.kind.cost is None else stage.kind.cost(stage, 0)
    if work.model is not None:
        return work.model
    return _size_at(stage.inputs["model"])


def _size_at(source: Output | External) -> ModelSize:
    return size_of(source.stage) if isinstance(source, Output) else size_of_source(source)


def size_of_source(source: External) -> ModelSize:
    """The size of a model by its folder or name. Raises `SettingsError` if neither weights nor config can be read."""
    name = str(source.path)
    if source.fetch is not None and name in PLANNED:
        return PLANNED[name]
    try:
        return _size_in(config_folder(name))
    except ModelError as error:
        known = ", ".join(PLANNED)
        raise SettingsError(
            f"the size of {name} is unknown: {error}; give a folder with its config.json, or one of {known}"
        ) from error


_size_in = cache(size_of_model)
