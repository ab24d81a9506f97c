"""Atomic writes, locks and content hashes: a file is either complete or absent.

Everything that a run leaves on disk goes through here. A kill or a full disk costs at most the file that is being
written, never an earlier one. If several ranks train a stage, only the first one writes: for the others, a file is
written to memory, and a folder to a temporary place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from r1kit import ranks

MAX_TEXT_BYTES = 256 << 20  # of a file that is read as a whole
LOOK_EVERY_S = 0.5  # at a lock that another process holds
ABANDONED_S = 3600.0  # since the last change of a temporary folder of another machine, which may still be at work
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
# Libraries that report a full disk without errno, by the type of their error.
FULL_IN_RUST = re.compile(rf"\(os error ({'|'.join(map(str, FULL))})\)$")  # safetensors, tokenizers
FULL_IN_TORCH = re.compile(
    r"\[enforce fail at inline_container.*(unexpected pos|file write failed)|basic_ios::clear: iostream error$",
    re.DOTALL,
)
FULL_IN_NUMPY = re.compile(r"\d+ requested and \d+ written$")


LEFTOVER = re.compile(r"\..+\.(?:tmp-(\d+)(?:-\w+)?(?:@(.+))?|old)")  # of atomic files and folders, and of scratch


class StoreError(RuntimeError):
    """A file could not be written, or a run folder is not as expected; earlier files are intact."""


def to_plain(value: Any) -> Any:
    """Records, numpy scalars and paths as plain JSON data; NaN and infinity, which JSON lacks, become None."""
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "to_json"):  # its form in files differs from its fields
            return to_plain(value.to_json())
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):  # settings
        return value.model_dump(mode="json")
    if hasattr(value, "item"):  # numpy and torch scalars, without importing either
        return to_plain(value.item())
    raise ValueError(f"JSON cannot hold a value of type {type(value).__name__}: {value!r:.80}")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file so that readers see its old content or its new content, never a part of it; raises `StoreError`.

    The new file replaces the old one when the block ends without an error.
    """
    if not ranks.is_first():
        yield io.BytesIO()
        return
    temporary = _temporary(path)
    with storing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """`atomic_file` for content in memory."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text; a lone surrogate, which model text may hold, is written as "?"."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: Path, value: Any) -> None:
    """`write_text` for any value that `to_plain` accepts."""
    write_text(path, json.dumps(to_plain(value), ensure_ascii=False, indent=2) + "\n")


def open_file(path: Path) -> BinaryIO:
    """Open a file to read it; raises `StoreError` for a pipe or a device, which may have no end."""
    if path.exists() and not path.is_dir() and not path.is_file():
        raise StoreError(f"{path} is a pipe or a device, which may have no end: name a file")
    return open(path, "rb")


def read_bounded(path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """The text of a file; raises `StoreError` for a pipe, a device, or more than `most` bytes, and ValueError for text
    that is not UTF-8."""
    with open_file(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise StoreError(f"{path} has more than {most:,} bytes, and no file of its kind is so large: check its name")
    return data.decode("utf-8")


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `StoreError` if it is damaged."""
    try:
        return json.loads(read_bounded(path))
    except (ValueError, RecursionError) as error:  # or lists in lists, thousands deep
        raise StoreError(f"{path} is not JSON ({error}): it was damaged or edited; restore or delete it") from None


def read_object(path: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object; raises `StoreError` if it holds anything else."""
    value = read_json(path)
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise StoreError(
            f"{path} holds a {kind}, expected a JSON object: it was damaged or edited; restore or delete it"
        )
    return value


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a temporary folder that becomes `path` when the block ends, or is removed if the block fails.

    An existing folder is replaced in the last step. Name checkpoints by their step instead of replacing one: a kill
    between the two renames leaves the old folder as `.<name>.old`.
    """
    if not ranks.is_first():
        with tempfile.TemporaryDirectory() as unused:
            yield Path(unused)
        return
    temporary = _temporary(path)
    with storing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent, f".{path.name}.tmp-*")
            temporary.mkdir()
            yield temporary
            for file in [*temporary.rglob("*"), temporary]:
                _sync(file)
            old = path.with_name(f".{path.name}.old")
            if path.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.rename(path, old)
            os.rename(temporary, path)
            _sync(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def scratch_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder for files that nobody keeps, removed when the block ends; after a kill, by the next one of its name."""
    sweep(parent, f".{name}.tmp-*")
    prefix, suffix = f".{name}.tmp-{os.getpid()}-", f"@{socket.gethostname()}"
    with storing(parent):
        temporary = tempfile.TemporaryDirectory(dir=parent, prefix=prefix, suffix=suffix)
    with temporary as folder:
        yield Path(folder)


def _temporary(path: Path) -> Path:
    """A name that no other process uses, on any machine that mounts this file system."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}@{socket.gethostname()}")


