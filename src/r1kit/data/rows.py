"""Rows of JSON Lines, JSON and Parquet files, each row a dict or the error that says what is wrong with it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from r1kit.data.errors import DataError, shown

# A row that cannot be read is yielded as its error, so that a check can go on behind it where the format allows.
NumberedRow = tuple[int, dict[str, Any] | DataError]
SUFFIXES = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".parquet")


def read_rows(path: Path) -> Iterator[NumberedRow]:
    """Numbered rows of a file, from 1 (JSON Lines: line numbers; blank lines are passed over).

    Raises `DataError` where the file as a whole cannot be read or is empty.
    """
    if not path.exists():
        raise DataError("missing file", "there is no such file", str(path))
    if path.is_dir():
        raise DataError("missing file", "this is a folder: name one file in it", str(path))
    if not path.name.endswith(SUFFIXES):
        raise DataError("wrong type", f"unknown kind of file: expected one of {', '.join(SUFFIXES)}", str(path))
    rows = parquet_rows(path) if path.suffix == ".parquet" else json_rows(path)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DataError("empty file", "the file has no rows", str(path))


def stem(path: Path) -> str:
    """The file's name without its kind: `train` of `train.jsonl.gz`."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def json_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of a .jsonl or .json file, compressed or not."""
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            # Many a .json file holds JSON Lines: the first character tells.
            is_array = ".json" in path.suffixes[-2:] and first_byte(file) == b"["
            yield from array_rows(file.read(), path) if is_array else line_rows(file, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = f"the gzip data is cut off or damaged ({error}): fetch the file again"
        raise DataError("damaged file", reason, str(path)) from None
    except OSError as error:
        raise DataError("damaged file", f"the file cannot be read: {error.strerror or error}", str(path)) from None


def first_byte(file: BinaryIO) -> bytes:
    """The first byte that is not white space or a byte order mark; the file is wound back."""
    head = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    file.seek(0)
    return head[:1]


def line_rows(file: BinaryIO, path: Path) -> Iterator[NumberedRow]:
    """JSON Lines: one object a line."""
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield number, parse_row(line, path, number)


def parse_row(line: bytes, path: Path, number: int) -> dict[str, Any] | DataError:
    """One line as an object, or what is wrong with it."""
    try:
        return as_object(parse_json(line), path, number)
    except DataError as error:
        return error.at(str(path), number)


def array_rows(data: bytes, path: Path) -> Iterator[NumberedRow]:
    """A JSON array of objects."""
    try:
        values = parse_json(data)
    except DataError as error:
        raise error.at(str(path)) from None
    for number, value in enumerate(values, start=1):
        yield number, as_object(value, path, number)


def parse_json(data: bytes) -> Any:
    """JSON as Python reads it; every way in which it can fail is one `DataError`."""
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError("invalid UTF-8", f"byte {error.start + 1} is not valid UTF-8: save it as UTF-8") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise DataError("invalid JSON", f"not valid JSON at {place}: {error.msg}") from None
    except RecursionError:
        raise DataError("invalid JSON", "the JSON is nested too deeply") from None
    except ValueError as error:  # an integer of more than 4300 digits
        raise DataError("invalid JSON", f"not readable JSON: {error}") from None


def as_object(value: Any, path: Path, number: int) -> dict[str, Any] | DataError:
    """A row must be an object with named columns."""
    if isinstance(value, dict):
        return value
    reason = f'the row is {shown(value)}: expected an object such as {{"question": "...", "answer": "..."}}'
    return DataError("wrong type", reason, str(path), number)


def parquet_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of a Parquet file, a batch at a time."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise DataError("wrong type", "Parquet files need pyarrow: pip install pyarrow", str(path)) from None
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError("damaged file", f"not a readable Parquet file: {error}", str(path)) from None
