"""JSON Lines: one reader and one resumable writer. Memory stays bounded however large the file is."""

from __future__ import annotations

import codecs
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self

from r1kit import ranks
from r1kit.data.errors import DataError, shown
from r1kit.store import StoreError, atomic_file, open_file, storing, to_plain

MAX_ROW_BYTES = 8 * 2**20  # the longest row of a training sample; longer ones are skipped without being read
MAX_FILE_ROW_BYTES = 64 * 2**20  # the longest row of any file, of people or of r1kit
MAX_ARRAY_BYTES = 2**30  # the longest JSON array, which is read as a whole
BLOCK_BYTES = 2**20
_encode = json.JSONEncoder(ensure_ascii=False).encode


class Line(NamedTuple):
    """A line of a file: its offset and length in bytes, its number from 1, and its text (None if it is too long)."""

    offset: int
    number: int
    length: int
    text: bytes | None


def lines(path: Path, *, offset: int = 0, number: int = 0) -> Iterator[Line]:
    """The lines of a file of samples. To resume after a line, give its number and the offset of its end."""
    with open_file(path) as file:
        file.seek(offset)
        yield from lines_of(file, offset=offset, number=number, max_bytes=MAX_ROW_BYTES)


def lines_of(
    file: BinaryIO, *, offset: int = 0, number: int = 0, max_bytes: int = MAX_FILE_ROW_BYTES, keep_cut_end: bool = False
) -> Iterator[Line]:
    """The lines of an open file that are not blank.

    A last line without a line end that is not valid JSON comes from a writer that is still at work or was killed. It
    is skipped unless `keep_cut_end` is set. A line of more than `max_bytes` has no text.
    """
    while text := file.readline(max_bytes):
        start, number = offset, number + 1
        offset += len(text)
        if len(text) == max_bytes and not text.endswith(b"\n"):
            while (piece := file.readline(BLOCK_BYTES)) and not piece.endswith(b"\n"):
                offset += len(piece)
            offset += len(piece)
            yield Line(start, number, offset - start, None)
        elif not text.isspace():
            if not text.endswith(b"\n") and not keep_cut_end and not _is_json(text):
                return
            yield Line(start, number, len(text), text)


