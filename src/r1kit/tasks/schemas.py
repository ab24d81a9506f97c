"""Which columns of a data set are the prompt and the answer: the known shapes, guessing, and an explicit mapping."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from r1kit.data.errors import DataError, encodable, shown
from r1kit.settings import nearest
from r1kit.tasks.code_sets import humaneval_answer, humaneval_prompt, mbpp_answer, mbpp_prompt, mbpp_solution
from r1kit.tasks.references import PLAIN_NUMBER, after_marker, boxed, clean_number, gold, reference, without_calculator
from r1kit.tasks.worked_messages import first_question, last_reply, replied_box, user_text
from r1kit.types import Problem
from r1kit.verifiers import find

Row = Mapping[str, Any]
FIELDS = ("prompt", "answer", "verifier", "language", "source")
PROMPTS = ("prompt", "question", "problem")
ANSWERS = {"answer": reference, "ground_truth": reference, "solution": gold}
LANGUAGE = re.compile(r"[a-z]{2,3}(-\w+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """One shape of rows. A dotted column reaches into a nested one: `reward_model.ground_truth`.

    Several prompt columns are joined by a space. `needs` and `looks` (given an answer as text) only help to recognise
    the shape, where its columns alone are everyone's. `ask` and `judge` make prompt and answer of several columns.
    """

    name: str
    prompt: tuple[str, ...]
    answer: str
    read: Callable[[Any], str] = user_text
    parse: Callable[[Any], str] = reference
    verifier: str = "math"
    language: str = "en"
    verifier_column: str = ""
    language_column: str = ""
    source_column: str = ""
    choices_column: str = ""
    needs: tuple[str, ...] = ()
    looks: Callable[[str], bool] | None = None
    solution: Callable[[Any], str] | None = None
    ask: Callable[[Row], str] | None = None
    judge: Callable[[Row], str] | None = None

    def fits(self, sample: Row) -> bool:
        """Whether a row has every column and its answer the right look."""
        columns = (*self.prompt, self.answer, self.language_column, self.choices_column, *self.needs)
        if any(lookup(sample, column) is MISSING for column in columns if column):
            return False
        return self.looks is None or self.looks(str(lookup(sample, self.answer)))


def relabelled(schema: Schema, verifier: str | None, language: str | None) -> Schema:
    """The schema with one verifier or language for all rows, whatever their columns say."""
    if verifier:
        schema = replace(schema, verifier=verifier, verifier_column="")
    return replace(schema, language=language, language_column="") if language else schema


class Missing:
    """Tells a column that is not there from one that holds null."""


MISSING = Missing()


def lookup(row: Row, column: str) -> Any:
    """The value of a column, plain or dotted, or `MISSING`."""
    if column in row:
        return row[column]
    head, dot, rest = column.partition(".")
    inner = row.get(head)
    return lookup(inner, rest) if dot and isinstance(inner, Mapping) else MISSING


GSM8K = Schema(
    name="gsm8k",
    prompt=("question",),
    answer="answer",
    parse=after_marker,
    verifier="number",
    looks=lambda answer: "####" in answer,
    solution=without_calculator,
)
SVAMP = Schema(name="svamp", prompt=("Body", "Question"), answer="Answer", verifier="number")
MGSM = Schema(
    name="mgsm",
    prompt=("question",),
    answer="answer",
    verifier="number",
    language_column="lang",
    looks=lambda answer: clean_number(answer) is not None,
)
MGSM_HUB = Schema(name="mgsm-hub", prompt=("question",), answer="answer_number", verifier="number")
NUMINA_TIR = Schema(name="numina-tir", prompt=("problem",), answer="solution", parse=boxed, needs=("messages",))
STRATOS = Schema(
    name="bespoke-stratos",
    prompt=("conversations",),
    answer="conversations",
    read=first_question,
    parse=replied_box,
    solution=last_reply,
    needs=("system",),
)
VERL = Schema(name="verl", prompt=("prompt",), answer="reward_model.ground_truth", source_column="data_source")
# MMLU and its kin: the options become part of the prompt, the answer is an option's letter or its place from 0.
CHOICES = Schema(name="choices", prompt=("question",), answer="answer", verifier="choice", choices_column="choices")
HUMANEVAL = Schema(
    name="humaneval",
    prompt=("prompt",),
    answer="canonical_solution",
    verifier="code",
    needs=("entry_point", "test"),
    solution=str,
    ask=humaneval_prompt,
    judge=humaneval_answer,
)
MBPP = Schema(
    name="mbpp",
    prompt=("text",),
    answer="code",
    verifier="code",
    needs=("test_list",),
    solution=mbpp_solution,
    ask=mbpp_prompt,
    judge=mbpp_answer,
)
MATH = Schema(name="math", prompt=("problem",), answer="solution", parse=boxed)
# Guessing takes the first that fits, so shapes with more columns come first.
SCHEMAS = {
    schema.name: schema
    for schema in (VERL, STRATOS, HUMANEVAL, MBPP, SVAMP, CHOICES, MGSM_HUB, MGSM, NUMINA_TIR, GSM8K)
}


def guess(sample: Row, file: str) -> Schema:
    """The schema of rows like `sample`; raises `DataError` that lists the columns and how to name them."""
    for schema in SCHEMAS.values():
        if schema.fits(sample):
            return schema
    prompt = next((column for column in PROMPTS if column in sample), None)
    answer = next((column for column in ANSWERS if column in sample), None)
    if prompt is None or answer is None:
        field, known = ("prompt", PROMPTS) if prompt is None else ("answer", tuple(ANSWERS))
        raise DataError(
            "missing column",
            f"no {field} column among {', '.join(sorted(sample)) or 'no columns'}: expected one of {', '.join(known)}, "
            'or name them: columns={"prompt": "...", "answer": "..."}',
            file=file,
            field=field,
        )
    if (prompt, answer) == ("problem", "solution"):
        return MATH
    schema = Schema(name=f"{prompt}+{answer}", prompt=(prompt,), answer=answer, parse=ANSWERS[answer])
    return with_extras(schema, sample)


def with_extras(schema: Schema, sample: Row) -> Schema:
    """The schema with the columns by which a row of one's own file says more about itself."""
    language = next((name for name in ("language", "lang") if is_language(sample.get(name))), "")
    return replace(
        schema,
        verifier_column="verifier" if isinstance(sample.get("verifier"), str) else "",
        language_column=language,
        source_column="source" if isinstance(sample.get("source"), str) else "",
    )


