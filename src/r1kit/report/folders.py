"""Reading stage folders, finished or still being written: a last line cut in half or a missing metric is no error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from r1kit import store
from r1kit.evaluate.metrics import Scored
from r1kit.evaluate.statistics import Summary, summarise

Row = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """A stage's folder as the report sees it; what is read is read once, on first use."""

    name: str
    folder: Path

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What the stage wrote when it was done, or when it began while it is not."""
        return read_json(self.folder / "manifest.json") or read_json(self.folder / "stage.json")

    @property
    def finished(self) -> bool:
        return (self.folder / "manifest.json").exists()

    @property
    def started(self) -> float:
        """Seconds since 1970; of a folder that does not say, the time of its last change."""
        at = self.manifest.get("started")
        if is_number(at):
            return at
        return datetime.fromisoformat(at).timestamp() if isinstance(at, str) else self.folder.stat().st_mtime

    @property
    def kind(self) -> str:
        """evaluate, rl, pretrain, sft ... : what the manifest says, or what the files look like."""
        if (self.folder / "results.json").exists() or (self.folder / "completions.jsonl").exists():
            return "evaluate"
        if kind := self.manifest.get("kind"):
            return str(kind)
        if (self.folder / "rollouts").is_dir():
            return "rl"
        return "train" if (self.folder / "metrics.jsonl").exists() else "other"

    @cached_property
    def metrics(self) -> list[Row]:
        """One row per step, in order; of a step that was done again after a resume, the later row."""
        rows = {row["step"]: row for row in read_lines(self.folder / "metrics.jsonl") if is_number(row.get("step"))}
        return [rows[step] for step in sorted(rows)]

    @cached_property
    def completions(self) -> list[Row]:
        """An evaluation's rows: the judged record beside the question and the completion."""
        return read_lines(self.folder / "completions.jsonl")

    @cached_property
    def scored(self) -> list[Scored]:
        return [Scored.from_row(row) for row in self.completions]

    @cached_property
    def summary(self) -> Summary | None:
        """An evaluation's estimates, from its rows or (where only that was kept) from `results.json`."""
        if self.scored:
            return summarise(self.scored)
        results = read_json(self.folder / "results.json")
        return Summary.from_json(results) if results else None

    @cached_property
    def rollouts(self) -> list[Path]:
        """The rollout files, first step first (the number of digits in the name does not matter)."""
        return sorted((self.folder / "rollouts").glob("step-*.jsonl"), key=lambda path: (len(path.stem), path.stem))


def find_stages(source: Path | str | Sequence[Path | str] | Mapping[str, Path]) -> list[Stage]:
    """Stages from an ordered mapping, from a list of stage folders, or from a run's folder.

    Where a stage was run again with other settings, a run's folder holds several of its folders: the last started
    counts, and what was made from another one is left out, so that no two runs are mixed. They are those of the run's
    own report, under its names and in its order; of a run without one yet, all in order of start. Raises ValueError
    where there is no stage.
    """
    if isinstance(source, Mapping):
        return [Stage(name, Path(folder)) for name, folder in source.items()]
    if not isinstance(source, (str, Path)):
        return [Stage(stage_name(Path(folder)), Path(folder)) for folder in source]
    run = Path(source)
    found = [Stage(stage_name(path), path) for path in run.iterdir() if is_stage(path)] if run.is_dir() else []
    latest = {stage.name: stage for stage in sorted(found, key=lambda stage: stage.started) if stage.kind != "report"}
    latest = {name: stage for name, stage in latest.items() if _is_current(stage, latest)}
    if not latest:
        raise ValueError(
            f"{run} is no run's folder: it must hold stage folders such as rl-0a1b2c3d, each with manifest.json, "
            "metrics.jsonl or completions.jsonl inside"
        )
    if (report := last_report(run)) is not None:
        known = {title: latest.get(stage_name(Path(folder))) for title, folder in inputs_of(report).items()}
        if named := [Stage(title, stage.folder) for title, stage in known.items() if stage is not None]:
            return named
    return sorted(latest.values(), key=lambda stage: stage.started)


def _is_current(stage: Stage, latest: Mapping[str, Stage]) -> bool:
    """Whether all that a stage was made from are the folders that count."""
    parents = [(latest.get(stage_name(Path(folder))), folder) for folder in inputs_of(stage).values()]
    return all(
        parent is None or (parent.folder.name == folder and _is_current(parent, latest)) for parent, folder in parents
    )


def last_report(source: Any) -> Stage | None:
    """The stage that made the last report in a run's folder; None where there is none, or no run's folder is given."""
    if not isinstance(source, (str, Path)):
        return None
    found = [Stage(stage_name(path.parent), path.parent) for path in Path(source).glob("*/manifest.json")]
    return max((stage for stage in found if stage.kind == "report"), key=lambda stage: stage.started, default=None)


def inputs_of(stage: Stage) -> dict[str, str]:
    """Folders beside a stage's that it reads, by the input's name: `{"model": "sft-1a2b3c4d"}`."""
    given = stage.manifest.get("inputs")
    told = {name: one for name, one in given.items() if isinstance(one, Mapping)} if isinstance(given, Mapping) else {}
    begun = {name: f"{one['stage']}-{one['fingerprint'][:8]}" for name, one in told.items() if "stage" in one}
    paths = {name: Path(str(one.get("path", ""))).parts for name, one in told.items()}
    beside = {
        name: parts[1] for name, parts in paths.items() if parts[:1] == ("..",) and parts[1:2] not in ((), ("..",))
    }
    return begun | beside  # a stage's first note says stage and fingerprint, its manifest the folder


def is_stage(path: Path) -> bool:
    return any((path / name).exists() for name in ("manifest.json", "stage.json", "metrics.jsonl", "completions.jsonl"))


def stage_name(folder: Path) -> str:
    """`rl-0a1b2c3d` is the stage `rl`."""
    name, dash, digits = folder.name.rpartition("-")
    is_hash = len(digits) == 8 and all(c in "0123456789abcdef" for c in digits)
    return name if dash and is_hash else folder.name


def read_json(path: Path) -> Row:
    """An object from a file; empty where there is no file."""
    data = store.read_json(path) if path.exists() else {}
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, not an object: delete it and run the stage again")
    return data


def read_lines(path: Path) -> list[Row]:
    """The whole rows of a JSONL file; none where there is no file yet, and without a last row that is half written."""
    return list(store.read_rows(path)) if path.exists() else []


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
