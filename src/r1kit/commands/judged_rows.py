"""Rows in, judged rows out: shared by the commands `verify` and `score`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from r1kit.data.errors import DataError
from r1kit.data.jsonl import RowWriter
from r1kit.data.rows import numbered_rows
from r1kit.store import StoreError

BATCH = 256  # rows that are judged side by side, and the most that are in memory

Row = dict[str, Any]


def batches(file: Path) -> Iterator[list[tuple[int, Row]]]:
    """Numbered rows of a file. Raises `DataError` at the first row that is not a JSON object."""
    rows = numbered_rows(file)
    while batch := list(islice(rows, BATCH)):
        valid: list[tuple[int, Row]] = []
        for number, row in batch:
            if isinstance(row, DataError):
                raise row
            valid.append((number, row))
        yield valid


def open_writer(out: Path | None) -> AbstractContextManager[RowWriter | None]:
    """A writer of a new file; None for no file."""
    if out is None:
        return nullcontext()
    if out.exists() and out.stat().st_size:
        raise StoreError(f"{out} already holds rows: name another file or delete it")
    return RowWriter(out)


def is_text(value: Any) -> bool:
    """Whether a value is text or a finite number, which can be written as text."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)
