"""The user's own files: whether they can be read, and problems that a recipe trains on and measures by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1kit.data.conversations import conversation, renamed
from r1kit.data.errors import DataError
from r1kit.data.rows import readable_rows
from r1kit.pipeline import External, Stage
from r1kit.stages.rl import RLSettings
from r1kit.stages.shared.given_conversations import GivenSettings
from r1kit.tasks import TaskSpec
from r1kit.tasks.base import iterate
from r1kit.tasks.task_spec import load_task


def overlap_notes(stages: Sequence[Stage], held_out: Sequence[TaskSpec]) -> list[str]:
    """A note for each file whose prompts RL or SFT trains on although they also measure the models.

    Generated samples that overlap are dropped when they are curated; these rows are the user's, and stay. Files that
    cannot be read are left to the stages that read them.
    """
    measured = {spec.name: _prompts(spec, "test") for spec in held_out if spec.source.kind == "file"}
    notes = dict[str, None]()  # a set in order: several stages read the same file
    for name, trained in _trained(stages) if any(measured.values()) else ():
        for other, prompts in measured.items():
            if both := len(trained & prompts):
                notes[
                    f"{both} of the {len(trained)} prompts of {name}, which is trained on, are also in {other}, which "
                    "measures the models: scores say little about new problems, so take them out of one of the two"
                ] = None
    return list(notes)


def read_own_files(stages: Sequence[Stage]) -> None:
    """Raise `DataError` for a file of problems that cannot be used."""
    for stage in stages:
        for spec in getattr(stage.settings, "tasks", ()):
            if spec.source.kind == "file":
                load_task(spec, "test" if stage.kind.name == "evaluate" else "train")


def _trained(stages: Sequence[Stage]) -> Iterator[tuple[str, set[str]]]:
    """Each file that a stage trains on directly, with its prompts."""
    seen: list[Any] = []
    for stage in stages:
        specs = stage.settings.tasks if isinstance(stage.settings, RLSettings) else ()
        for spec in specs:
            if spec.source.kind == "file" and spec not in seen:
                seen.append(spec)
                yield spec.name, _prompts(spec, "train")
        if not isinstance(stage.settings, GivenSettings):
            continue
        given = stage.inputs.items()
        for path in (source.path for name, source in given if name.startswith("data") and isinstance(source, External)):
            if path not in seen:
                seen.append(path)
                yield str(path), _questions(path, stage.settings.columns)


def _prompts(spec: TaskSpec, split: str) -> set[str]:
    try:
        return {_plain(problem.prompt) for problem in iterate(load_task(spec, split))}
    except DataError:
        return set()


def _questions(path: Path, columns: Mapping[str, str]) -> set[str]:
    convert = renamed(conversation, columns) if columns else conversation
    try:
        rows = [convert(row) for row in readable_rows(path)]
    except DataError:
        return set()
    return {_plain(turn.content) for row in rows for turn in row.messages if turn.role == "user"}


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
