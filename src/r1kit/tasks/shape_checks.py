"""Rules of known sets that columns alone do not express: rows that cannot be judged, and a question's context."""

from __future__ import annotations

import re

from r1kit.data.columns import is_empty
from r1kit.data.errors import DataError, shown
from r1kit.tasks.schemas import Row
from r1kit.tasks.structured import structured

CODE = re.compile(r"cod(e|ing)|apps|taco|mbpp|human_?eval|program", re.IGNORECASE)


def numina(row: Row) -> None:
    """NuminaMath writes a word in place of an answer that it does not have."""
    answer = str(row["answer"]).strip().casefold()
    if row["question_type"] == "proof" or answer in ("proof", "notfound", "not found"):
        raise DataError("unparsed answer", f"{shown(row['answer'])} cannot be compared as an answer: drop the row")


def olympiadbench(row: Row) -> None:
    """Answers within a tolerance need another comparison; a list has several parts only if the row says so."""
    if not is_empty(row.get("error")):
        reason = f"the answer holds within {row['error']}, and verifiers compare exactly: drop the row"
        raise DataError("unparsed answer", reason, field="error")
    answers = row["final_answer"]
    if isinstance(answers, list) and len(answers) > 1 and not row.get("is_multiple_answer"):
        reason = f"the answer is {shown(answers)}, and is_multiple_answer does not say that it has several parts"
        raise DataError("wrong type", reason)


def with_context(row: Row) -> str:
    """OlympiadBench: the question after its context, if there is one."""
    context = "" if is_empty(row.get("context")) else str(row["context"]).strip() + "\n\n"
    return context + str(row["question"]).strip()


def verl(row: Row) -> None:
    """A row about code must bring tests: `math` would compare programs as text."""
    truth = row["reward_model"]["ground_truth"]
    label = f"{row.get('ability') or ''} {row.get('data_source') or ''}".strip()
    if CODE.search(label) and structured(truth) is None:
        reason = f"the row is about code ({label}), but {shown(truth)} is not a list of tests"
        raise DataError("wrong type", reason, field="reward_model.ground_truth")
