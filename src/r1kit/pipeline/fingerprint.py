"""The fingerprint of a stage: one hash of everything that decides its result (kind, version, settings, inputs).

Stages with the same fingerprint give the same result, so a finished folder is reused. The fingerprint does not cover
r1kit's own code: a change of code that alters results raises the kind's `version`. For a kind outside r1kit, the file
that defines its `run` counts, but not what that file imports.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from r1kit.pipeline.graph import Output, Stage
from r1kit.pipeline.manifest import require_as_written
from r1kit.redaction import redacted
from r1kit.settings import HASHED_IF_SET, NOT_HASHED
from r1kit.store import StoreError, combine, files_in, sha256, write_json

UNKNOWN = "????????"  # the fingerprint of an input that is not fetched yet, and of every stage that depends on it


class Hashes:
    """Content hashes of files, cached across runs by path, size and modification time in `runs/.hashes.json`."""

    def __init__(self, runs: Path) -> None:
        self._cache = runs / ".hashes.json"
        self._known: dict[str, list[Any]] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError, RecursionError):  # a cache: losing it costs only time
            known = json.loads(self._cache.read_text())
            entries = known.items() if isinstance(known, dict) else ()
            # a damaged hash would change the fingerprint of every stage
            for path, entry in entries:
                if isinstance(entry, list) and len(entry) == 4 and entry == self._entry(path, *entry[:3]):
                    self._known[path] = entry

    def of(self, path: Path) -> str:
        """The hash of a file or folder."""
        if path.is_dir():
            return combine({str(file.relative_to(path)): self.of(file) for file in files_in(path)})
        state = path.stat()
        key, stamp = str(path.resolve()), [state.st_size, state.st_mtime_ns]
        known = self._known.get(key)
        if known is None or known[:2] != stamp:
            known = self._known[key] = self._entry(key, state.st_size, state.st_mtime_ns, sha256(path))
            self._changed = True
        return str(known[2])

    @staticmethod
    def _entry(path: str, size: int, changed: int, digest: str) -> list[Any]:
        """A row of the cache; its last field is a checksum of the others."""
        check = hashlib.sha256(f"{path} {size} {changed} {digest}".encode()).hexdigest()[:8]
        return [size, changed, digest, check]

    def save(self) -> None:
        """Save the cache for the next run; does nothing if there is no runs folder yet."""
        if self._changed and self._cache.parent.is_dir():
            with contextlib.suppress(StoreError):  # a read-only runs folder can still be planned
                write_json(self._cache, self._known)


def settings_of(stage: Stage, *, all_fields: bool = False) -> dict[str, Any]:
    """A stage's settings as JSON data with secrets hidden. Without `all_fields`, those of `settings.unhashed` are not
    in it, nor those of `settings.added` that have their default."""
    hidden = None if all_fields else _hidden(stage.settings)
    # serialize_as_any: a field may hold a subclass of its declared type, whose fields count too
    settings: dict[str, Any] = redacted(stage.settings.model_dump(mode="json", exclude=hidden, serialize_as_any=True))
    return settings


def _hidden(value: Any) -> dict[Any, Any]:
    """The argument `exclude` of pydantic for all fields, at any depth, that are marked NOT_HASHED, and for those
    marked HASHED_IF_SET that are not set."""
    children: dict[Any, Any]
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        marked = {
            name
            for name, field in fields.items()
            if field.json_schema_extra == NOT_HASHED
            or (field.json_schema_extra == HASHED_IF_SET and getattr(value, name) == field.default)
        }
        children = {name: getattr(value, name) for name in fields if name not in marked}
    elif isinstance(value, Mapping):
        marked, children = set(), dict(value)
    elif isinstance(value, list | tuple):
        marked, children = set(), dict(enumerate(value))
    else:
        return {}
    below = {name: _hidden(child) for name, child in children.items()}
    return dict.fromkeys(marked, True) | {name: spec for name, spec in below.items() if spec}


def identity(stage: Stage, hashes: Hashes, fingerprints: dict[str, str]) -> dict[str, Any]:
    """Everything that the fingerprint hashes. `fingerprints` holds those of the earlier stages by name."""
    inputs: dict[str, dict[str, str]] = {}
    for name, source in stage.inputs.items():
        if isinstance(source, Output):
            inputs[name] = {"stage": source.stage.name, "path": source.path}
            inputs[name]["fingerprint"] = fingerprints[source.stage.name]
            continue
        if source.fetch is None and not source.path.exists():
            raise ValueError(f"input {name!r} of stage {stage.name}: there is no file or folder {source.path}")
        if source.fetch is None and source.path.is_dir() and not files_in(source.path):
            raise ValueError(f"input {name!r} of stage {stage.name}: the folder {source.path} holds no files")
        if source.fetch is None:
            require_as_written(source.path, hashes.of)
        digest = hashes.of(source.path) if source.fetch is None else UNKNOWN
        if source.mark and digest != UNKNOWN:
            digest = combine({"content": digest, "mark": source.mark})
        inputs[name] = {"path": str(source.path), "fingerprint": digest}
    kind: dict[str, Any] = {"kind": stage.kind.name, "version": stage.kind.version}
    function = inspect.unwrap(getattr(stage.kind.run, "func", stage.kind.run))  # behind a partial or a decorator
    module = str(function.__module__)
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.partition(".")[0] != "r1kit" and file is not None and Path(file).is_file():
        kind["code"] = hashes.of(Path(file))
    return {**kind, "settings": settings_of(stage), "inputs": inputs}


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of an identity as canonical JSON. Names and paths do not count, only content."""
    if any(source["fingerprint"] == UNKNOWN for source in identity["inputs"].values()):
        return UNKNOWN
    inputs = {
        name: [source["fingerprint"], source["path"] if "stage" in source else ""]
        for name, source in identity["inputs"].items()
    }
    canonical = json.dumps({**identity, "inputs": inputs}, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
