"""What a recipe would do now, stage by stage, and why. Planning only reads, unless `fetch` is set.

A stage's folder is `runs/<recipe>/<stage>-<8 hex>/`. `stage.json` is written when the stage starts and holds everything
that its fingerprint hashes. `manifest.json` is written last: if it exists, the stage is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from r1kit.content import is_changed
from r1kit.pipeline.fingerprint import UNKNOWN, Hashes, fingerprint, identity, settings_of
from r1kit.pipeline.graph import External, Output, Recipe, Stage
from r1kit.pipeline.manifest import CHANGED, MANIFEST, STARTED, read_manifest, remedy
from r1kit.pipeline.progress import Progress
from r1kit.settings import nearest
from r1kit.store import StoreError, read_object

PLAN, CALLS = "plan.json", "run.json"  # in the run's folder, written by `execute`
Status = Literal["done", "resume", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One stage of a plan.

    `why` is for people: "finished", "stopped midway", "never run", or the differences from the stage's newest other
    folder. `identity` is everything that the fingerprint hashes. `paths` are the inputs, finished or not. If an input
    is not fetched yet, fingerprint and folder are `UNKNOWN`.
    """

    stage: Stage
    folder: Path
    status: Status
    why: str
    fingerprint: str
    identity: Mapping[str, Any]
    paths: Mapping[str, Path]

    @property
    def model(self) -> str:
        """The stage that made its input "model", or the folder's name; empty if it has none."""
        source = self.stage.inputs.get("model")
        if source is None:
            return ""
        return source.stage.name if isinstance(source, Output) else source.path.name


def plan(recipe: Recipe, runs: Path, until: str | None = None, *, fetch: bool = False) -> list[PlanRow]:
    """One row for each stage, in the order of execution; with `until`, names with commas, only for these stages and
    those that they need."""
    hashes = Hashes(runs)
    rows: dict[str, PlanRow] = {}
    fetched: dict[Path, External] = {}
    for stage in recipe.stages if until is None else _needed(recipe, [name.strip() for name in until.split(",")]):
        if fetch:
            for name, source in stage.inputs.items():
                if isinstance(source, External) and source.fetch is not None:
                    if source.path not in fetched:
                        Progress(stage.name).say(f"fetching {source.path}")
                        fetched[source.path] = External(source.fetch(), mark=source.mark)
                    stage = replace(stage, inputs={**stage.inputs, name: fetched[source.path]})
        content = identity(stage, hashes, {name: row.fingerprint for name, row in rows.items()})
        digest = fingerprint(content)
        folder = runs / recipe.name / f"{stage.name}-{digest[:8]}"
        status, why = _status(stage, content, folder, digest)
        paths = {
            name: rows[source.stage.name].folder / source.path if isinstance(source, Output) else source.path
            for name, source in stage.inputs.items()
        }
        rows[stage.name] = PlanRow(
            stage=stage, folder=folder, status=status, why=why, fingerprint=digest, identity=content, paths=paths
        )
    hashes.save()
    return list(rows.values())


def _needed(recipe: Recipe, names: Sequence[str]) -> list[Stage]:
    """The stages of those names and all that they read, in the order of the recipe."""
    stages = {stage.name: stage for stage in recipe.stages}
    for name in names:
        if name not in stages:
            raise ValueError(f"recipe {recipe.name} has no stage {name!r}: {nearest(name, stages)}")
    needed = set(names)
    for stage in reversed(recipe.stages):  # each stands after its inputs
        if stage.name in needed:
            needed.update(parent.name for parent in stage.parents)
    return [stage for stage in recipe.stages if stage.name in needed]


def _status(stage: Stage, content: dict[str, Any], folder: Path, digest: str) -> tuple[Status, str]:
    if digest == UNKNOWN:
        missing = [
            f"{source['stage']} is to be run" if "stage" in source else f"{source['path']} is to be fetched"
            for source in content["inputs"].values()
            if UNKNOWN in source.values()
        ]
        if len(missing) > 3:  # a report reads every stage
            missing = [*missing[:2], f"and {len(missing) - 2} others"]
        return "run", "; ".join(missing)
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if (found := manifest["fingerprint"]) != digest:
            if is_changed(manifest):
                raise StoreError(f"{folder / MANIFEST} is damaged: {CHANGED}; {remedy(folder)}")
            raise StoreError(
                f"{folder} holds the stage of another fingerprint, {found[:16]}, expected {digest[:16]}: it was "
                "renamed or copied there; give it its own name back, or move it away"
            )
        return "done", "finished"
    if (folder / STARTED).exists():
        return "resume", "stopped midway"
    return "run", _differences(stage, content, folder)


def _differences(stage: Stage, content: dict[str, Any], folder: Path) -> str:
    """How the stage differs from its newest other folder."""
    named = re.compile(re.escape(stage.name) + r"-[0-9a-f]{8}")
    others = [path for path in folder.parent.glob(f"{stage.name}-*/{STARTED}") if named.fullmatch(path.parent.name)]
    if not others:
        return "never run"
    newest = max(others, key=lambda path: path.stat().st_mtime_ns)
    try:
        return _changes(stage, content, read_object(newest)) or f"differs from {newest.parent.name}"
    except (StoreError, LookupError, TypeError, AttributeError):  # it only explains
        return f"differs from {newest.parent.name}, whose {STARTED} is damaged"


def _changes(stage: Stage, content: Mapping[str, Any], old: Mapping[str, Any]) -> str:
    """The differences between two identities of a stage."""
    changes = []
    if old["kind"] != content["kind"]:
        changes.append(f"kind {old['kind']} -> {content['kind']}")
    elif old["version"] != content["version"]:
        changes.append(f"code version {old['version']} -> {content['version']}")
    elif old.get("code") != content.get("code"):
        changes.append(f"code of kind {content['kind']} changed")
    before, after = _flat(old["settings"]), _flat(content["settings"])
    known = _flat(settings_of(stage, all_fields=True))
    for name in [*after, *(name for name in before if name not in known)]:
        if before.get(name) != after.get(name):
            changes.append(f"{name} {_in_one_line(before.get(name))} -> {_in_one_line(after.get(name))}")
    for name in sorted(old["inputs"].keys() | content["inputs"].keys()):
        was, now = old["inputs"].get(name), content["inputs"].get(name)
        if was is None or now is None:
            changes.append(f"input {name} {'added' if was is None else 'removed'}")
        elif "stage" in now and was.get("path") != now["path"]:
            changes.append(f"input {name} {was.get('path')} -> {now['path']}")
        elif was["fingerprint"] != now["fingerprint"]:
            changes.append(f"input {name} changed ({now.get('stage') or now['path']})")
    return "; ".join(changes)


def _in_one_line(value: Any) -> str:
    """A setting's value for a row of the plan: a prompt can be empty or have many lines."""
    text = str(value)
    text = text if text and text.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested settings by dotted path: {"a": {"b": 1}, "c": [2]} -> {"a.b": 1, "c.0": 2}."""
    value = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(value, dict) or not value:
        return {name: value} if name else {}
    parts = (_flat(item, f"{name}.{key}" if name else key) for key, item in value.items())
    return {path: item for part in parts for path, item in part.items()}
