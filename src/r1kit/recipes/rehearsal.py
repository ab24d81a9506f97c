"""Rehearsals: every stage of a run at its smallest sizes, on a small random model of the same architecture."""

from __future__ import annotations

from typing import Any, TypeVar

from r1kit.pipeline import External
from r1kit.recipes.scale import Scale, Sizes
from r1kit.settings import Settings
from r1kit.tasks import TaskSpec

S = TypeVar("S", bound=Settings)
REHEARSED = (
    "this is a rehearsal: a small random model that has learned a few answers by heart walks through every stage, and "
    "its numbers mean nothing"
)
PROBLEMS = 8  # the first of every set: those that the model has learned
# The largest values in a rehearsal; smaller ones stay.
LARGEST: dict[str, int] = {
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 4,
    "minibatches": 1,
    "samples": 2,
    "max_tokens": 160,
    "epochs": 1,
    "batch_size": 8,
    "rows": 64,
    "size": 24,
    "max_rows": 64,
    "lora_rank": 4,
    "sequence_devices": 1,  # the model has few heads
}
TEMPERATURE = 0.3  # the highest for samples that become data, so that answers learned by heart come out right
WHOLE_ROWS = ("sft", "rehearse", "distill", "reward-model")  # kinds whose max_tokens is that of a row of data


def smallest(kind: str, settings: S) -> S:
    """The settings of a stage, cut down. Learning by heart keeps its epochs.

    No right sample is too poor to be kept, and of few rows enough are held out.
    """
    changes: dict[str, Any] = {}
    kept = [("rehearse", "epochs"), *((each, "max_tokens") for each in WHOLE_ROWS)]
    for name, largest in LARGEST.items():
        value = getattr(settings, name, None)
        if isinstance(value, int) and value > largest and (kind, name) not in kept:
            changes[name] = largest
    if kind == "generate" and getattr(settings, "temperature", 0.0) > TEMPERATURE:
        changes["temperature"] = TEMPERATURE
    for name in ("tasks", "evaluation_sets"):
        if specs := getattr(settings, name, ()):
            changes[name] = tuple(first_problems(spec) for spec in specs)
    if (curate := getattr(settings, "curate", None)) is not None and curate.quality is not None:
        changes["curate"] = curate.replace(quality=curate.quality.replace(accept=0.0))
    if getattr(settings, "servers", None) is not None:  # they have the model that is not rehearsed
        changes["servers"] = None
    if getattr(settings, "validation_share", 0.0):
        changes["validation_share"] = 0.3
    if (probe := getattr(settings, "probe", None)) is not None and probe.tasks:
        changes["probe"] = smallest("probe", probe)
    return settings.replace(**changes)


def first_problems(spec: TaskSpec) -> TaskSpec:
    """The first problems of a set, the same ones in every stage."""
    plain = TaskSpec.model_fields["order"].default
    return spec.replace(limit=min(PROBLEMS, spec.limit or PROBLEMS), order=plain, seed=0)


def rehearsal_sizes(scale: Scale) -> Sizes:
    """The problems that a rehearsal's model learns, in the format of RL's prompts."""
    zero = scale.zero
    chat = {"chat": zero["chat"]} if "chat" in zero else {}
    return Sizes(tasks=zero["tasks"], **chat)


def outline_inputs(name: str) -> dict[str, External]:
    """The files of a model's configuration and tokenizer."""
    from r1kit.models.facts import outline_folder

    files = sorted(
        path for path in outline_folder(name).iterdir() if path.suffix in (".json", ".model", ".txt", ".jinja")
    )
    return {f"outline/{path.name}": External(path) for path in files if not path.name.endswith(".index.json")}
