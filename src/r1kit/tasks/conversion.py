"""One row as a problem: prompt, reference answer, verifier, language and source, as the schema says."""

from __future__ import annotations

import re
from typing import Any

from r1kit.data.columns import MISSING, is_empty, lookup
from r1kit.data.errors import DataError, shown
from r1kit.tasks.choices import dealt, read_options, right_letter
from r1kit.tasks.references import reference, reference_for
from r1kit.tasks.refusal import refuse_unexplained
from r1kit.tasks.schemas import Row, Schema, is_language
from r1kit.tasks.structured import structured
from r1kit.tasks.worked_messages import user_text
from r1kit.types import Problem
from r1kit.verifiers import find

MAX_WORDS = 12  # of an answer without a verifier; longer ones are worked answers
WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}|[\u3040-\u9fff]{2}")


def convert(row: Row, schema: Schema, *, name: str, file: str, number: int, nested_columns: bool = False) -> Problem:
    """Row `number` (from 1) as a problem; raises `DataError` with file, row and field.

    Columns that hold lists or objects are not kept without `nested_columns`: whole conversations can be among them.
    Ids count from 0 and do not change if other rows are skipped: `gsm8k/train/17`.
    """
    field = schema.prompt[0]
    try:
        for column in schema.columns:
            required(row, column)
        refuse_unexplained(row, schema)
        prompt = read_prompt(row, schema)
        field = schema.answer
        if schema.check is not None:
            schema.check(row)
        verifier = read_text(row, schema.verifier_column, "verifier") or schema.verifier
        if schema.choices or schema.wrong:
            verifier = verifier or "choice"
            prompt, answer = read_choices(row, schema, prompt)
        elif schema.hold is not None:
            answer = schema.hold(row)
        else:
            verifier, answer = read_answer(row, schema, verifier)
        try:
            find(verifier)
        except ValueError as error:
            raise DataError("unknown verifier", str(error), field="verifier") from None
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
            key: value
            for key, value in row.items()
            if key not in schema.drops and (nested_columns or isinstance(value, str | int | float | None))
        },
    )


def read_prompt(row: Row, schema: Schema) -> str:
    """The texts of the prompt columns, after a system message if there is one."""
    if schema.ask is not None:
        text = schema.ask(row)
    else:
        parts = [user_text(value, schema.system != "") for column in schema.prompt if (value := lookup(row, column))]
        if schema.system and schema.system not in schema.prompt:
            parts.insert(0, read_text(row, schema.system, "system message").strip())
        text = schema.joint.join(filter(None, parts)).strip()
    if not text:
        raise DataError("empty prompt", "the prompt is empty: drop the row or fill it in")
    return text


def read_answer(row: Row, schema: Schema, verifier: str) -> tuple[str, str]:
    """The verifier and the reference. Without a verifier, the form of the answer tells it: tests, puzzle, or text."""
    value = lookup(row, schema.answer)
    if not verifier and not schema.several and (form := structured(value)):
        return form
    answer = reference_for(verifier or "math", value, schema.several, schema.parse)
    if not verifier and not schema.several and len(WORDS.findall(answer)) > MAX_WORDS:
        reason = f"{shown(answer)} is a worked answer, which would have to be repeated word by word"
        raise DataError("unparsed answer", f"{reason}: mark the result with \\boxed{{}} or ####, or name a verifier")
    return verifier or "math", answer


def read_choices(row: Row, schema: Schema, question: str) -> tuple[str, str]:
    """The prompt with its options, and the letter of the right one."""
    value = lookup(row, schema.answer)
    if is_empty(value):
        raise DataError("empty answer", "the answer is empty: drop the row or fill it in")
    if schema.wrong:
        right, *others = (reference(lookup(row, column)) for column in (schema.answer, *schema.wrong))
        options, letter = dealt(right, others, question)
        return options.ask(question), letter
    options = read_options(lookup(row, schema.choices), schema.choices)
    return options.ask(question), right_letter(value, options, schema.first, schema.by_label)


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


def solution_of(row: Row, schema: Schema) -> str:
    """The worked solution of a row: what the schema reads from the row or the answer, or the column `solution`."""
    if schema.work is not None:
        return schema.work(row)
    solution = row.get("solution") if schema.solution is None else schema.solution(row[schema.answer])
    return solution if isinstance(solution, str) else ""
