"""Problems from a file: read, recognise the columns, turn each row into a problem, all checked at loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypedDict, Unpack

from r1kit.data.errors import DataError
from r1kit.data.rows import NumberedRow, read_rows, stem
from r1kit.tasks.base import Listed
from r1kit.tasks.schemas import Schema, convert, guess, mapped, relabelled
from r1kit.types import Problem

SAMPLED_ROWS = 20  # the schema is guessed from these, so one bad row at the top does not hide it


class ReadOptions(TypedDict, total=False):
    """How rows become problems, for files and hub data sets alike; `from_rows` says what each one does."""

    columns: Mapping[str, str] | None
    schema: Schema | None
    verifier: str | None
    language: str | None
    skip_invalid: bool


def load_file(path: str | Path, *, name: str = "", **options: Unpack[ReadOptions]) -> Listed:
    """A JSONL, JSON (both also .gz) or Parquet file as a task, named `<folder>/<file>` unless `name` is given."""
    path = Path(path).expanduser()
    name = name or f"{path.absolute().parent.name}/{stem(path)}".lstrip("/")
    return from_rows(read_rows(path), name=name, file=str(path), **options)


def from_rows(
    rows: Iterable[NumberedRow],
    *,
    name: str,
    file: str,
    columns: Mapping[str, str] | None = None,
    schema: Schema | None = None,
    verifier: str | None = None,
    language: str | None = None,
    skip_invalid: bool = False,
) -> Listed:
    """Rows of any source as a task.

    `columns` maps our fields to the data's ({"prompt": "q", "answer": "a"}), else `schema` is taken or guessed.
    `verifier` and `language` hold for all rows. The first fault raises `DataError` with file, row and field; with
    `skip_invalid`, faulty rows are left out and kept in `skipped`, and only data without one good row is an error.
    """
    schema = mapped(columns) if columns else schema
    if schema is None:
        schema, rows = recognise(rows, file)
    schema = relabelled(schema, verifier, language)
    problems: list[Problem] = []
    skipped: list[DataError] = []
    for number, row in rows:
        try:
            problems.append(problem_of(row, schema, name=name, file=file, number=number))
        except DataError as error:
            if not skip_invalid:
                raise
            skipped.append(error)
    if not problems:
        raise DataError("empty file", f"none of {len(skipped)} rows is usable; the first: {skipped[0]}", file)
    return Listed(name=name, problems=tuple(problems), skipped=tuple(skipped))


def problem_of(row: dict[str, Any] | DataError, schema: Schema, *, name: str, file: str, number: int) -> Problem:
    """A row as a problem; a row that could not be read raises its error."""
    if isinstance(row, DataError):
        raise row
    return convert(row, schema, name=name, file=file, number=number)


def recognise(rows: Iterable[NumberedRow], file: str) -> tuple[Schema, Iterable[NumberedRow]]:
    """The schema that the first rows have, and all the rows again."""
    rest = iter(rows)
    head = list(islice(rest, SAMPLED_ROWS))
    sample: dict[str, Any] = {}
    for _, row in head:
        if isinstance(row, dict):
            sample |= {key: value for key, value in row.items() if sample.get(key) is None}
    if not sample and (broken := next((row for _, row in head if isinstance(row, DataError)), None)):
        raise broken
    return guess(sample, file), chain(head, rest)
