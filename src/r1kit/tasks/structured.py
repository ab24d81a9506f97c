"""References that are data: tests of programs, countdown puzzles. Their form tells the verifier."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from r1kit.data.errors import DataError, shown
from r1kit.tasks.code_sets import usable
from r1kit.verifiers.ifeval import parse_instructions

OWN_TESTS = {"stdin", "calls", "asserts"}
ASSERT = re.compile(r"^\s*assert\b.*[=<>(]", re.MULTILINE)


def structured(value: Any) -> tuple[str, str] | None:
    """The verifier and the reference of an object, of a list of tests, or of their JSON; None for any other value.

    Raises `DataError` for an object that no verifier reads.
    """
    data = value
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            data = json.loads(value)
        except (ValueError, RecursionError):
            return None  # {1, 2} is a set, [0, 1) an interval
    if isinstance(value, str) and ASSERT.search(value):
        return "code", usable({"asserts": [value]})
    if isinstance(data, list) and data:
        if all(isinstance(test, Mapping) and "input" in test and "output" in test for test in data):
            return "code", usable({"tests": data})
        if all(isinstance(test, str) and test.lstrip().startswith("assert") for test in data):
            return "code", usable({"asserts": data})
        return None
    if not isinstance(data, Mapping):
        return None
    if "target" in data and ("numbers" in data or "nums" in data):
        return "countdown", countdown_answer({"nums": data.get("numbers", data.get("nums")), "target": data["target"]})
    if {"inputs", "outputs"} <= set(data) or OWN_TESTS & set(data):
        return "code", usable(dict(data))
    reason = f"the answer is {shown(value)}: expected text, a number, tests of a program or a countdown puzzle"
    raise DataError("wrong type", f"{reason}; for another verifier, name it")


def countdown_prompt(row: Mapping[str, Any]) -> str:
    """The puzzle in words."""
    *first, last = map(str, _numbers(row))
    numbers = f"{', '.join(first)} and {last}" if first else last
    rules = "each exactly once, together with + - * / and brackets"
    return f"Write an expression that equals {row['target']}. It must use the numbers {numbers}, {rules}."


def countdown_answer(row: Mapping[str, Any]) -> str:
    """The puzzle as the verifier `countdown` reads it."""
    return json.dumps({"numbers": _numbers(row), "target": row["target"]})


def _numbers(row: Mapping[str, Any]) -> list[int]:
    numbers, target = row["nums"], row["target"]
    if not isinstance(numbers, list) or not numbers or not all(type(number) is int for number in [*numbers, target]):
        reason = f"the puzzle is {shown(numbers)} for {shown(target)}: expected a list of whole numbers, and one"
        raise DataError("wrong type", reason)
    return numbers


def ifeval_answer(row: Mapping[str, Any]) -> str:
    """The instructions of a row of IFEval as a reference; raises `DataError` if the verifier cannot use them."""
    answer = json.dumps({name: row.get(name) for name in ("instruction_id_list", "kwargs")})
    if isinstance(fault := parse_instructions(answer), str):
        raise DataError("unparsed answer", fault)
    return answer
