"""Which columns hold the prompt and the answer: schemas of known sets, guessing, and explicit mappings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from r1kit.data.errors import DataError
from r1kit.settings import nearest
from r1kit.tasks.code_sets import humaneval_answer, humaneval_prompt, mbpp_answer, mbpp_prompt, mbpp_solution
from r1kit.tasks.references import after_marker, boxed, clean_number, gold, reference, without_calculator
from r1kit.tasks.worked_messages import first_question, last_reply, replied_box, user_text

Row = Mapping[str, Any]
FIELDS = ("prompt", "answer", "verifier", "language", "source")
PROMPTS = ("prompt", "question", "problem")
ANSWERS = {"answer": reference, "ground_truth": reference, "solution": gold}
LANGUAGE = re.compile(r"[a-z]{2,3}(-\w+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """How the rows of a data set are laid out. Dotted columns are nested: `reward_model.ground_truth`.

    Several prompt columns are joined by a space. `read` and `parse` turn one value into the prompt and the answer;
    `ask` and `judge` build them from the whole row. `needs` (more columns) and `looks` (a test of the answer's text)
    tell apart schemas whose other columns are the same.
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
        """Whether a row has all columns, and an answer that looks right."""
        columns = (*self.prompt, self.answer, self.language_column, self.choices_column, *self.needs)
        if any(lookup(sample, column) is MISSING for column in columns if column):
            return False
        return self.looks is None or self.looks(str(lookup(sample, self.answer)))


def relabelled(schema: Schema, verifier: str | None, language: str | None) -> Schema:
    """The schema with one verifier or language for all rows, whatever the columns say."""
    if verifier:
        schema = replace(schema, verifier=verifier, verifier_column="")
    return replace(schema, language=language, language_column="") if language else schema


MISSING = object()  # tells a missing column from null


def lookup(row: Row, column: str) -> Any:
    """The value of a plain or dotted column, or `MISSING`."""
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
# MMLU and similar sets: the options become part of the prompt; the answer is a letter or an index from 0.
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
# Guessing takes the first schema that fits, so those with more columns come first.
SCHEMAS = {
    schema.name: schema
    for schema in (VERL, STRATOS, HUMANEVAL, MBPP, SVAMP, CHOICES, MGSM_HUB, MGSM, NUMINA_TIR, GSM8K)
}


def guess(sample: Row, file: str) -> Schema:
    """The schema of rows like `sample`; raises `DataError` if there is none, with the columns and how to map them."""
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
    return Schema(
        name=f"{prompt}+{answer}",
        prompt=(prompt,),
        answer=answer,
        parse=ANSWERS[answer],
        verifier_column="verifier" if isinstance(sample.get("verifier"), str) else "",
        language_column=next((name for name in ("language", "lang") if is_language(sample.get(name))), ""),
        source_column="source" if isinstance(sample.get("source"), str) else "",
    )


def mapped(columns: Mapping[str, str]) -> Schema:
    """The schema of an explicit mapping from our fields to columns: `{"prompt": "q", "answer": "a"}`."""
    for field in columns:
        if field not in FIELDS:
            reason = f"columns names the field {field!r}, which does not exist: {nearest(field, FIELDS)}"
            raise DataError("missing column", reason)
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
