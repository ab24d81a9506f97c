"""Rows in, judged rows out: shared by the commands `verify` and `score`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from r1kit.data.columns import MISSING, lookup
from r1kit.data.errors import DataError
from r1kit.data.jsonl import RowWriter
from r1kit.data.rows import numbered_rows
from r1kit.store import StoreError

RENAMED = "renamed "  # before a column's name, in counts of rows
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
        raise StoreError(f"{out} already contains rows: name another file or delete it")
    return RowWriter(out)


def with_results(row: Row, results: Mapping[str, Any], counts: Counter[str]) -> Row:
    """A row with results. Its own columns of these names are kept under `input_<name>`, and counted."""
    kept: Row = {}
    for name, value in row.items():
        if name in results:
            name = f"input_{name}"
            while name in row:
                name = f"input_{name}"
            counts[RENAMED + name] += 1
        kept[name] = value
    return kept | dict(results)


def renamed_columns(counts: Mapping[str, int]) -> str:
    """A sentence about the columns that `with_results` renamed; "" if there are none."""
    names = [name.removeprefix(RENAMED) for name in counts if name.startswith(RENAMED)]
    return f"\nthe input's columns of the same names are kept as {', '.join(names)}" if names else ""


def field_of(row: Row, column: str, file: Path, number: int) -> Any:
    """The value of a plain or dotted column; raises `DataError` if the row does not have it."""
    value = lookup(row, column)
    if value is MISSING:
        reason = f"the row has no field {column!r}, only {', '.join(map(repr, row)) or 'none'}"
        raise DataError("missing column", reason, str(file), number, column)
    return value


def is_text(value: Any) -> bool:
    """Whether a value is text or a finite number, which can be written as text."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)
