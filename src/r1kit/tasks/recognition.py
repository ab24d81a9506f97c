"""Which shape the rows of a file have. A guess that could mean two things, or that overlooks a column, is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from r1kit.data.columns import is_empty, normal
from r1kit.data.errors import DataError
from r1kit.tasks.choices import as_number, first_number, read_options
from r1kit.tasks.known_shapes import SCHEMAS
from r1kit.tasks.references import gold, reference
from r1kit.tasks.refusal import refuse_unexplained, remedy
from r1kit.tasks.schemas import Row, Schema, is_language

PROMPTS = ("prompt", "question", "problem")
ANSWERS = ("answer", "final_answer", "ground_truth", "expected_answer", "reference_answer")
CHOICES = ("choices", "options")


def guess(rows: Sequence[Row], file: str) -> Schema:
    """The shape of a known set, the most specific one that fits, or a prompt and an answer by their usual names.

    Raises `DataError` with the columns and the mapping that would settle it.
    """
    sample = sample_of(rows)
    fitting = sorted((schema for schema in SCHEMAS.values() if schema.fits(sample)), key=lambda each: len(each.columns))
    try:
        if not fitting:
            return with_first(usual(rows, sample), rows)
        if len(fitting) > 1 and len(fitting[-1].columns) == len(fitting[-2].columns):
            names = " and ".join(schema.name for schema in fitting[-2:])
            raise DataError("ambiguous columns", f"the columns fit the sets {names}: {remedy(fitting[-1])}")
    except DataError as error:
        raise error.at(file) from None
    return fitting[-1]


def sample_of(rows: Sequence[Row]) -> dict[str, Any]:
    """All columns of these rows, each with its first value that is not empty."""
    sample: dict[str, Any] = {}
    for row in rows:
        sample |= {key: value for key, value in row.items() if key not in sample or is_empty(sample[key])}
    return sample


def usual(rows: Sequence[Row], sample: Row) -> Schema:
    """Rows with a prompt, an answer and perhaps choices by their usual names, and no other column that counts."""
    prompts, answers = named(PROMPTS, sample), named(ANSWERS, sample) or named(("solution",), sample)
    if not prompts or not answers:
        field, known = ("answer", (*ANSWERS, "solution")) if prompts else ("prompt", PROMPTS)
        reason = f"no {field} column among {', '.join(sorted(sample)) or 'no columns'}"
        mapping = f"prompt={prompts[0] if prompts else '...'},answer=..."
        remedies = f"expected one of {', '.join(known)}, or set columns to {mapping!r}"
        raise DataError("missing column", f"{reason}: {remedies}", field=field)
    choices = named(CHOICES, sample)
    solution = [column for column in sample if normal(column) == "solution"]
    schema = Schema(
        name="+".join([prompts[0], *choices[:1], answers[0]]),
        prompt=(prompts[0],),
        answer=answers[0],
        explains=tuple(solution),
        twins=tuple((columns[0], other) for columns in (prompts, answers) for other in columns[1:]),
        parse=gold if answers[0] in solution else reference,
        verifier="choice" if choices else "",
        verifier_column="verifier" if isinstance(sample.get("verifier"), str) else "",
        language_column=next((name for name in ("language", "lang") if is_language(sample.get(name))), ""),
        source_column="source" if isinstance(sample.get("source"), str) else "",
        choices=choices[0] if choices else "",
    )
    for row in rows:
        refuse_unexplained(row, schema)
    return schema


def named(names: Sequence[str], sample: Row) -> list[str]:
    """The columns of these names, whatever their capitals, in this order; empty ones only if there is no other."""
    columns = sorted((each for each in sample if normal(each) in names), key=lambda each: names.index(normal(each)))
    return [column for column in columns if not is_empty(sample[column])] or columns[:1]


def with_first(schema: Schema, rows: Sequence[Row]) -> Schema:
    """The schema, with what the rows show about their answers: the number of the first option, or that all are labels.

    Raises `DataError` if answers are numbers that do not show it.
    """
    if not schema.choices:
        return schema
    numbers, is_label, is_text = [], [], []
    for row in rows:
        with suppress(DataError):  # a bad row is an error of its own
            options = read_options(row.get(schema.choices), schema.choices)
            if (number := as_number(row.get(schema.answer), options)) is not None:
                numbers.append((number, len(options.texts)))
            is_label.append(row.get(schema.answer) in options.labels)
            is_text.append(row.get(schema.answer) in options.texts)
    by_label = all(is_label) and not all(is_text)
    return replace(schema, first=first_number(numbers), by_label=by_label)


def prompts_only(columns: Mapping[str, str], rows: Sequence[Row]) -> Schema:
    """The schema of rows of which only the prompt counts, for generation without a reference."""
    sample = sample_of(rows)
    prompts = columns["prompt"].split("+") if "prompt" in columns else named(PROMPTS, sample)[:1]
    schema = Schema(
        name="prompts",
        prompt=tuple(prompts or PROMPTS[:1]),
        answer="",
        explains=None if columns else (),
        hold=lambda row: "",
        joint="\n\n",
        system=columns.get("system"),
        verifier="math",
    )
    refuse_unexplained(sample, schema)
    return schema
