"""The record of a model in its run's folder: the stages it went through, their data, and how it was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.evaluate.statistics import Summary
from r1kit.models import adapters
from r1kit.models.known import KNOWN as KNOWN_MODELS
from r1kit.report.folders import StageFolder, stage_name
from r1kit.store import read_json
from r1kit.tasks import KNOWN
from r1kit.tasks.public_files import FILES

MEASURING = ("evaluate", "report")  # kinds of stages whose data a model never sees
_WEIGHTS_FORBIDDEN = re.compile(r"-NC\b|replies: ")  # non-commercial, or text of a model whose terms forbid it
_NO_DATA = re.compile(r"(model|code|task|outline|teacher|reference)(/|$)")  # inputs that are no files of rows


@dataclass(frozen=True)
class DataSet:
    """Data that a model was trained on. `hub` is empty for data that is not on the hub."""

    name: str
    licence: str
    hub: str = ""

    @property
    def forbids_release(self) -> bool:
        """Whether its licence forbids to release weights that were trained on it, or allows some uses only."""
        return _WEIGHTS_FORBIDDEN.search(self.licence) is not None


@dataclass(frozen=True)
class Lineage:
    """`stages` in the order in which they were run; `measured` holds tables by the names of their problems, with one
    summary for each model. All is empty for a model that is not in a run's folder."""

    base: str
    stages: tuple[StageFolder, ...] = ()
    data: tuple[DataSet, ...] = ()
    measured: Mapping[str, Mapping[str, Summary]] | None = None


def lineage_of(model: str, folder: Path) -> Lineage:
    """The record of the model in `folder`, whose name is `model`."""
    own = folder.parent
    if not (own / "manifest.json").is_file():
        base = adapters.base_name(folder) if adapters.is_adapter(folder) else model
        place = Path(base).expanduser()
        if place.is_absolute() or place.is_dir():  # "mine/small" is no repository of somebody's hub account
            return Lineage(public_name(place.resolve()))
        return Lineage(base if "/" in base else public_name(folder))
    stages: dict[Path, StageFolder] = {}
    bases: list[Path] = []
    _collect(own.resolve(), stages, bases)
    steps = tuple(stage for stage in stages.values() if stage.kind not in MEASURING)
    models = {stage.folder / "model": stage.name for stage in steps} | dict.fromkeys(bases[:1], "base")
    models[own.resolve() / "model"] = "this model"
    data = {item.name: item for stage in steps for item in data_of(stage)}
    return Lineage(
        base=public_name(bases[0]) if bases else "none: it was pre-trained here",
        stages=steps,
        data=tuple(data.values()),
        measured=_measured(own.parent, models),
    )


def _collect(folder: Path, stages: dict[Path, StageFolder], bases: list[Path]) -> None:
    """All stages that a stage reads, directly or not, before the stage itself; models from outside are `bases`."""
    stage = StageFolder(stage_name(folder), folder)
    inputs = stage.manifest.get("inputs", {})
    for name, entry in sorted(inputs.items(), key=lambda item: item[0] != "model"):
        source = (folder / entry["path"]).resolve()
        if (parent := source.parent) != folder and (parent / "manifest.json").is_file():
            if parent not in stages:
                _collect(parent, stages, bases)
        elif name == "model":
            bases.append(source)
    stages[folder] = stage


def public_name(folder: Path) -> str:
    """A model's name without a path of this machine: a known name, a hub id, or the folder's own name."""
    if folder.parent.name == "snapshots":  # models--owner--name/snapshots/commit
        return folder.parts[-3].removeprefix("models--").replace("--", "/")
    known = (name for name, model in KNOWN_MODELS.items() if model.place.resolve() == folder.resolve())
    return next(known, folder.name)


def data_of(stage: StageFolder) -> Iterator[DataSet]:
    """The data that a stage reads from outside its run."""
    for task in stage.settings.get("tasks") or ():
        yield known_data(str(task["name"]))
    for name, entry in stage.manifest.get("inputs", {}).items():
        path = (stage.folder / entry["path"]).resolve()
        if not _NO_DATA.match(name) and path.is_relative_to(stage.folder.parent.resolve()) is False:
            yield known_data(str(path))


def known_data(name: str) -> DataSet:
    """A data set by its name in r1kit, or by its file, of which only the last part is kept."""
    plain = name.removeprefix("r1kit.tasks.").partition(":")[0]
    for file in FILES.values():
        if file.name == plain or re.search(rf"(^|/){re.escape(file.local)}\.", name) or Path(name).stem == file.name:
            return DataSet(file.name, file.licence, file.hub)
    if plain in KNOWN:
        return DataSet(plain, KNOWN[plain].licence, KNOWN[plain].hub)
    if plain.startswith("tiny"):
        return DataSet(plain, "Apache-2.0, generated by r1kit")
    return DataSet(Path(name).name, "not known to r1kit: state it")


def _measured(run: Path, models: Mapping[Path, str]) -> dict[str, dict[str, Summary]]:
    """The evaluations in a run's folder of the models named, by their problems."""
    tables: dict[str, dict[str, Summary]] = {}
    for manifest in sorted(run.glob("*/manifest.json"), key=lambda file: str(read_json(file).get("started"))):
        stage = StageFolder(stage_name(manifest.parent), manifest.parent)
        if stage.kind != "evaluate" or "model" not in stage.manifest.get("inputs", {}):
            continue
        title = models.get((stage.folder / stage.manifest["inputs"]["model"]["path"]).resolve())
        if title is not None and stage.summary is not None:
            problems = ", ".join(known_data(str(task["name"])).name for task in stage.settings.get("tasks", []))
            tables.setdefault(problems, {})[title] = stage.summary
    return tables


def settings_of_interest(stage: StageFolder) -> dict[str, Any]:
    """The settings of a stage that a reader of a model card asks for. A list of names: no other setting, which may be
    an address or the name of a key, is ever published."""
    settings, optimizer = stage.settings, stage.settings.get("optimizer") or {}
    algorithm = stage.settings.get("algorithm") or {}
    values = {name: settings[name] for name in _PUBLISHED if settings.get(name) not in (None, 0, "")}
    values |= {name: optimizer[name] for name in ("learning_rate", "schedule") if name in optimizer}
    values |= {name: algorithm[name] for name in ("loss", "baseline", "kl_coef") if algorithm.get(name)}
    if rewards := [item["name"].rpartition(".")[2] for item in settings.get("rewards") or ()]:
        values["rewards"] = " + ".join(rewards)
    return values


_PUBLISHED = (
    *("steps", "epochs", "prompts_per_step", "group_size", "max_tokens", "temperature", "tokens_per_batch"),
    *("lora_rank", "lora_alpha", "seed"),
)