def sweep(folder: Path, pattern: str = "**/.*") -> None:
    """Remove the temporary files and folders that killed writers left, and what a replaced folder held before."""
    for left in list(folder.glob(pattern)):
        if (match := LEFTOVER.fullmatch(left.name)) and not _belongs_to_another(left, match[1], match[2]):
            with contextlib.suppress(FileNotFoundError, PermissionError):  # its parent is removed; another user's
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _belongs_to_another(left: Path, process: str | None, machine: str | None) -> bool:
    """Whether another running process still writes; None as process: it had written everything."""
    if process is None:
        return False
    if machine not in (None, socket.gethostname()):
        try:
            newest = max(file.lstat().st_mtime for file in [left, *left.rglob("*")])
        except FileNotFoundError:  # it has just been finished
            return True
        return time.time() - newest < ABANDONED_S
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return int(process) != os.getpid()


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn a full disk or a refused permission inside the block into a `StoreError` that names path and free space."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno in REFUSED:
            raise StoreError(_cannot_write(path, f"{error.strerror}", "check the path and its permissions")) from error
        if error.errno not in FULL and not _is_full(error):
            raise
        raise StoreError(_cannot_write(path, f"{error.strerror or error}")) from error
    except Exception as error:
        if not _is_full(error):
            raise
        raise StoreError(_cannot_write(path, f"{error}")) from error


def _is_full(error: Exception) -> bool:
    """Whether an error without errno reports a full disk. Its type is checked first: a message can quote model text."""
    if type(error) is RuntimeError:
        return FULL_IN_TORCH.match(str(error)) is not None
    if type(error) is OSError:
        return error.errno is None and FULL_IN_NUMPY.match(str(error)) is not None
    is_rust = type(error) is Exception or type(error).__module__.partition(".")[0] == "safetensors"
    return is_rust and FULL_IN_RUST.search(str(error)) is not None


@contextlib.contextmanager
def held(path: Path, holder: str, refusal: str, patience_s: float = 0.0) -> Iterator[None]:
    """Hold a lock file that names its holder.

    If another process still holds it after `patience_s` seconds, raises `StoreError` with `refusal`, in which
    `{holder}` is replaced by its name. It is a POSIX lock: it belongs to the process, so two threads of one process are
    not kept apart. The kernel releases it when the process ends, however it ends, and worker processes, which can
    outlive a killed parent, do not inherit it.
    """
    with storing(path):
        file = open(path, "a+")  # noqa: SIM115 (closed below, while the lock is held)
    deadline = time.monotonic() + patience_s
    with file:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(LOOK_EVERY_S)
                    continue
                file.seek(0)
                other = file.read().strip() or "another process"
                raise StoreError(refusal.replace("{holder}", other)) from None
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield


def _cannot_write(path: Path, reason: str, remedy: str = "make room, then run the same command again") -> str:
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    free = shutil.disk_usage(folder).free / 1e6
    return f"cannot write {path}: {reason} ({free:,.1f} MB free there; earlier results are complete): {remedy}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hash of a file's content, or of the names and contents of a folder's files."""
    if path.is_dir():
        return combine({str(file.relative_to(path)): sha256(file) for file in files_in(path)})
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, sorted, so that the order does not depend on the file system."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


def combine(hashes: Mapping[str, str]) -> str:
    """One hash of named hashes, whatever their order."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
