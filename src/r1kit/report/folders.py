"""Read stage folders, finished or still being written: a half-written last line or a missing metric is no error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from r1kit import store
from r1kit.data.jsonl import read_rows
from r1kit.evaluate.metrics import Scored
from r1kit.evaluate.statistics import Summary, summarise
from r1kit.numeric import is_number
from r1kit.pipeline.manifest import stage_damage
from r1kit.pipeline.plan import PLAN
from r1kit.report.metrics import Metrics

FILES = ("manifest.json", "stage.json", "metrics.jsonl", "completions.jsonl")  # of which a stage's folder has one
EVIDENCE = ("metrics.jsonl", "preflight.json", "mask.json", "completions.jsonl", "results.json")  # of verdicts
Row = dict[str, Any]
Source = Path | str | Sequence[Path | str] | Mapping[str, Path]


@dataclass(frozen=True)
class StageFolder:
    """One stage's folder. Each file is read once, on first use."""

    name: str
    folder: Path

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """`manifest.json`, or `stage.json` while the stage is unfinished; empty if there is neither."""
        return read_object(self.folder / "manifest.json") or read_object(self.folder / "stage.json")

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        settings = self.manifest.get("settings")
        return settings if isinstance(settings, Mapping) else {}

    def damage(self, *, of_rows: bool = False) -> str:
        """Why the stage's manifest (and its rows) cannot be believed; empty if it can."""
        try:
            _ = self.started, self.kind, self.settings, inputs_of(self)
            if of_rows:
                _ = self.metrics, self.summary
                return self.changed
        except UNREADABLE as error:
            return str(error)
        return ""

    @cached_property
    def changed(self) -> str:
        """Which files of a finished stage that a verdict rests on are not as it wrote them; empty if all are."""
        damaged = (stage_damage(self.folder, EVIDENCE) if self.finished else None) or {}
        return "; ".join(f"{self.folder / name} is damaged: {reason}" for name, reason in damaged.items())

    @property
    def finished(self) -> bool:
        return (self.folder / "manifest.json").exists()

    @property
    def started(self) -> float:
        """Seconds since 1970; the folder's last change if the manifest does not say."""
        started = self.manifest.get("started")
        if is_number(started):
            return started
        return datetime.fromisoformat(started).timestamp() if isinstance(started, str) else self.folder.stat().st_mtime

    @property
    def kind(self) -> str:
        """The manifest's kind (rl, sft ...), or a guess from the files. Whatever wrote completions is "evaluate"."""
        if (self.folder / "results.json").exists() or (self.folder / "completions.jsonl").exists():
            return "evaluate"
        if kind := self.manifest.get("kind"):
            return str(kind)
        if (self.folder / "rollouts").is_dir():
            return "rl"
        return "train" if (self.folder / "metrics.jsonl").exists() else "other"

    @cached_property
    def metrics(self) -> Metrics:
        """What the stage logged in its steps so far."""
        return Metrics(read_rows(self.folder / "metrics.jsonl", missing_ok=True))

    @cached_property
    def completions(self) -> list[Row]:
        """An evaluation's rows: question, completion and verdict."""
        return list(read_rows(self.folder / "completions.jsonl", missing_ok=True))

    @cached_property
    def scored(self) -> list[Scored]:
        return [Scored.from_row(row) for row in self.completions]

    @cached_property
    def summary(self) -> Summary | None:
        """An evaluation's estimates, from its rows or, if only `results.json` was kept, from that."""
        if self.scored:
            return summarise(self.scored)
        results = read_object(self.folder / "results.json")
        return Summary.from_json(results) if results else None

    @cached_property
    def rollouts(self) -> list[Path]:
        """The rollout files in the order of their steps, however many digits their names have."""
        return sorted((self.folder / "rollouts").glob("step-*.jsonl"), key=lambda path: (len(path.stem), path.stem))


UNREADABLE = (store.StoreError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)


