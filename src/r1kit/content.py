"""What folders hold, by size, time and SHA-256: recorded when files are written, compared when they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from r1kit.store import StoreError, files_in, read_json, sha256, to_plain, write_json

CHECKSUMS = "checksums.json"  # in a sealed folder
DIGEST = "sha256"  # the key of a JSON object's own hash
FileRecord = dict[str, Any]  # bytes, mtime_ns, sha256


def record(folder: Path, files: Iterable[Path]) -> dict[str, FileRecord]:
    """The size, time and hash of each file, by its path in the folder."""
    records = {}
    for file in files:
        state = file.stat()
        stamp = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
        records[file.relative_to(folder).as_posix()] = stamp | {"sha256": sha256(file)}
    return records


def damage(
    folder: Path, records: Mapping[str, Any], *, whole: bool = False, hash_of: Callable[[Path], str] = sha256
) -> dict[str, str]:
    """How each file that is not as recorded differs.

    A file of the recorded size and time is taken for unchanged. One of another time (a copy) is hashed, and with
    `whole` every file is.
    """
    damaged = {}
    for name, expected in records.items():
        size, digest, file = expected["bytes"], expected["sha256"], folder / name
        try:
            state = file.stat()
            if not file.is_file():
                damaged[name] = "no file"
            elif state.st_size != size:
                damaged[name] = f"{state.st_size:,} bytes, expected {size:,}"
            elif (whole or state.st_mtime_ns != expected.get("mtime_ns")) and (now := hash_of(file)) != digest:
                damaged[name] = f"SHA-256 {now[:12]}, expected {digest[:12]}"
        except FileNotFoundError:
            damaged[name] = f"missing, expected {size:,} bytes"
        except OSError as error:
            damaged[name] = f"cannot be read ({error.strerror or error})"
    return damaged


def parse_records(value: Any, file: Path) -> dict[str, FileRecord]:
    """Records as they were read from `file`; raises `StoreError` if they have another shape."""
    if isinstance(value, dict) and all(
        isinstance(each, dict) and type(each.get("bytes")) is int and isinstance(each.get("sha256"), str)
        for each in value.values()
    ):
        return value
    raise StoreError(f"{file} is damaged: its records of files have no size or no hash; restore it or delete it")


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a hash of itself, so that an edit or a damage that leaves it valid JSON is seen."""
    plain = to_plain(content)
    return {**plain, DIGEST: _digest(plain)}


def is_changed(content: Mapping[str, Any]) -> bool:
    """Whether an object with a hash of itself is not the one that `with_digest` made."""
    return DIGEST in content and content[DIGEST] != _digest(
        {name: value for name, value in content.items() if name != DIGEST}
    )


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal(folder: Path) -> None:
    """Write `checksums.json` over all files of a folder. Call it last, before the folder gets its name."""
    records = record(folder, files_in(folder))
    for each in records.values():
        del each["mtime_ns"]  # a sealed folder is read seldom and whole, so every file is hashed
    write_json(folder / CHECKSUMS, records)


def require_sealed(folder: Path) -> None:
    """Raise `StoreError` if the folder does not hold exactly what was sealed; hidden files do not count."""
    file = folder / CHECKSUMS
    if not file.exists():
        raise StoreError(f"{folder} is damaged: it has no {CHECKSUMS}, so its files cannot be checked")
    records = parse_records(read_json(file), file)
    names = {path.relative_to(folder).as_posix() for path in files_in(folder) if not path.name.startswith(".")}
    damaged = damage(folder, records, whole=True)
    damaged |= dict.fromkeys(sorted(names - records.keys() - {CHECKSUMS}), f"{CHECKSUMS} does not have it")
    if damaged:
        name, reason = next(iter(damaged.items()))
        more = f", and {len(damaged) - 1} more of its files are damaged" if len(damaged) > 1 else ""
        raise StoreError(f"{folder / name} is damaged: {reason}{more}")
