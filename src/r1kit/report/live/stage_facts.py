"""A stage's settings, its inputs, and the machine and versions that it ran with, from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit.numeric import is_number
from r1kit.report.folders import StageFolder, inputs_of, stage_name
from r1kit.report.page import duration, flat

FACTS = ("started", "attempts", "seed", "threads", "command", "host", "fingerprint")


def stage_facts(folder: Path) -> dict[str, Any]:
    """Pairs of names and texts: `settings` under dotted names, `facts`, and `inputs` with the stage behind each."""
    stage = StageFolder(stage_name(folder), folder)
    manifest = stage.manifest
    facts = {name: str(manifest[name]) for name in FACTS if name in manifest}
    if is_number(manifest.get("seconds")):
        facts["took"] = duration(manifest["seconds"])
    for name in ("git", "versions"):
        value = manifest.get(name)
        facts |= dict(flat(value, "git" if name == "git" else "")) if isinstance(value, Mapping) else {}
    return {
        "stage": folder.name,
        "settings": flat(numbered(stage.settings)),
        "facts": list(facts.items()),
        "inputs": [(name, text, source) for name, (text, source) in inputs(stage).items()],
    }


def numbered(value: Any) -> Any:
    """Lists of tables as tables with numbers for names, so that `rewards.0.weight` is a setting of its own."""
    if isinstance(value, Mapping):
        return {name: numbered(item) for name, item in value.items()}
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return {str(number): numbered(item) for number, item in enumerate(value)}
    return value


def inputs(stage: StageFolder) -> dict[str, tuple[str, str | None]]:
    """For each input its path (or the start of its fingerprint) and the id of the stage that made it, if one did."""
    folders = inputs_of(stage)
    entries = stage.manifest.get("inputs")
    rows: dict[str, tuple[str, str | None]] = {}
    for name, entry in entries.items() if isinstance(entries, Mapping) else ():
        if not isinstance(entry, Mapping):
            continue
        parts = [str(entry.get("path", "")).removeprefix("../"), str(entry.get("fingerprint", ""))[:12]]
        source = folders.get(name)
        is_there = source is not None and (stage.folder.parent / source).is_dir()
        rows[str(name)] = (" · ".join(filter(None, parts)), source if is_there else None)
    return rows
