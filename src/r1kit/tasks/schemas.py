"""Which columns of a data set are the prompt and the answer: the known shapes, guessing, and an explicit mapping."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from r1kit.tasks.answers import (
    PLAIN_NUMBER,
    after_marker,
    boxed,
    clean_number,
    encodable,
    gold,
    reference,
    shown,
    without_calculator,
)
from r1kit.tasks.base import TaskError
from r1kit.types import Problem

Row = Mapping[str, Any]
FIELDS = ("prompt", "answer", "verifier", "language", "source")
PROMPTS = ("prompt", "question", "problem")
ANSWERS = {"answer": reference, "ground_truth": reference, "solution": gold}
LANGUAGE = re.compile(r"[a-z]{2,3}(-\w+)?", re.IGNORECASE)
BOX_REQUEST = re.compile(r"^Return your final response within \\boxed\{\}\.\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """One shape of rows. A dotted column reaches into a nested one: `reward_model.ground_truth`.

    Several prompt columns are joined by a space. `needs` and `looks` (given an answer as text) only help to recognise
    the shape, where its columns alone are everyone's.
    """

    name: str
    prompt: tuple[str, ...]
    answer: str
    parse: Callable[[Any], str] = reference
    verifier: str = "math"
    verifier_column: str = ""
    language_column: str = ""
    source_column: str = ""
    needs: tuple[str, ...] = ()
    looks: Callable[[str], bool] | None = None
    solution: Callable[[Any], str] | None = None

    def fits(self, sample: Row) -> bool:
        """Whether a row has every column and its answer the right look."""
        columns = (*self.prompt, self.answer, self.language_column or self.answer, *self.needs)
        if any(lookup(sample, column) is MISSING for column in columns):
            return False
        return self.looks is None or self.looks(str(lookup(sample, self.answer)))


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


def user_text(value: Any) -> str:
    """The question: text, or a list of messages with one user turn; the chat format brings its own system message."""
    if isinstance(value, list):
        turns = [(message_role(turn), turn) for turn in value]
        asked = [turn for role, turn in turns if role == "user"]
        if len(asked) != 1 or any(role == "assistant" for role, _ in turns):
            raise TaskError("wrong type", f"{len(turns)} messages with {len(asked)} user turns: expected one question")
        value = message_text(asked[0])
    if value is None:
        raise TaskError("empty prompt", "the prompt is empty: drop the row or fill it in")
    if not isinstance(value, str):
        raise TaskError("wrong type", f"the prompt is {shown(value)}: expected text or a list of messages")
    return encodable(value.strip())


def message_role(turn: Any) -> str:
    """A turn's speaker, in OpenAI's words or ShareGPT's."""
    role = turn.get("role", turn.get("from")) if isinstance(turn, Mapping) else None
    if not isinstance(role, str):
        raise TaskError("wrong type", f"{shown(turn)} is no message: expected role and content (or from and value)")
    return {"human": "user", "gpt": "assistant"}.get(role, role)


def message_text(turn: Mapping[str, Any]) -> Any:
    """What a turn says."""
    return turn.get("content", turn.get("value"))


def first_question(value: Any) -> str:
    """Bespoke-Stratos: the user's first turn, without the request for a box (the response format is ours to ask for)."""
    asked = [turn for turn in as_turns(value) if message_role(turn) == "user"]
    return BOX_REQUEST.sub("", user_text(asked[:1]))


def last_reply(value: Any) -> str:
    """Bespoke-Stratos: the assistant's last turn, thought and solution."""
    replies = [message_text(turn) for turn in as_turns(value) if message_role(turn) == "assistant"]
    if not replies or not isinstance(replies[-1], str):
        raise TaskError("empty answer", "the conversation has no assistant turn with text")
    return replies[-1]


def replied_box(value: Any) -> str:
    """Bespoke-Stratos: the boxed answer between the solution's marks."""
    text = last_reply(value).rpartition("<|begin_of_solution|>")[2]
    return boxed(text.partition("<|end_of_solution|>")[0])


def as_turns(value: Any) -> list[Any]:
    """A conversation, which must be a list."""
    if not isinstance(value, list):
        raise TaskError("wrong type", f"the conversation is {shown(value)}: expected a list of messages")
    return value


GSM8K = Schema(
    name="gsm8k", prompt=("question",), answer="answer", parse=after_marker, verifier="number",
    looks=lambda answer: "####" in answer, solution=without_calculator,
)  # fmt: skip
SVAMP = Schema(name="svamp", prompt=("Body", "Question"), answer="Answer", verifier="number")
MGSM = Schema(
    name="mgsm", prompt=("question",), answer="answer", verifier="number", language_column="lang",
    looks=lambda answer: clean_number(answer) is not None,
)  # fmt: skip
MGSM_HUB = Schema(name="mgsm-hub", prompt=("question",), answer="answer_number", verifier="number")
NUMINA_TIR = Schema(name="numina-tir", prompt=("problem",), answer="solution", parse=boxed, needs=("messages",))
STRATOS = Schema(
    name="bespoke-stratos", prompt=("conversations",), answer="conversations", parse=replied_box, solution=last_reply
)
VERL = Schema(name="verl", prompt=("prompt",), answer="reward_model.ground_truth", source_column="data_source")
MATH = Schema(name="math", prompt=("problem",), answer="solution", parse=boxed)
# Guessing takes the first that fits, so shapes with more columns come first.
SCHEMAS = {
    schema.name: schema for schema in (VERL, STRATOS, SVAMP, MGSM_HUB, MGSM, NUMINA_TIR, GSM8K)
}


