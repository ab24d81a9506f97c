"""The refusal of rows with a column that a guess would overlook, and the mappings that settle it."""

from __future__ import annotations

from collections.abc import Sequence

from r1kit.data.columns import is_empty, normal
from r1kit.data.errors import DataError
from r1kit.tasks.schemas import Row, Schema


def refuse_unexplained(row: Row, schema: Schema) -> None:
    """Raise `DataError` for a row with a column that tells something and that the schema does not read.

    Twins of a column that it reads must hold the same.
    """
    for column, twin in schema.twins:
        if not is_empty(row.get(twin)) and str(row.get(column)).strip() != str(row[twin]).strip():
            reason = f"{column} and {twin} differ: {remedy(schema)}; name {twin} instead if it is the right one"
            raise DataError("ambiguous columns", reason, field=twin)
    if columns := schema.unexplained(row):
        reason = f"{', '.join(columns)} would not be used, and may be a part of the question or of the answer"
        raise DataError("ambiguous columns", f"{reason}: {remedy(schema, columns)}", field=columns[0])


def remedy(schema: Schema, columns: Sequence[str] = ()) -> str:
    """The mapping that reads the schema's columns alone, and those that read more of `columns`."""
    fields = {"prompt": "+".join(schema.prompt), "answer": schema.answer, "choices": schema.choices}
    plain = ",".join(f"{field}={column}" for field, column in fields.items() if column)
    more = {
        "system": "system",
        "system_prompt": "system",
        "instruction": "system",
        "options": "choices",
        "choices": "choices",
    }
    hints = [f"{plain},{more[normal(column)]}={column}" for column in columns if normal(column) in more]
    texts = [column for column in columns if normal(column) in ("context", "passage", "paragraph", "input", "body")]
    hints += [f"prompt={column}+{plain.removeprefix('prompt=')}" for column in texts]
    also = f", or to {' or '.join(map(repr, hints))}" if hints else ""
    return f"set columns to {plain!r} to use these alone{also}"
