"""Rows of JSON Lines, JSON and Parquet files, each with its number and as a dict or as the error that explains it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from r1kit.data.errors import DataError
from r1kit.data.jsonl import MAX_ARRAY_BYTES, MAX_FILE_ROW_BYTES, as_object, lines_of, parse_json, parse_row, too_large

# A bad row is yielded as its error, so that a check can continue after it.
NumberedRow = tuple[int, dict[str, Any] | DataError]
SUFFIXES = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".parquet")


def numbered_rows(path: Path) -> Iterator[NumberedRow]:
    """The rows of a file, numbered from 1 (JSON Lines: by line; blank lines are skipped).

    Raises `DataError` if the file as a whole cannot be read or has no rows.
    """
    if not path.exists():
        raise DataError("missing file", "there is no such file", str(path))
    if path.is_dir():
        raise DataError("missing file", "this is a folder: name one file in it", str(path))
    if not path.is_file():
        raise DataError("wrong type", "this is a pipe or a device, which may have no end: name a file", str(path))
    if not path.name.endswith(SUFFIXES):
        reason = f"unknown kind of file: expected one of {', '.join(SUFFIXES)}"
        if path.suffix in (".csv", ".tsv"):
            call = "read_csv(FILE)" if path.suffix == ".csv" else "read_csv(FILE, sep='\\t')"
            reason += f"; with pandas, {call}.to_json('rows.jsonl', orient='records', lines=True) writes one of it"
        raise DataError("wrong type", reason, str(path))
    rows = parquet_rows(path) if path.suffix == ".parquet" else json_rows(path)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DataError("empty file", "the file has no rows", str(path))


def readable_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; raises `DataError` for the first that cannot be read, such as a last row that was cut off."""
    for _, row in numbered_rows(path):
        if isinstance(row, DataError):
            raise row
        yield row


def stem(path: Path) -> str:
    """The file's name without its suffixes: `train` of `train.jsonl.gz`."""
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix)


def json_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of a .jsonl or .json file, compressed or not."""
    try:
        with cast(BinaryIO, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
            # Many .json files hold JSON Lines: only a first "[" means an array.
            head = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
            file.seek(0)
            if ".json" in path.suffixes[-2:] and head[:1] == b"[":
                text = file.read(MAX_ARRAY_BYTES + 1)
                if len(text) > MAX_ARRAY_BYTES:
                    reason = f"a JSON array of more than {MAX_ARRAY_BYTES:,} bytes: write one row per line, as .jsonl"
                    raise DataError("too large", reason)
                for number, value in enumerate(parse_json(text), start=1):
                    yield number, as_object(value, path, number)
                return
            for line in lines_of(file, max_bytes=MAX_FILE_ROW_BYTES, keep_cut_end=True):
                if line.text is None:
                    yield line.number, too_large(line, path, MAX_FILE_ROW_BYTES)
                else:
                    yield line.number, parse_row(line.text, path, line.number)
    except DataError as error:
        raise error.at(str(path)) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = f"the gzip data is cut off or damaged ({error}): fetch the file again"
        raise DataError("damaged file", reason, str(path)) from None
    except OSError as error:
        raise DataError("damaged file", f"the file cannot be read: {error.strerror or error}", str(path)) from None


def parquet_rows(path: Path) -> Iterator[NumberedRow]:
    """Rows of a Parquet file, one batch in memory at a time."""
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
