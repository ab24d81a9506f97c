"""Files that are either whole or not there: atomic writes, append-only JSONL, and content hashes.

Everything that a run leaves on disk goes through here, so that a kill or a full disk at any instant costs at most the
file being written, never an earlier one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)
# Writers that are not Python's tell of a full disk in words only; torch.save's are those of a short write.
FULL_IN_WORDS = re.compile(
    r"No space left|Disk quota|File too large|os error (27|28|122)\b|file write failed|unexpected pos|iostream error"
)


class StoreError(RuntimeError):
    """A file could not be written or a run folder is not as it should be; what was there before is still whole."""


def to_plain(value: Any) -> Any:
    """Plain JSON data of records, numpy scalars and paths; a number that is not finite becomes None (JSON has none)."""
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
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
    raise ValueError(f"cannot store a {type(value).__name__} as JSON: {value!r:.80}")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file so that readers see the old content or the new, never a part; raises `StoreError`.

    The new one takes the path's place when the block ends well.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
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
    """`atomic_file` for content that is there already."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for UTF-8 text; a lone surrogate, which model text may hold, is written as "?"."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: Path, value: Any) -> None:
    """`write_text` for anything that `to_plain` understands."""
    write_text(path, json.dumps(to_plain(value), ensure_ascii=False, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The content of a JSON file; raises `StoreError` that names a file that is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path} is not JSON ({error}): it was damaged or edited; restore or delete it") from None


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Fill a folder beside `path`, which becomes `path` when the block ends well and is removed when it fails.

    A folder that is already there is replaced, as the last thing. Name checkpoints by their step rather than
    replace one: a kill between the two renames leaves the old folder as `.<name>.old`.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with storing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in path.parent.glob(f".{path.name}.tmp-*"):  # by a process that was killed
                shutil.rmtree(left)
            temporary.mkdir()
            yield temporary
            for file in [*temporary.rglob("*"), temporary]:
                _sync(file)
            _replace_folder(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace_folder(new: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(path, old)
    os.rename(new, path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn "no room" and "not allowed" of whatever writes inside into one `StoreError` that names path and space."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        if error.errno not in FULL + REFUSED:
            raise
        raise StoreError(_cannot_write(path, str(error.strerror), error.errno in FULL)) from error
    except Exception as error:
        if not FULL_IN_WORDS.search(str(error)):
            raise
        raise StoreError(_cannot_write(path, str(error), True)) from error


@contextlib.contextmanager
def held(path: Path, holder: str, refusal: str) -> Iterator[None]:
    """Hold a lock file that names its holder; raises `StoreError` where another process does: `refusal` on whom.

    The kernel frees the lock when the process ends, however it ends. It is a lock of the process and not of the open
    file: worker processes, which may outlive a killed parent for a moment, do not inherit it.
    """
    with storing(path):
        file = open(path, "a+")  # noqa: SIM115 (closed below, while the lock is held)
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            other = file.read().strip() or "another process"
            raise StoreError(refusal.replace("{holder}", other)) from None
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield


def _cannot_write(path: Path, reason: str, full: bool) -> str:
    place = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    remedy = "make room, then run the same command again" if full else "check the path and its permissions"
    return f"cannot write {path}: {reason} ({free / 1e6:,.1f} MB free there; earlier results are whole): {remedy}"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RowWriter:
    """Appends rows to a JSONL file; each row is on disk, as far as other processes see, when `append` returns.

    Opening mends the end of a file whose writer was killed in the middle of a row, and keeps other processes from
    writing until it is closed (or until this process reads the file: such locks end with the first `close`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by close)
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _mend_end(self._file)
            except (BlockingIOError, PermissionError):  # the two ways to say that it is locked
                self._file.close()
                raise StoreError(f"{path} is being written by another process: wait for it or stop it") from None

    def append(self, row: Any) -> None:
        """Add one row (a mapping or a record), whole or not at all."""
        line = (json.dumps(to_plain(row), ensure_ascii=False) + "\n").encode("utf-8", "replace")
        size = os.fstat(self._file.fileno()).st_size
        with storing(self.path):
            try:
                while line:  # a nearly full disk takes a part first and refuses the rest
                    line = line[self._file.write(line) :]
            except OSError:
                os.truncate(self.path, size)
                raise

    def close(self) -> None:
        """Make sure that all rows survive a power cut, and close."""
        if self._file.closed:
            return
        with storing(self.path):
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _mend_end(file: FileIO) -> None:
    file.seek(0)
    data = file.read()
    start = data.rfind(b"\n") + 1
    if start == len(data):
        return
    if _is_json(data[start:]):
        file.write(b"\n")
    else:
        file.truncate(start)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, blank lines skipped; a last row that was written in part is left out.

    Raises ValueError with file and line for any other line that is not a JSON object.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                if not line.endswith(b"\n"):  # only the last line can lack its end
                    return
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: a JSON object is expected, found {line[:60]!r}")
            yield row


def keep_rows(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Keep only some rows of a JSONL file, atomically; a file that is not there stays so."""
    if path.exists():
        kept = [json.dumps(row, ensure_ascii=False) + "\n" for row in read_rows(path) if keep(row)]
        write_text(path, "".join(kept))


def keep_steps(path: Path, last: int) -> None:
    """Drop the rows after step `last`: what a resume from that step's checkpoint is going to write again."""
    keep_rows(path, lambda row: row["step"] <= last)


def sha256(path: Path) -> str:
    """Hash of a file's content, or of a folder's files with their relative names."""
    if path.is_dir():
        return combine({str(file.relative_to(path)): sha256(file) for file in files_in(path)})
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, in an order that does not depend on the file system."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


def combine(hashes: Mapping[str, str]) -> str:
    """One hash of named hashes, whatever their order."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