def find_stages(
    source: Source, unreadable: dict[Path, str] | None = None, *, beyond_report: bool = False
) -> list[StageFolder]:
    """Stage folders from a mapping (name -> folder), from a list of folders, or from a run's folder.

    A run's folder may hold several folders of one stage, each with other settings. That of the last call counts, or
    the last started, and stages built on another one are left out, so two runs are never mixed. If the run has a report
    of its own, the stages are those of the report, with its names and order, and with `beyond_report` the others after
    them; without one they are all, by start. Raises ValueError if there are none. A stage that cannot be read is an
    error, or is left out if `unreadable` is there to receive the reason.
    """
    if isinstance(source, Mapping):
        return [StageFolder(name, Path(folder)) for name, folder in source.items()]
    if not isinstance(source, str | Path):
        return [StageFolder(stage_name(Path(folder)), Path(folder)) for folder in source]
    run = Path(source)
    stages = [
        StageFolder(stage_name(path), path)
        for path in run.glob("[!.]*/")
        if any((path / name).exists() for name in FILES)
    ]
    if unreadable is not None:
        reasons = {stage.folder: stage.damage() for stage in stages}
        unreadable |= {folder: reason for folder, reason in reasons.items() if reason}
        stages = [stage for stage in stages if not reasons[stage.folder]]
    ordered = by_call(run, stages)
    latest = {stage.name: stage for stage in ordered if stage.kind != "report"}
    latest = {name: stage for name, stage in latest.items() if is_current(stage, latest)}
    if not latest:
        raise ValueError(
            f"{run} is not a run's folder: expected stage folders such as rl-0a1b2c3d, each with manifest.json, "
            "metrics.jsonl or completions.jsonl"
        )
    by_start = sorted(latest.values(), key=lambda stage: stage.started)
    report = newest_report(ordered)
    in_report = {} if report is None else {title: stage_name(Path(name)) for title, name in inputs_of(report).items()}
    named = [StageFolder(title, latest[name].folder) for title, name in in_report.items() if name in latest]
    if not named:
        return by_start
    others = [stage for stage in by_start if stage.name not in in_report.values()] if beyond_report else []
    return [*named, *others]


def is_current(stage: StageFolder, latest: Mapping[str, StageFolder]) -> bool:
    """Whether the stage was built, directly and indirectly, on the latest folder of every stage it reads."""
    for folder in inputs_of(stage).values():
        parent = latest.get(stage_name(Path(folder)))
        if parent is not None and not (parent.folder.name == folder and is_current(parent, latest)):
            return False
    return True


def last_report(source: Source) -> StageFolder | None:
    """The latest finished `report` stage in a run's folder; None if there is none or `source` is not a folder."""
    if not isinstance(source, str | Path):
        return None
    folders = [path.parent for path in Path(source).glob("[!.]*/manifest.json")]
    return newest_report(by_call(Path(source), [StageFolder(stage_name(folder), folder) for folder in folders]))


def by_call(run: Path, stages: Sequence[StageFolder]) -> list[StageFolder]:
    """Stages by start, and those of the run's last call after all others, because a clock can go backwards."""
    last = planned(run)
    return sorted(stages, key=lambda stage: (stage.folder.name in last, stage.started))


def newest_report(ordered: Sequence[StageFolder]) -> StageFolder | None:
    return next((stage for stage in reversed(ordered) if stage.finished and stage.kind == "report"), None)


def planned(run: Path) -> list[str]:
    """The folders of the run's last call, in order; none without a plan, or with a damaged one."""
    try:
        return [str(row["folder"]) for row in read_object(run / PLAN)["stages"]]
    except UNREADABLE:
        return []


def inputs_of(stage: StageFolder) -> dict[str, str]:
    """Folders beside the stage's own that it reads, by the input's name: `{"model": "sft-1a2b3c4d"}`."""
    folders = {}
    inputs = stage.manifest.get("inputs")
    for name, entry in inputs.items() if isinstance(inputs, Mapping) else ():
        if not isinstance(entry, Mapping):
            continue
        parts = Path(str(entry.get("path", ""))).parts
        if len(parts) > 1 and parts[0] == ".." and parts[1] != "..":  # manifest.json: a path from the stage's folder
            folders[name] = parts[1]
        elif "stage" in entry:  # stage.json: a stage and its fingerprint
            folders[name] = f"{entry['stage']}-{entry['fingerprint'][:8]}"
    return folders


def stage_name(folder: Path) -> str:
    """`rl-0a1b2c3d` is the stage `rl`; names without a hash stay as they are."""
    name, dash, digits = folder.name.rpartition("-")
    is_hash = len(digits) == 8 and all(c in "0123456789abcdef" for c in digits)
    return name if dash and is_hash else folder.name


def read_object(path: Path) -> Row:
    """A JSON object; empty if there is no file."""
    return store.read_object(path) if path.exists() else {}
