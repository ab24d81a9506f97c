"""The shapes of known data sets: which columns are asked, which are held for right, and which are rightly unused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from r1kit.data.columns import check_fields, is_empty, lookup, telling
from r1kit.data.errors import DataError
from r1kit.tasks import code_sets, contests, shape_checks
from r1kit.tasks.references import Several, after_marker, boxed, clean_number, gold, reference, without_calculator
from r1kit.tasks.structured import countdown_answer, countdown_prompt
from r1kit.tasks.worked_messages import first_question, last_reply, replied_box

Row = Mapping[str, Any]
LANGUAGE = re.compile(r"[a-z]{2,3}(-\w+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """How the rows of a data set are laid out. Dotted columns are nested: `reward_model.ground_truth`.

    Rows of this shape have the columns `prompt`, `answer`, `choices`, `wrong` and `needs`, and an answer that `looks`
    right. Every other column that tells something (`columns.TELLING`) must be one of `reads`, which are used if they
    are there, or of `explains`, which are rightly unused (None: all). Otherwise the row is of another shape. `check`
    raises `DataError` for a row of this shape that cannot be judged. `ask` and `hold` build prompt and reference
    from the whole row. Otherwise the prompt columns are joined by `joint`, and `parse` reads the answer.
    """

    name: str
    prompt: tuple[str, ...]
    answer: str
    explains: tuple[str, ...] | None = ()
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    looks: Callable[[str], bool] | None = None
    check: Callable[[Row], None] | None = None
    ask: Callable[[Row], str] | None = None
    hold: Callable[[Row], str] | None = None
    parse: Callable[[Any], str] = reference
    joint: str = " "
    system: str | None = None  # None: a system message in the prompt opens it; "": it is left out; or a column
    several: Several = ""
    verifier: str = ""  # "": as the form of the answer says, `math` for text and numbers
    language: str = "en"
    verifier_column: str = ""
    language_column: str = ""
    source_column: str = ""
    choices: str = ""  # the column of the options; they become part of the prompt, and the answer a letter
    first: int | None = None  # whether numbers of options count from 0 or 1
    wrong: tuple[str, ...] = ()  # columns of wrong options; `answer` is the right one
    solution: Callable[[Any], str] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that all rows of this shape have."""
        named = (*self.prompt, self.answer, self.choices, *self.wrong, *self.needs)
        return tuple(dict.fromkeys(filter(None, named)))

    def fits(self, sample: Row) -> bool:
        """Whether a row has this shape."""
        columns = (*self.columns, self.language_column or self.answer)
        if any(is_empty(lookup(sample, column)) for column in columns) or self.unexplained(sample):
            return False
        return self.looks is None or self.looks(str(lookup(sample, self.answer)))

    def unexplained(self, row: Row) -> list[str]:
        """The columns of a row that tell something, and that this shape neither reads nor explains."""
        if self.explains is None:
            return []
        read = {column.partition(".")[0] for column in self.columns} | {*self.reads, *self.explains}
        return [column for column in telling(row) if column not in read]


