"""The graph of a recipe: stages and their inputs.

Stages refer to each other as objects: `Stage("eval", EVALUATE, settings, {"model": rl / "model"})`. Nothing runs here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from r1kit.pipeline.context import Context
from r1kit.pipeline.work import Work
from r1kit.settings import Settings

NAME = re.compile(r"[a-z0-9]+([-_.][a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of work, such as "rl" or "sft". Everything that others need to know about it is here.

    `run` does the work and returns the metrics for the manifest. Raise `version` when the same settings begin to mean
    another result: finished folders of the old version are then ignored. `check` raises ValueError for bad input; it
    runs before any stage works, if the stage's inputs exist by then.

    `sources` lists the files behind settings (data, code), which become inputs, so that a change redoes the stage.
    `curves` and `funnel` say that the report shows the stage's metrics.jsonl or funnel.json. `cost` is the work of a
    stage, from the number of rows that its inputs hold, for estimates. `shards` says that several devices can share
    the work: `run` is then called in a process for each, with `r1kit.ranks`. `on_device` says whether a stage computes
    on a device such as a GPU; without it, one does whose settings have a `device`.
    """

    name: str
    run: Callable[[Context], Mapping[str, Any]]
    settings: type[Settings]
    version: int = 1
    check: Callable[[Context], object] | None = None
    sources: Callable[[Any], Mapping[str, External]] | None = None
    curves: bool = False
    funnel: bool = False
    cost: Callable[[Any, int], Work] | None = None
    shards: bool = False
    on_device: Callable[[Any], bool] | None = None


@dataclass(frozen=True, slots=True)
class External:
    """A file or folder that no stage writes. Its content counts in fingerprints.

    If it is not on this machine yet, `path` is its name, and `fetch` gets it and returns its real path. A `mark` is a
    fact about its use that counts in fingerprints beside its content.
    """

    path: Path
    fetch: Callable[[], Path] | None = field(default=None, compare=False)
    mark: str = ""

    @classmethod
    def planned(cls, name: str) -> External:
        """An input that only a plan needs, such as a model of 671B parameters. A run is refused."""

        def refuse() -> Path:
            raise ValueError(f"this scale can only be planned, not run: {name} is never fetched")

        return cls(Path(name), refuse)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))


@dataclass(frozen=True, slots=True)
class Output:
    """A file or folder in a stage's folder: `Output(stage, "model")`; "." is the folder itself."""

    stage: Stage
    path: str

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path)
        if parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"output {self.path!r} of stage {self.stage.name}: give a path inside the stage's folder")


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a recipe: a kind of work with settings and inputs. `stage / "model"` is an input for another."""

    name: str
    kind: Kind
    settings: Settings
    inputs: Mapping[str, Output | External] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"stage name {self.name!r}: use lower-case letters, digits and single - _ . between them")
        if not isinstance(self.settings, self.kind.settings):
            expected = self.kind.settings.__name__
            raise ValueError(f"stage {self.name}: settings are {type(self.settings).__name__}, expected {expected}")
        object.__setattr__(self, "inputs", dict(self.inputs))  # a copy: a frozen stage must not change later

    def __truediv__(self, path: str) -> Output:
        return Output(self, path)

    @property
    def uses_device(self) -> bool:
        """Whether it computes on a device such as a GPU, if there is one."""
        if self.kind.on_device is not None:
            return self.kind.on_device(self)
        return getattr(self.settings, "device", "cpu") != "cpu"

    @property
    def parents(self) -> list[Stage]:
        """The stages whose outputs this one reads, in the order of the inputs."""
        return [source.stage for source in self.inputs.values() if isinstance(source, Output)]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stages under one name; the last one is the run's result. Stages that others read need not be listed.

    `lengths` are mean tokens per sample by stage, for estimates. `light`: a core and its share of memory are enough for
    any stage, so the command line runs as many side by side as there are cores. `file` is the text of a recipe file
    that repeats the run, which is written beside its result, `hardware` the kind of device, `devices` their number and
    `track` the trackers that it names. `notes` say in words what the recipe chose by itself.

    Raises ValueError if two stages share a name, if there is a cycle, or if another stage reads the last one.
    """

    name: str
    stages: tuple[Stage, ...]
    title: str = ""
    lengths: Mapping[str, int] = field(default_factory=dict)
    light: bool = False
    file: str = ""
    hardware: str = ""
    devices: int = 1
    track: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"recipe name {self.name!r}: use lower-case letters, digits and single - _ . between them")
        if not self.stages:
            raise ValueError(f"recipe {self.name} has no stages: give at least one")
        object.__setattr__(self, "stages", tuple(topological_order(self.name, self.stages)))


def topological_order(recipe: str, stages: tuple[Stage, ...]) -> list[Stage]:
    """The stages and all that they read, each after its inputs, otherwise in the order of `stages`."""
    ordered: dict[str, Stage] = {}
    path: list[Stage] = []

    def visit(stage: Stage) -> None:
        if ordered.get(stage.name) is stage:
            return
        if any(stage is other for other in path):
            raise ValueError(f"recipe {recipe}: stages form a cycle: {' -> '.join(s.name for s in [*path, stage])}")
        path.append(stage)
        for parent in stage.parents:
            visit(parent)
        path.pop()
        if ordered.setdefault(stage.name, stage) != stage:
            raise ValueError(f"recipe {recipe}: two different stages are named {stage.name!r}: rename one")

    for stage in stages:
        visit(stage)
    *_, last = ordered.values()
    if last.name != stages[-1].name:
        raise ValueError(f"recipe {recipe}: another stage reads the last one, {stages[-1].name}: put the result last")
    return list(ordered.values())
