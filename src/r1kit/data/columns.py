"""Columns of data files: mappings from our names to theirs, nested values, and columns that must not be overlooked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BeforeValidator

from r1kit.data.errors import DataError
from r1kit.settings import nearest

MISSING = object()  # tells a missing column from null
# Columns that hold a part of the question or of the answer. A number at the end does not count: image_1 is an image.
TELLING = re.compile(
    r"options?|choices?|endings|distractors?|incorrect_answers?|wrong_answers?"
    r"|system|system_prompt|instructions?|context|passage|paragraph|article|story|body|documents?|tables?|input|premise"
    r"|hypothesis|dialogue|history|tools|functions"
    r"|starter_code|images?|pictures?|figures?|videos?|audios?"
    r"|prompt|question|problem"
    r"|answers?|answer_key|answerkey|answer_idx|answer_index|final_answers?|expected_answers?|correct_answers?"
    r"|reference_answers?|references?|ground_truths?|reward_model|gold|gold_answers?|targets?|unit|tolerance|solution"
    r"|tests?|test_list|test_cases|unit_tests?|input_output|public_test_cases|private_test_cases|official_tests"
    r"|entry_point|chosen|rejected"
)


def lookup(row: Mapping[str, Any], column: str) -> Any:
    """The value of a plain or dotted column (`reward_model.ground_truth`), or `MISSING`."""
    if column in row:
        return row[column]
    head, dot, rest = column.partition(".")
    inner = row.get(head)
    return lookup(inner, rest) if dot and isinstance(inner, Mapping) else MISSING


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: missing, null, blank text, or an empty list or object."""
    if isinstance(value, str):
        return not value.strip()
    return value is MISSING or value is None or (isinstance(value, Sequence | Mapping) and not value)


@lru_cache(maxsize=4096)
def normal(column: str) -> str:
    """A column's name in one spelling: "Correct Answer" is "correct_answer", "image_1" is "image"."""
    return re.sub(r"[\W_]+", "_", re.sub(r"[\W_]*\d+$", "", column)).strip("_").lower()


def telling(row: Mapping[str, Any]) -> list[str]:
    """The columns of a row that hold a part of the question or of the answer. Flags and empty values do not count."""
    return [
        column
        for column, value in row.items()
        if TELLING.fullmatch(normal(column)) and not isinstance(value, bool) and not is_empty(value)
    ]


def parse_columns(value: Any) -> Any:
    """A mapping as text, `"prompt=q,answer=a"`, as `{"prompt": "q", "answer": "a"}`; any other value as it is."""
    if not isinstance(value, str):
        return value
    columns: dict[str, str] = {}
    for part in value.split(","):
        field, equals, column = (text.strip() for text in part.partition("="))
        if not equals or not field or field in columns:
            reason = "expected each of our names once, as in prompt=question,answer=final_answer"
            raise ValueError(f"columns are {value!r}: {reason}")
        columns[field] = column
    return columns


ColumnMap = Annotated[dict[str, str], BeforeValidator(parse_columns)]


def check_fields(columns: Mapping[str, str], fields: Sequence[str]) -> None:
    """Raise `DataError` for a name in a mapping that is none of `fields`."""
    for field, column in columns.items():
        if field not in fields:
            swapped = f"the data's name comes second: {column}={field}" if column in fields else nearest(field, fields)
            raise DataError("missing column", f"columns names the field {field!r}, which does not exist: {swapped}")