def read_rows(path: Path, *, missing_ok: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a file that r1kit wrote, which may still be growing; raises `DataError` with file and row.

    `missing_ok`: a file that does not exist has no rows.
    """
    if missing_ok and not path.exists():
        return
    with open_file(path) as file:
        for line in lines_of(file):
            yield parsed(line, path)


def parsed(line: Line, path: Path, most: int = MAX_FILE_ROW_BYTES) -> dict[str, Any]:
    """A line as an object; raises `DataError` with file and row. Lines of more than `most` bytes were not read."""
    if line.text is None:
        raise too_large(line, path, most)
    row = parse_row(line.text, path, line.number)
    if isinstance(row, DataError):
        raise row
    return row


def too_large(line: Line, path: Path, most: int) -> DataError:
    """The error of a line that was not read."""
    size = f"the row takes {line.length:,} bytes, and at most {most:,} are allowed"
    return DataError("too large", f"{size}: check that the file has one row per line", str(path), line.number)


def parse_row(line: bytes, path: Path, number: int) -> dict[str, Any] | DataError:
    """One line as an object, or the error that says what is wrong with it."""
    try:
        return as_object(parse_json(line), path, number)
    except DataError as error:
        return error.at(str(path), number)


def parse_json(data: bytes) -> Any:
    """JSON as Python reads it; every failure is a `DataError`."""
    try:
        return json.loads(data.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        raise DataError("invalid UTF-8", f"byte {error.start + 1} is not valid UTF-8: save it as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise DataError("invalid JSON", f"not valid JSON at {place}: {error.msg}") from None
    except RecursionError:
        raise DataError("invalid JSON", "the JSON is nested too deeply") from None
    except ValueError:  # what Python raises for such an integer
        reason = "an integer has more than 4300 digits: write it as text"
        raise DataError("invalid JSON", reason) from None


def as_object(value: Any, path: Path, number: int) -> dict[str, Any] | DataError:
    """A row must be an object with named columns; a list of objects (Open-Reasoner-Zero) has the columns 0, 1 ..."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return {str(place): item for place, item in enumerate(value)}
    reason = f'the row is {shown(value)}: expected an object such as {{"question": "...", "answer": "..."}}'
    return DataError("wrong type", reason, str(path), number)


def is_row(text: bytes) -> bool:
    return _is_json(text) and isinstance(parse_json(text), dict)


def _is_json(text: bytes) -> bool:
    """Whether a text is whole: the beginning of an object never is."""
    try:
        parse_json(text)
    except DataError:
        return False
    return True


def encoded(row: Any) -> bytes:
    """A row as a line; a lone surrogate, which JSON can hold and UTF-8 cannot, becomes "?"."""
    return (_encode(row) + "\n").encode("utf-8", "replace")


class RowWriter:
    """Appends rows to a JSONL file. When `append` returns, other processes see the row.

    Opening a file repairs its end: a row that a killed writer left incomplete is cut off. No other process can write
    until the file is closed (or until this process reads it: a POSIX lock ends with the first `close` of the file).
    Of several ranks, only the first one writes.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        if not ranks.is_first():
            self._file = open(os.devnull, "r+b", buffering=0)  # noqa: SIM115 (closed by close)
            return
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by close)
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _repair_end(self._file)
            except (BlockingIOError, PermissionError):  # POSIX allows either error for a file that is locked
                self._file.close()
                raise StoreError(f"{path} is being written by another process: wait for it or stop it") from None
        self.size = os.fstat(self._file.fileno()).st_size

    def append(self, row: Any) -> None:
        """Add one row (a mapping or a record), whole or not at all."""
        self.write(encoded(to_plain(row)))

    def write(self, lines: bytes) -> None:
        """Add whole lines, all or none of them."""
        with storing(self.path):
            try:
                rest = lines
                while rest:  # a nearly full disk accepts a part and refuses the rest
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self.truncate(self.size)
                raise
        self.size += len(lines)

    def truncate(self, size: int) -> None:
        """Keep only the first `size` bytes."""
        self._file.truncate(size)
        self.size = size

    def count_lines(self) -> int:
        return sum(block.count(b"\n") for block in self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """The content of the file from its beginning."""
        self._file.seek(0)
        yield from iter(lambda: self._file.read(BLOCK_BYTES), b"")

    def sync(self) -> None:
        """Return when all rows would survive a power cut."""
        if ranks.is_first():
            with storing(self.path):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self._file.closed:
            self.sync()
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _repair_end(file: FileIO) -> None:
    """Cut off an incomplete last row, or end a whole one. Reads the last line only, however large the file is."""
    size = start = file.seek(0, os.SEEK_END)
    newline = -1
    while start and newline < 0:
        length = min(start, BLOCK_BYTES)
        start = file.seek(start - length)
        newline = file.read(length).rfind(b"\n")
    end = start + newline + 1
    if end == size:
        return
    file.seek(end)
    if size - end <= MAX_ROW_BYTES and is_row(file.read()):
        file.write(b"\n")
    else:
        file.truncate(end)


class ReplayWriter:
    """Writes a file whose rows are always the same, in the same order, in one attempt or several.

    Rows go to `<name>.part`. The rows that an earlier attempt left there are kept, and as many calls of `put` do
    nothing. `finish` gives the file its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = RowWriter(path.with_name(path.name + ".part"))
        self._written = self._part.count_lines()
        self._waiting = bytearray()  # rows that are written together
        self.rows = 0

    def put(self, make: Callable[[], bytes]) -> None:
        """Add the next row; `make` is called only if the file does not have that row yet."""
        if self.rows >= self._written:
            self._waiting += make()
            if len(self._waiting) >= BLOCK_BYTES:
                self._flush()
        self.rows += 1

    def _flush(self) -> None:
        self._part.write(bytes(self._waiting))
        self._waiting.clear()

    def finish(self) -> None:
        """Sync the file and give it its name."""
        if self.rows < self._written:
            reason = f"has {self._written} rows, expected {self.rows}: delete it and run again"
            raise StoreError(f"{self._part.path} {reason}")
        self._flush()
        self._part.close()
        with storing(self.path):
            os.replace(self._part.path, self.path)

    def close(self) -> None:
        """Close the part; a later attempt continues it."""
        self._part.close()


class Rereader:
    """Reads single lines of several files again, by offset; use as a context manager."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [open(path, "rb") for path in files]  # noqa: SIM115 (closed by __exit__)

    def read(self, file: int, offset: int, length: int) -> bytes:
        self._files[file].seek(offset)
        return self._files[file].read(min(length, MAX_ROW_BYTES))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()


def keep_steps(path: Path, last: int, sha256: str | None = None) -> int:
    """Drop the rows after step `last`, which a run resumed from that step's checkpoint writes again; atomic.

    Returns how many of the steps 1 to `last` have no row: all if there is no file. `sha256` is the file's hash when
    step `last` was its last one. Raises `DataError` for a row without a step, and `StoreError` if all steps have rows
    and they are not those of that hash; the file then stays as it is.
    """
    if not path.exists():
        return max(0, last)
    kept, digest = set(), hashlib.sha256()
    with atomic_file(path) as file:
        for number, row in enumerate(read_rows(path), 1):
            if not isinstance(row.get("step"), int | float):
                reason = "the row has no step: restore the file, or delete the row"
                raise DataError("wrong type", reason, str(path), number)
            if row["step"] <= last:
                kept.add(row["step"])
                line = encoded(row)
                digest.update(line)
                file.write(line)
        lost = max(0, last - len(kept - {0}))
        if not lost and sha256 not in (None, digest.hexdigest()):
            remedy = "restore the file, or delete it to go on without its rows"
            raise StoreError(f"{path} is damaged: its rows up to step {last} are not those that were written; {remedy}")
    return lost
