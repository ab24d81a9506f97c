"""One row as a problem: prompt, reference answer, verifier, language and source, as the schema says."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Any

from r1kit.data.errors import DataError, encodable, shown
from r1kit.tasks.references import PLAIN_NUMBER, clean_number
from r1kit.tasks.schemas import MISSING, Row, Schema, is_language, lookup
from r1kit.types import Problem
from r1kit.verifiers import find


def convert(row: Row, schema: Schema, *, name: str, file: str, number: int, nested_columns: bool = False) -> Problem:
    """Row `number` (from 1) as a problem; raises `DataError` with file, row and field.

    Columns that hold lists or objects are not kept without `nested_columns`: whole conversations can be among them.
    Ids count from 0 and do not change if other rows are skipped: `gsm8k/train/17`.
    """
    field = schema.prompt[0]
    try:
        prompt = read_prompt(row, schema)
        field = schema.answer
        verifier = read_text(row, schema.verifier_column, "verifier") or schema.verifier
        try:
            find(verifier)
        except ValueError as error:
            raise DataError("unknown verifier", str(error), field="verifier") from None
        value = required(row, schema.answer)
        answer = schema.judge(row) if schema.judge else canonical(schema.parse(value), verifier)
        if schema.choices_column:
            options = read_choices(row, schema.choices_column)
            lines = (f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))
            prompt, answer = "\n".join([prompt, *lines]), option_letter(answer, len(options))
        language = read_text(row, schema.language_column, "language") or schema.language
        source = read_text(row, schema.source_column, "source") or name
    except DataError as error:
        raise error.at(file, number, field) from None
    return Problem(
        id=f"{name}/{number - 1}",
        prompt=prompt,
        answer=answer,
        verifier=verifier,
        language=language.lower().partition("-")[0],
        source=source,
        solution=solution_of(row, schema),
        columns={
            key: value for key, value in row.items() if nested_columns or isinstance(value, str | int | float | None)
        },
    )


def read_prompt(row: Row, schema: Schema) -> str:
    """The texts of the prompt columns, joined by a space."""
    text = " ".join(schema.read(required(row, column)) for column in schema.prompt).strip()
    text = schema.ask(row) if schema.ask and text else text
    if not text:
        raise DataError("empty prompt", "the prompt is empty: drop the row or fill it in")
    return text


def read_choices(row: Row, column: str) -> list[str]:
    """The options of a multiple-choice question."""
    choices = required(row, column)
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(ascii_uppercase):
        reason = f"the choices are {shown(choices)}: expected a list of 2 to 26 options"
        raise DataError("wrong type", reason, field=column)
    return [encodable(str(choice).strip()) for choice in choices]


def option_letter(answer: str, size: int) -> str:
    """The letter of the right one of `size` options; `answer` is that letter, or the option's index from 0."""
    letters = ascii_uppercase[:size]
    if answer in (indices := [str(index) for index in range(size)]):
        return letters[indices.index(answer)]
    if len(answer) == 1 and answer.upper() in letters:
        return answer.upper()
    raise DataError("unparsed answer", f"{shown(answer)} is none of the options {letters[0]} to {letters[-1]}")


def required(row: Row, column: str) -> Any:
    """The value of a column; raises `DataError` if the row does not have the column."""
    value = lookup(row, column)
    if value is MISSING:
        reason = f"there is no {column}: the row has {', '.join(row) or 'no columns'}"
        raise DataError("missing column", reason, field=column)
    return value


def read_text(row: Row, column: str, field: str) -> str:
    """An optional column of text; "" if it is null or missing."""
    value = lookup(row, column) if column else None
    if value is None or value is MISSING:
        return ""
    if not isinstance(value, str) or (field == "language" and not is_language(value)):
        expected = "an ISO 639 code such as en" if field == "language" else "text"
        raise DataError("wrong type", f"the {field} is {shown(value)}: expected {expected}", field=column)
    return value


def canonical(answer: str, verifier: str) -> str:
    """The answer, spelled one way if it is a number. The verifier `number` requires a number."""
    if verifier == "number":
        number = clean_number(answer)
        if number is None:
            raise DataError("unparsed answer", f"{shown(answer)} is not a number, as the verifier 'number' needs")
        return number
    # A comma may separate thousands or list members, so only an unmistakable number is respelled (AIME's 025).
    if verifier == "math" and PLAIN_NUMBER.fullmatch(answer):
        return clean_number(answer) or answer
    return answer


def solution_of(row: Row, schema: Schema) -> str:
    """The worked solution of a row: what the schema reads from the answer, or the column `solution`."""
    solution = row.get("solution") if schema.solution is None else schema.solution(row[schema.answer])
    return solution if isinstance(solution, str) else ""