def relabelled(schema: Schema, verifier: str | None, language: str | None) -> Schema:
    """The schema with one verifier or language for all rows, whatever the columns say."""
    if verifier:
        schema = replace(schema, verifier=verifier, verifier_column="")
    return replace(schema, language=language, language_column="") if language else schema


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
# On the hub, `answer` is the solution in words.
MGSM_HUB = Schema(
    name="mgsm-hub", prompt=("question",), answer="answer_number", explains=("answer",), verifier="number"
)
MATH = Schema(name="math", prompt=("problem",), answer="solution", parse=boxed)
# NuminaMath 1.5 and OpenR1-Math: the solution may box other values than the answer, or none.
NUMINA = Schema(
    name="numina",
    prompt=("problem",),
    answer="answer",
    explains=("solution",),
    needs=("question_type",),
    check=shape_checks.numina,
)
OLYMPIADBENCH = Schema(
    name="olympiadbench",
    prompt=("question",),
    answer="final_answer",
    explains=("solution", "unit"),
    reads=("context",),
    needs=("answer_type",),
    check=shape_checks.olympiadbench,
    ask=shape_checks.with_context,
    several="all",
)
STRATOS = Schema(
    name="bespoke-stratos",
    prompt=("conversations",),
    answer="conversations",
    needs=("system",),  # asks for a form of reasoning, which is ours to ask
    ask=lambda row: first_question(row["conversations"]),
    parse=replied_box,
    solution=last_reply,
)
VERL = Schema(
    name="verl",
    prompt=("prompt",),
    answer="reward_model.ground_truth",
    explains=("nums", "target"),
    check=shape_checks.verl,
    source_column="data_source",
)
ORZ = Schema(name="orz", prompt=("0.value",), answer="1.ground_truth.value")
MMLU = Schema(name="mmlu", prompt=("question",), answer="answer", choices="choices", first=0, needs=("subject",))
MMLU_PRO = Schema(
    name="mmlu-pro",
    prompt=("question",),
    answer="answer",
    explains=("answer_index",),
    choices="options",
    needs=("category",),
)
ARC = Schema(name="arc", prompt=("question",), answer="answerKey", choices="choices")
OPENBOOKQA = Schema(name="openbookqa", prompt=("question_stem",), answer="answerKey", choices="choices")
MEDQA = Schema(name="medqa", prompt=("question",), answer="answer_idx", explains=("answer",), choices="options")
GPQA = Schema(
    name="gpqa",
    prompt=("Question",),
    answer="Correct Answer",
    wrong=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
)
SCIQ = Schema(
    name="sciq", prompt=("question",), answer="correct_answer", wrong=("distractor1", "distractor2", "distractor3")
)
COUNTDOWN = Schema(
    name="countdown",
    prompt=("nums",),
    answer="target",
    explains=("solution",),
    ask=countdown_prompt,
    hold=countdown_answer,
    verifier="countdown",
)
HUMANEVAL = Schema(
    name="humaneval",
    prompt=("prompt",),
    answer="canonical_solution",
    needs=("entry_point", "test"),
    ask=code_sets.humaneval_prompt,
    hold=code_sets.humaneval_answer,
    verifier="code",
    solution=str,
)
MBPP = Schema(
    name="mbpp",
    prompt=("text",),
    answer="code",
    reads=("test_setup_code", "test_imports"),
    needs=("test_list",),
    ask=code_sets.mbpp_prompt,
    hold=code_sets.mbpp_answer,
    verifier="code",
    solution=code_sets.mbpp_solution,
)
# The sanitized version of MBPP names two columns otherwise.
MBPP_SANITIZED = replace(MBPP, name="mbpp-sanitized", prompt=("prompt",))
MBPP_TESTS = replace(MBPP, name="mbpp-tests", prompt=("prompt",), needs=("test",))
APPS = Schema(
    name="apps",
    prompt=("question",),
    answer="input_output",
    reads=("starter_code",),
    ask=contests.apps_prompt,
    hold=contests.apps_answer,
    verifier="code",
)
LIVECODEBENCH = Schema(
    name="livecodebench",
    prompt=("question_content",),
    answer="public_test_cases",
    reads=("starter_code", "private_test_cases", "metadata"),
    ask=contests.livecodebench_prompt,
    hold=contests.livecodebench_answer,
    verifier="code",
)
CODEFORCES = Schema(
    name="codeforces",
    prompt=("description",),
    answer="official_tests",
    reads=("input_format", "output_format", "examples", "note"),
    ask=contests.codeforces_prompt,
    hold=contests.codeforces_answer,
    verifier="code",
)
SCHEMAS = {
    schema.name: schema
    for schema in (
        *(GSM8K, SVAMP, MGSM, MGSM_HUB, MATH, NUMINA, OLYMPIADBENCH, STRATOS, VERL, ORZ, COUNTDOWN),
        *(MMLU, MMLU_PRO, ARC, OPENBOOKQA, MEDQA, GPQA, SCIQ),
        *(HUMANEVAL, MBPP, MBPP_SANITIZED, MBPP_TESTS, APPS, LIVECODEBENCH, CODEFORCES),
    )
}

FIELDS = (
    *("prompt", "system", "choices", "answer", "answers", "answer_parts", "answer_from_0", "answer_from_1"),
    *("verifier", "language", "source"),
)
REFERENCES = ("answer", "answers", "answer_parts", "answer_from_0", "answer_from_1")


def mapped(columns: Mapping[str, str]) -> Schema:
    """The schema of a mapping from our fields to columns: `{"prompt": "context+q", "answer": "a"}`.

    Besides `FIELDS`' plain names: `system` puts a column before the prompt ("" leaves the prompt's system message out);
    of `answers`, any is right; `answer_parts` are one answer together; `answer_from_0` is the number of an option.
    """
    check_fields(columns, FIELDS)
    references = [field for field in REFERENCES if field in columns]
    if "prompt" not in columns or not references:
        missing = [field for field, there in (("prompt", "prompt" in columns), ("answer", references)) if not there]
        raise DataError("missing column", f"columns does not say which column is the {' and the '.join(missing)}")
    if len(references) > 1:
        raise DataError("missing column", f"columns names {' and '.join(references)}: name one of them")
    field = references[0]
    answer, first = columns[field], field.removeprefix("answer_from_")
    if first != field and "choices" not in columns:
        raise DataError("missing column", f"{field} is the number of an option: name the column of choices too")
    several: dict[str, Several] = {"answers": "any", "answer_parts": "all"}
    return Schema(
        name="columns",
        prompt=tuple(columns["prompt"].split("+")),
        answer=answer,
        explains=None,
        parse=gold if answer == "solution" else reference,
        joint="\n\n",
        system=columns.get("system"),
        several=several.get(field, ""),
        verifier_column=columns.get("verifier", ""),
        language_column=columns.get("language", ""),
        source_column=columns.get("source", ""),
        choices=columns.get("choices", ""),
        first=None if first == field else int(first),
    )


def is_language(value: Any) -> bool:
    """Whether a value looks like an ISO 639 code."""
    return isinstance(value, str) and LANGUAGE.fullmatch(value) is not None
