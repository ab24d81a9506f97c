"""Problems from rows: recognise the columns, then turn each row into a problem. Every row is checked at loading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypedDict

from r1kit.data.errors import DataError
from r1kit.data.rows import NumberedRow
from r1kit.tasks.base import Listed
from r1kit.tasks.conversion import convert
from r1kit.tasks.mapping import mapped
from r1kit.tasks.recognition import guess
from r1kit.tasks.schemas import Schema, relabelled
from r1kit.types import Problem

SAMPLED_ROWS = 20  # the schema is guessed from several rows, so one bad row at the top does not matter


class ReadOptions(TypedDict, total=False):
    """How rows become problems, for files and hub data sets; `from_rows` documents the options."""

    columns: Mapping[str, str] | None
    schema: Schema | None
    verifier: str | None
    language: str | None
    skip_invalid: bool
    nested_columns: bool


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
    nested_columns: bool = False,
) -> Listed:
    """Rows of any source as a task.

    `columns` maps our fields to the data's ({"prompt": "q", "answer": "a"}, see `mapping.mapped`). Without it, `schema`
    is used, or guessed if that is None. `verifier` and `language` override those of all rows. The first faulty row
    raises `DataError` with file, row and field. With `skip_invalid`, faulty rows are listed in `skipped` instead, and
    only data without a single usable row is an error. `nested_columns` keeps columns of lists and objects in
    `Problem.columns` too.
    """
    schema, reading = mapped(columns) if columns else schema, ""
    if schema is None:
        head, rows = head_of(rows)
        schema = guess(head, file)
        reading = f"{file}: {schema.reading(column for row in head for column in row)}"
    schema = relabelled(schema, verifier, language)
    problems: list[Problem] = []
    skipped: list[DataError] = []
    for number, row in rows:
        try:
            problems.append(problem_of(row, schema, nested_columns, name=name, file=file, number=number))
        except DataError as error:
            if not skip_invalid:
                raise
            skipped.append(error)
    if not problems:
        raise DataError("empty file", f"none of {len(skipped)} rows is usable; the first: {skipped[0]}", file)
    return Listed(name=name, problems=tuple(problems), skipped=tuple(skipped), reading=reading)


def problem_of(
    row: dict[str, Any] | DataError, schema: Schema, nested_columns: bool = False, *, name: str, file: str, number: int
) -> Problem:
    """A row as a problem; raises `DataError` if the row is faulty or could not be read."""
    if isinstance(row, DataError):
        raise row
    return convert(row, schema, name=name, file=file, number=number, nested_columns=nested_columns)


def head_of(rows: Iterable[NumberedRow]) -> tuple[list[dict[str, Any]], Iterator[NumberedRow]]:
    """The first rows, and an iterator over all; raises the first row's error if none of the first can be read."""
    rest = iter(rows)
    head = list(islice(rest, SAMPLED_ROWS))
    sample = [row for _, row in head if isinstance(row, dict)]
    if not sample and (broken := next((row for _, row in head if isinstance(row, DataError)), None)):
        raise broken
    return sample, chain(head, rest)