def guess(sample: Row, file: str) -> Schema:
    """The schema of rows like `sample`; raises `TaskError` that lists the columns and how to name them."""
    for schema in SCHEMAS.values():
        if schema.fits(sample):
            return schema
    prompt = next((column for column in PROMPTS if column in sample), None)
    answer = next((column for column in ANSWERS if column in sample), None)
    if prompt is None or answer is None:
        field, known = ("prompt", PROMPTS) if prompt is None else ("answer", tuple(ANSWERS))
        raise TaskError(
            "missing column",
            f"no {field} column among {', '.join(sorted(sample)) or 'no columns'}: expected one of {', '.join(known)}, "
            'or name them: columns={"prompt": "...", "answer": "..."}',
            file=file,
            field=field,
        )
    if (prompt, answer) == ("problem", "solution"):
        return MATH
    return Schema(name=f"{prompt}+{answer}", prompt=(prompt,), answer=answer, parse=ANSWERS[answer], **extras(sample))


def extras(sample: Row) -> dict[str, str]:
    """Columns by which a row of one's own file says more about itself."""
    language = next((name for name in ("language", "lang") if is_language(sample.get(name))), "")
    return {
        "verifier_column": "verifier" if isinstance(sample.get("verifier"), str) else "",
        "language_column": language,
        "source_column": "source" if isinstance(sample.get("source"), str) else "",
    }


def mapped(columns: Mapping[str, str]) -> Schema:
    """The schema of an explicit mapping from our fields to the file's columns, `{"prompt": "q", "answer": "a"}`."""
    for field in columns:
        if field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(FIELDS)}"
            raise TaskError("missing column", f"columns names the field {field!r}, which does not exist: {hint}")
    if missing := [field for field in ("prompt", "answer") if field not in columns]:
        raise TaskError("missing column", f"columns does not say which column is the {' and the '.join(missing)}")
    return Schema(
        name="columns", prompt=(columns["prompt"],), answer=columns["answer"],
        parse=ANSWERS.get(columns["answer"], reference), verifier_column=columns.get("verifier", ""),
        language_column=columns.get("language", ""), source_column=columns.get("source", ""),
    )  # fmt: skip


def is_language(value: Any) -> bool:
    """Whether a value looks like an ISO 639 code."""
    return isinstance(value, str) and LANGUAGE.fullmatch(value) is not None


def convert(row: Row, schema: Schema, *, name: str, file: str, number: int) -> Problem:
    """Row `number` (from 1) as a problem; raises `TaskError` with file, row and field.

    The id counts from 0 and keeps its number when other rows are skipped: `gsm8k/train/17`.
    """
    field = "prompt"
    try:
        prompt = read_prompt(row, schema)
        field = "answer"
        verifier = read_text(row, schema.verifier_column, "verifier") or schema.verifier
        answer = canonical(schema.parse(column_of(row, schema.answer)), verifier)
        language = read_text(row, schema.language_column, "language") or "en"
        source = read_text(row, schema.source_column, "source") or name
    except TaskError as error:
        column = {"prompt": schema.prompt[0], "answer": schema.answer}[field]
        raise error.at(file, number, column) from None
    return Problem(
        id=f"{name}/{number - 1}", prompt=prompt, answer=answer, verifier=verifier,
        language=language.lower().partition("-")[0], source=source, metadata=rest(row, schema),
    )  # fmt: skip


def read_prompt(row: Row, schema: Schema) -> str:
    """The prompt columns' texts joined by a space."""
    read = first_question if schema is STRATOS else user_text
    text = " ".join(read(column_of(row, column)) for column in schema.prompt).strip()
    if not text:
        raise TaskError("empty prompt", "the prompt is empty: drop the row or fill it in")
    return text


def column_of(row: Row, column: str) -> Any:
    """A column that must be there."""
    value = lookup(row, column)
    if value is MISSING:
        raise TaskError("missing column", f"there is no {column}: the row has {', '.join(row) or 'no columns'}",
                        field=column)  # fmt: skip
    return value


def read_text(row: Row, column: str, field: str) -> str:
    """An optional column; null or not there is empty."""
    value = lookup(row, column) if column else None
    if value is None or value is MISSING:
        return ""
    if not isinstance(value, str) or (field == "language" and not is_language(value)):
        wanted = "an ISO 639 code such as en" if field == "language" else "text"
        raise TaskError("wrong type", f"the {field} is {shown(value)}: expected {wanted}", field=column)
    return value


def canonical(answer: str, verifier: str) -> str:
    """The answer in one spelling where it is a number; for the verifier `number` it has to be one."""
    if verifier == "number":
        number = clean_number(answer)
        if number is None:
            raise TaskError("unparsed answer", f"{shown(answer)} is not a number, as the verifier 'number' needs")
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
