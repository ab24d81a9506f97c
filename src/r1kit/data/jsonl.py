"""JSONL in and out, sized for files that do not fit in memory and for runs that are killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from r1kit import store
from r1kit.data.errors import DataError
from r1kit.data.rows import parse_row

MAX_ROW_BYTES = 8 * 2**20  # a longer line is not read into memory
_SKIPPED_BYTES = 2**20


class Line(NamedTuple):
    """One line of a file: where it starts, its number from 1, how many bytes it takes, and its text.

    `text` is None for a line that is longer than `MAX_ROW_BYTES`.
    """

    offset: int
    number: int
    length: int
    text: bytes | None


def lines(path: Path, *, offset: int = 0, number: int = 0) -> Iterator[Line]:
    """The lines of a file that are not blank, from an offset on behind which line `number` ended.

    A last line without its end that is not whole JSON is left out: its writer was stopped in the middle.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        while text := file.readline(MAX_ROW_BYTES):
            start, offset, number = offset, offset + len(text), number + 1
            if not text.endswith(b"\n") and len(text) == MAX_ROW_BYTES:
                length = len(text) + _skip_line(file)
                offset = start + length
                yield Line(start, number, length, None)
            elif not text.isspace():
                if not text.endswith(b"\n") and isinstance(parse_row(text, path, number), DataError):
                    return
                yield Line(start, number, len(text), text)


def _skip_line(file: BinaryIO) -> int:
    skipped = 0
    while piece := file.readline(_SKIPPED_BYTES):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def parsed(line: Line, path: Path) -> dict[str, Any]:
    """A line as an object; raises `DataError` that names file and row."""
    if line.text is None:
        reason = f"the row takes {line.length / 2**20:.0f} MB, at most {MAX_ROW_BYTES // 2**20}: no sample is that long"
        raise DataError("too large", reason, str(path), line.number)
    row = parse_row(line.text, path, line.number)
    if isinstance(row, DataError):
        raise row
    return row


class Rereader:
    """Reads single lines of several files again, by offset; use as a context manager."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [open(path, "rb") for path in files]  # noqa: SIM115 (closed by __exit__)

    def read(self, file: int, offset: int, length: int) -> bytes:
        self._files[file].seek(offset)
        return self._files[file].read(min(length, MAX_ROW_BYTES))

    def __enter__(self) -> Rereader:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()


def encoded(row: Any) -> bytes:
    """A row as a line; half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes "?"."""
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")


class Output:
    """A JSONL file that is written in one go or in several, always with the same rows in the same order.

    Rows go to `<name>.part`; what an earlier attempt left there is kept, and as many rows are passed over. `finish`
    gives the file its name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part = path.with_name(path.name + ".part")
        with store.storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._part, "a+b", buffering=2**20)  # noqa: SIM115 (closed by close)
        self._left = _mend(self._file)
        self.rows = 0

    def put(self, make: Callable[[], bytes]) -> None:
        """Add the next row; its line is only made where it is not in the file yet."""
        if self.rows >= self._left:
            with store.storing(self.path):
                self._file.write(make())
        self.rows += 1

    def finish(self) -> None:
        """All rows are there: make sure that they survive a power cut, and give the file its name."""
        if self.rows < self._left:
            raise store.StoreError(f"{self._part} has {self._left} rows, expected {self.rows}: delete it and run again")
        with store.storing(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._part, self.path)

    def close(self) -> None:
        """Leave the file for a later attempt."""
        with store.storing(self.path):  # closing writes what is left in the buffer
            self._file.close()


def _mend(file: Any) -> int:
    """Cut off a row that was written in part; the number of rows."""
    file.seek(0)
    rows = position = end = 0
    while piece := file.read(2**20):
        rows += piece.count(b"\n")
        if b"\n" in piece:
            end = position + piece.rfind(b"\n") + 1
        position += len(piece)
    file.truncate(end)
    file.seek(0, os.SEEK_END)
    return rows
