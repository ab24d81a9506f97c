"""The manifest of a finished stage, with the hash of every file that the stage wrote.

The hashes count in no fingerprint. They are compared when another stage reads the files, when a run ends with the
stage, and by `r1kit verify-run`. A manifest of an older version has none: its stage can be used, and is unverified.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from r1kit.content import DIGEST, damage, is_changed, parse_records, record, require_sealed, with_digest
from r1kit.store import StoreError, files_in, read_object, sha256, write_json

MANIFEST = "manifest.json"
STARTED = "stage.json"
FILES = "files"  # the key of the records in a manifest
SEALED = ("checkpoints", "best")  # folders of checkpoints, each with checksums of its own
# Hidden files, files that change after a stage is done (a queue that people open again, logs), and checkpoints, which
# no other stage reads.
CHANGING = re.compile(
    r"(manifest\.json|progress\.json|log\.txt|rank-\d+\.log|review\.db.*|(checkpoints|best|tracking)/.*)|(.*/)?\..*"
)

ADDED = "the stage did not write it; remove it"
CHANGED = "changed since the stage wrote it"


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Hash what the stage wrote, and write its manifest, which makes the stage done."""
    files = [file for file in files_in(folder) if not CHANGING.fullmatch(file.relative_to(folder).as_posix())]
    write_json(folder / MANIFEST, with_digest({**manifest, FILES: record(folder, files)}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """A stage's manifest; raises `StoreError` if it is not one."""
    manifest = read_object(folder / MANIFEST)
    if not isinstance(manifest.get("fingerprint"), str):
        raise StoreError(f"{folder / MANIFEST} is damaged: it has no fingerprint; {remedy(folder)}")
    return manifest


def stage_damage(
    folder: Path, within: Collection[str] = (".",), *, whole: bool = False, hash_of: Callable[[Path], str] = sha256
) -> dict[str, str] | None:
    """How each damaged file of a finished stage differs from what the stage wrote; None if no hashes were recorded.

    `within`: only these files and folders of the stage, and the manifest. See `content.damage` for `whole`.
    """
    manifest = read_manifest(folder)
    if FILES not in manifest and DIGEST not in manifest:
        return None
    records = parse_records(manifest.get(FILES, {}), folder / MANIFEST)
    used = {name: each for name, each in records.items() if is_within(name, within)}
    changed = {MANIFEST: CHANGED} if DIGEST not in manifest or is_changed(manifest) else {}
    added = {name: ADDED for name in _added(folder, records) if is_within(name, within)}
    return changed | added | damage(folder, used, whole=whole, hash_of=hash_of)


def require_as_written(path: Path, hash_of: Callable[[Path], str] = sha256) -> None:
    """Raise `StoreError` for a file or folder of a finished stage that is not as it was written. Others pass."""
    path = path.resolve()
    for stage in path.parents:
        if (stage / MANIFEST).is_file() and (stage / STARTED).is_file():
            if damaged := stage_damage(stage, [path.relative_to(stage).as_posix()], hash_of=hash_of):
                as_it_is = "to use it as it is, copy it out of the stage's folder"
                raise StoreError(f"{describe(stage, damaged)}; {as_it_is}")
            return


def checkpoint_damage(folder: Path) -> dict[str, str]:
    """Why each checkpoint of a stage that is not as it was sealed is damaged. All of them are hashed."""
    damaged = {}
    for checkpoint in sorted(path for name in SEALED for path in folder.glob(f"{name}/step-*")):
        try:
            require_sealed(checkpoint)
        except (StoreError, OSError) as error:
            reason = str(error).removeprefix(f"{checkpoint} is damaged: ").replace(f"{checkpoint}/", "")
            damaged[checkpoint.relative_to(folder).as_posix()] = reason
    return damaged


def _added(folder: Path, records: Mapping[str, Any]) -> Iterator[str]:
    """Files that the stage did not write, in folders that it wrote: these, such as a model, are read as a whole."""
    for written in {name.partition("/")[0] for name in records if "/" in name}:
        for file in files_in(folder / written):
            name = file.relative_to(folder).as_posix()
            if name not in records and not CHANGING.fullmatch(name) and file.parent.name != "__pycache__":
                yield name


def is_within(name: str, paths: Collection[str]) -> bool:
    """Whether a file is one of these paths of its stage's folder, or below one; the manifest always is."""
    parents = {name, ".", *(parent.as_posix() for parent in PurePosixPath(name).parents)}
    return any(path in parents or name == MANIFEST for path in paths)


def describe(folder: Path, damaged: Mapping[str, str]) -> str:
    """The damage of a stage with the remedy, as one message."""
    lines = [f"{folder / name} is damaged: {reason}" for name, reason in list(damaged.items())[:5]]
    more = [f"and {len(damaged) - 5} more files"] if len(damaged) > 5 else []
    return "\n".join([*lines, *more, remedy(folder, damaged)])


def remedy(folder: Path, damaged: Iterable[str] = (MANIFEST,)) -> str:
    """How to get a stage with these damaged files back."""
    if all(name.startswith(SEALED) for name in damaged):
        used = "a stage resumes from the one before, and only r1kit replay reads those of a finished stage"
        return f"restore the checkpoint from a copy, or delete it: {used}"
    try:
        command = str(read_object(folder / MANIFEST)["command"])
    except (StoreError, OSError, KeyError):
        command = "the command of the run"
    away = folder.with_name(f".{folder.name}.damaged")  # hidden, so that it is a stage of no run
    move = shlex.join(["mv", str(folder), str(away)])
    return f"restore it from a copy; or, to make it again: {move}, then {command}"