def mapped(columns: Mapping[str, str]) -> Schema:
    """The schema of an explicit mapping from our fields to the file's columns, `{"prompt": "q", "answer": "a"}`."""
    for field in columns:
        if field not in FIELDS:
            hint = nearest(field, FIELDS)
            raise DataError("missing column", f"columns names the field {field!r}, which does not exist: {hint}")
    if missing := [field for field in ("prompt", "answer") if field not in columns]:
        raise DataError("missing column", f"columns does not say which column is the {' and the '.join(missing)}")
    return Schema(
        name="columns",
        prompt=(columns["prompt"],),
        answer=columns["answer"],
        parse=ANSWERS.get(columns["answer"], reference),
        verifier_column=columns.get("verifier", ""),
        language_column=columns.get("language", ""),
        source_column=columns.get("source", ""),
    )


def is_language(value: Any) -> bool:
    """Whether a value looks like an ISO 639 code."""
    return isinstance(value, str) and LANGUAGE.fullmatch(value) is not None


def convert(row: Row, schema: Schema, *, name: str, file: str, number: int) -> Problem:
    """Row `number` (from 1) as a problem; raises `DataError` with file, row and field.

    The id counts from 0 and keeps its number when other rows are skipped: `gsm8k/train/17`.
    """
    field = schema.prompt[0]
    try:
        prompt = read_prompt(row, schema)
        field = schema.answer
        verifier = known_verifier(read_text(row, schema.verifier_column, "verifier") or schema.verifier)
        given = column_of(row, schema.answer)
        answer = schema.judge(row) if schema.judge else canonical(schema.parse(given), verifier)
        if schema.choices_column:
            options = read_choices(row, schema.choices_column)
            prompt, answer = f"{prompt}\n{options_text(options)}", letter(answer, options)
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
        metadata=rest(row, schema),
    )


def known_verifier(name: str) -> str:
    """The name of a verifier that exists."""
    try:
        find(name)
    except ValueError as error:
        raise DataError("unknown verifier", str(error), field="verifier") from None
    return name


def read_prompt(row: Row, schema: Schema) -> str:
    """The prompt columns' texts joined by a space."""
    text = " ".join(schema.read(column_of(row, column)) for column in schema.prompt).strip()
    text = schema.ask(row) if schema.ask and text else text
    if not text:
        raise DataError("empty prompt", "the prompt is empty: drop the row or fill it in")
    return text


def read_choices(row: Row, column: str) -> list[str]:
    """The options of a multiple-choice question."""
    choices = column_of(row, column)
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(ascii_uppercase):
        reason = f"the choices are {shown(choices)}: expected a list of 2 to 26 options"
        raise DataError("wrong type", reason, field=column)
    return [encodable(str(choice).strip()) for choice in choices]


def options_text(options: list[str]) -> str:
    """The options as lines `A. ...`."""
    return "\n".join(f"{name}. {option}" for name, option in zip(ascii_uppercase, options, strict=False))


def letter(answer: str, options: list[str]) -> str:
    """The right option's letter, from its letter or its place from 0."""
    names = ascii_uppercase[: len(options)]
    if answer in (places := [str(place) for place in range(len(options))]):
        return names[places.index(answer)]
    if len(answer) == 1 and answer.upper() in names:
        return answer.upper()
    raise DataError("unparsed answer", f"{shown(answer)} is none of the options {names[0]} to {names[-1]}")


def column_of(row: Row, column: str) -> Any:
    """A column that must be there."""
    value = lookup(row, column)
    if value is MISSING:
        raise DataError(
            "missing column", f"there is no {column}: the row has {', '.join(row) or 'no columns'}", field=column
        )
    return value


def read_text(row: Row, column: str, field: str) -> str:
    """An optional column; null or not there is empty."""
    value = lookup(row, column) if column else None
    if value is None or value is MISSING:
        return ""
    if not isinstance(value, str) or (field == "language" and not is_language(value)):
        wanted = "an ISO 639 code such as en" if field == "language" else "text"
        raise DataError("wrong type", f"the {field} is {shown(value)}: expected {wanted}", field=column)
    return value


def canonical(answer: str, verifier: str) -> str:
    """The answer in one spelling where it is a number; for the verifier `number` it has to be one."""
    if verifier == "number":
        number = clean_number(answer)
        if number is None:
            raise DataError("unparsed answer", f"{shown(answer)} is not a number, as the verifier 'number' needs")
        return number
    # A comma may separate thousands or the members of a list: only an unmistakable number is respelled (AIME's 025).
    if verifier == "math" and PLAIN_NUMBER.fullmatch(answer):
        return clean_number(answer) or answer
    return answer


def rest(row: Row, schema: Schema) -> dict[str, Any]:
    """The other plain columns (level, type, solution ...); nested ones are left out."""
    used = {*schema.prompt, schema.answer} - {"solution"}
    kept = {key: value for key, value in row.items() if key not in used and isinstance(value, str | int | float)}
    if schema.solution is not None:
        kept["solution"] = schema.solution(row[schema.answer])
    return kept
