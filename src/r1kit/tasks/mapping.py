"""A user's own mapping from our fields to the columns of a file."""

from __future__ import annotations

from collections.abc import Mapping

from r1kit.data.columns import check_fields
from r1kit.data.errors import DataError
from r1kit.tasks.references import Several, gold, reference
from r1kit.tasks.schemas import Schema

MEANINGS: dict[str, Several] = {"answer": "", "answers": "any", "answer_parts": "all"}  # of a list of answers
REFERENCES = (*MEANINGS, "answer_from_0", "answer_from_1")
FIELDS = ("prompt", "system", "choices", *REFERENCES, "verifier", "language", "source")


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
    return Schema(
        name="columns",
        prompt=tuple(columns["prompt"].split("+")),
        answer=answer,
        explains=None,
        parse=gold if answer == "solution" else reference,
        joint="\n\n",
        system=columns.get("system"),
        several=MEANINGS.get(field, ""),
        verifier_column=columns.get("verifier", ""),
        language_column=columns.get("language", ""),
        source_column=columns.get("source", ""),
        choices=columns.get("choices", ""),
        first=None if first == field else int(first),
    )
