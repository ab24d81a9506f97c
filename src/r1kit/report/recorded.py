"""A stage as its folder records it, so that its work can be repeated or compared without its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.data.step_rows import FILE as STEPS
from r1kit.pipeline.fingerprint import Hashes
from r1kit.pipeline.manifest import MANIFEST, STARTED, describe, read_manifest, stage_damage
from r1kit.pipeline.provenance import commit, host, versions
from r1kit.report.folders import UNREADABLE, stage_name
from r1kit.report.live.places import ROW_FILES
from r1kit.store import StoreError, read_object

LOGS = (STEPS, "metrics.jsonl", *ROW_FILES)


@dataclass(frozen=True, slots=True)
class RecordedStage:
    """A stage's folder with its manifest, or with what was known when it began."""

    folder: Path
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> RecordedStage:
        """Raises `StoreError` for a folder without a record, or with a damaged one."""
        if (folder / MANIFEST).exists():
            if damaged := stage_damage(folder, []):
                raise StoreError(describe(folder, damaged))
            file, facts = folder / MANIFEST, read_manifest(folder)
        elif (folder / STARTED).exists():
            file, facts = folder / STARTED, read_object(folder / STARTED)
            if not isinstance(run := facts.get("run"), dict):
                raise StoreError(f"{file} does not hold all settings: an older version of r1kit wrote it")
            facts |= run
        else:
            raise StoreError(f"{folder} has neither {MANIFEST} nor {STARTED}: name a stage's folder")
        settings, inputs = facts.get("settings"), facts.get("inputs", {})
        if not isinstance(settings, dict) or not isinstance(inputs, dict) or not all(map(_is_input, inputs.values())):
            raise StoreError(f"{file} is damaged: it has no settings, or inputs without a path; restore it from a copy")
        return cls(folder, facts)

    @property
    def name(self) -> str:
        """As the stage was named, whatever its folder is called now."""
        return str(self.facts.get("stage") or stage_name(self.folder))

    @property
    def kind(self) -> str:
        return str(self.facts.get("kind"))

    def paths(self) -> dict[str, Path]:
        """The inputs by name. Raises `StoreError` for one that is missing, or not as the stage read it."""
        return {name: self._path(name, source) for name, source in self.facts["inputs"].items()}

    def _path(self, name: str, source: Mapping[str, str]) -> Path:
        path, run = (self.folder / source["path"]).resolve(), self.folder.resolve().parent
        hashes, label = Hashes(run.parent), f"input {name!r} of {self.folder.name}"
        if not path.exists() and not path.is_relative_to(run):
            path = self._given(name) or path
        if not path.exists():
            raise StoreError(f"{label} is missing: put {path} back")
        if not path.is_relative_to(run):
            if hashes.of(path) != source["fingerprint"]:
                raise StoreError(f"{label} has changed since: restore {path}")
            return path
        stage = run / path.relative_to(run).parts[0]
        within = path.relative_to(stage).as_posix()
        if (stage / MANIFEST).exists() and (damaged := stage_damage(stage, [within], hash_of=hashes.of)):
            raise StoreError(f"{label} is damaged:\n{describe(stage, damaged)}")
        return path

    def _given(self, name: str) -> Path | None:
        """Where an input from outside was when the stage began, if it is still there: a run may be moved without it."""
        try:
            path = Path(read_object(self.folder / STARTED)["inputs"][name]["path"]).resolve()
        except UNREADABLE:
            return None
        return path if path.exists() else None

    def changes_since(self) -> list[str]:
        """How commit, versions and machine of the run differ from those of this process."""
        return differences(self.surroundings, {"git": commit(), "host": host(), **versions()})

    @property
    def surroundings(self) -> dict[str, Any]:
        """The commit, the machine and the versions that the stage ran with."""
        known = self.facts.get("versions")
        found = known if isinstance(known, Mapping) else {}
        return {"git": self.facts.get("git"), "host": self.facts.get("host"), **found}


def log_damage(folder: Path) -> list[str]:
    """How the logs of a finished stage, by which it is repeated or compared, differ from what it wrote."""
    damaged = (stage_damage(folder, LOGS) if (folder / MANIFEST).exists() else None) or {}
    return [f"{folder / name} is damaged: {reason}" for name, reason in damaged.items()]


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The entries of two mappings that differ: `torch 2.12.0 -> 2.13.0`."""
    names = list(dict.fromkeys([*one, *other]))
    return [f"{name} {one.get(name)} -> {other.get(name)}" for name in names if one.get(name) != other.get(name)]


def _is_input(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("path", "fingerprint"))
