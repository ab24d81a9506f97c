"""What stages of several kinds cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from r1kit.data.errors import DataError
from r1kit.pipeline import Stage, Work
from r1kit.tasks import TaskSpec, iterate, load_task, load_tasks
from r1kit.tasks.task_spec import GENERATED
from r1kit.tiny import everyday

COUNTED_BYTES = 1 << 22  # of a file whose problems are counted, which takes two or three seconds then
LOOKED_AT = 100  # problems of a task whose solutions tell the length of all


def problem_count(tasks: Sequence[TaskSpec], split: str = "train") -> int:
    """Problems of all tasks; a public set or a large file without a limit counts as a round number."""
    counts = {f"tiny/{name}": len(everyday.request_problems(name, "test")) for name in everyday.NAMES}
    in_files = [_in_file(spec, split) for spec in tasks]
    return sum(
        (spec.limit or counts.get(spec.name, GENERATED)) if own is None else own
        for spec, own in zip(tasks, in_files, strict=True)
    )


def _in_file(spec: TaskSpec, split: str) -> int | None:
    """The problems of a file of the user's own; None for other tasks and for a file that is large or unreadable."""
    path = Path(spec.name).expanduser()
    if spec.source.kind != "file" or not path.is_file() or path.stat().st_size > COUNTED_BYTES:
        return None
    return _counted(spec.model_dump_json(), split, path.stat().st_mtime_ns)


@cache
def _counted(spec: str, split: str, changed: int) -> int | None:
    """`changed`, the time of the file, keeps the cache fresh."""
    try:
        return len(load_task(TaskSpec.model_validate_json(spec), split))
    except DataError:  # `plan` estimates here; the stage itself refuses the file and says why
        return None


def rows_unchanged(stage: Stage, rows: int) -> Work:
    """The work of a stage that passes its rows on."""
    return Work(rows=rows, samples=rows)


def worked_length(tasks: Sequence[TaskSpec]) -> int | None:
    """Mean tokens of the tasks' worked solutions, at four characters each; None if a set is not on this machine."""
    if not all(spec.source.files(spec) for spec in tasks):
        return None
    characters = 0.0
    for spec in tasks:
        first = load_tasks([spec.replace(limit=min(spec.limit or LOOKED_AT, LOOKED_AT))], training=True)
        sizes = [len(problem.solution) for problem in iterate(first)]
        characters += problem_count([spec]) * sum(sizes) / len(sizes)
    return round(characters / 4 / problem_count(tasks)) if tasks else None


def sampling_work(stage: Stage, kept_share: float = 0.0) -> Work:
    """The work of sampling all completions of the stage's tasks once, of which a share is left as rows."""
    settings: Any = stage.settings
    split = "test" if stage.kind.name == "evaluate" else "train"
    samples = problem_count(settings.tasks, split) * settings.samples
    rows, tokens = round(samples * kept_share), settings.max_tokens
    return Work(rows=rows, samples=samples, max_tokens=tokens, rollouts=1, max_rows=settings.max_rows)


def training_work(stage: Stage, rows: int) -> Work:
    """The work of training on rows for some epochs; a teacher adds a forward pass."""
    settings: Any = stage.settings
    return Work(
        samples=rows * settings.epochs,
        max_tokens=min(settings.max_tokens or 512, 8192),
        passes=8 if "teacher" in stage.inputs else 6,
        update=settings.batch_size,
        head=stage.kind.name != "reward-model",
        **memory_of(settings),
    )


def memory_of(settings: Any) -> dict[str, Any]:
    """The settings of a training stage that decide its memory, in the words of `Work`."""
    return {
        "tokens_per_batch": settings.tokens_per_batch,
        "recomputes": settings.activation_checkpointing,
        "sequence_devices": settings.sequence_devices,
        "shard": settings.shard,
        "weights_dtype": settings.weights_dtype,
        "optimizer": settings.optimizer.kind,
        "compute_dtype": getattr(settings, "compute_dtype", "auto"),
        "lora_rank": getattr(settings, "lora_rank", 0),
    }
