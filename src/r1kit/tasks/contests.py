"""Programming contests: APPS and TACO, LiveCodeBench, Codeforces. Prompts, and tests for the verifier `code`."""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping
from typing import Any

from r1kit.data.columns import is_empty
from r1kit.data.errors import DataError, shown
from r1kit.tasks.code_sets import text_of, usable
from r1kit.tasks.schemas import Row

WRITE = "Write a Python program that reads from standard input and prints the answer, in one code block."
# raised for broken JSON, base64, zlib and pickle data
_UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError, MemoryError),
    *(zlib.error, pickle.PickleError),
)
MAX_TEST_BYTES = 256 * 2**20  # LiveCodeBench's largest hidden tests take about 100 MB


def contest_prompt(statement: str, starter: str) -> str:
    """A statement with a request for a program, or for the function that the starter code begins."""
    if starter:
        request = "Complete this Python code. Write the whole of it in one code block."
        return f"{statement}\n\n{request}\n\n```python\n{starter.rstrip()}\n```"
    return f"{statement}\n\n{WRITE}"


def apps_prompt(row: Row) -> str:
    """APPS and TACO: the statement, with the name of the function if the tests call one."""
    tests, starter = tests_of(row, "input_output"), row.get("starter_code")
    name = tests.get("fn_name")
    if name and is_empty(starter):
        request = f"Write the Python function `{name}`, in one code block."
        return f"{text_of(row, 'question').strip()}\n\n{request}"
    return contest_prompt(text_of(row, "question").strip(), str(starter) if name else "")


def apps_answer(row: Row) -> str:
    """The tests as they are: the verifier reads their form."""
    return usable(tests_of(row, "input_output"))


def livecodebench_prompt(row: Row) -> str:
    """The statement, and the starter code if there is one."""
    return contest_prompt(text_of(row, "question_content").strip(), str(row.get("starter_code") or ""))


def livecodebench_answer(row: Row) -> str:
    """The public and the hidden tests: of a program's output, or of a function that the column metadata names."""
    tests = [*_listed(row, "public_test_cases"), *_listed(row, "private_test_cases")]
    return usable({"tests": tests, "metadata": row.get("metadata")})


def codeforces_prompt(row: Row) -> str:
    """Statement, input, output, examples and note, as the contest's page has them."""
    parts = [text_of(row, "description").strip()]
    titles = {"Input": "input_format", "Output": "output_format", "Note": "note"}
    sections = {title: str(row[column]).strip() for title, column in titles.items() if not is_empty(row.get(column))}
    examples = [
        f"Input:\n```\n{str(each['input']).rstrip()}\n```\nOutput:\n```\n{str(each['output']).rstrip()}\n```"
        for each in _listed(row, "examples")
    ]
    note = sections.pop("Note", "")
    parts += [f"{title}\n\n{text}" for title, text in sections.items()]
    parts += ["Examples\n\n" + "\n\n".join(examples)] if examples else []
    parts += [f"Note\n\n{note}"] if note else []
    return contest_prompt("\n\n".join(parts), "")


def codeforces_answer(row: Row) -> str:
    """The official tests. Raises `DataError` for problems that equal output cannot judge."""
    obstacles = {
        "generated_checker": "several outputs are right, and a checker that is not Python tells which",
        "interaction_format": "the program talks to a judge",
    }
    for column, why in obstacles.items():
        if not is_empty(row.get(column)):
            raise DataError("unparsed answer", f"{why}: drop the row", field=column)
    if row.get("input_mode") not in (None, "stdio"):
        raise DataError("unparsed answer", "the program reads a file: drop the row", field="input_mode")
    if row.get("official_tests_complete") is False:
        raise DataError("unparsed answer", "some tests are missing: drop the row", field="official_tests_complete")
    return usable({"tests": _listed(row, "official_tests")})


def tests_of(row: Row, column: str) -> dict[str, Any]:
    """APPS's tests: an object, or its JSON."""
    value = row.get(column)
    if is_empty(value):
        raise DataError("empty answer", "there are no tests: drop the row", field=column)
    try:
        data = json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise DataError("unparsed answer", f"the tests are not JSON: {error}", field=column) from None
    if not isinstance(data, dict) or not all(isinstance(data.get(side), list) for side in ("inputs", "outputs")):
        raise DataError("wrong type", f"the tests are {shown(data)}: expected inputs and outputs", field=column)
    return data


def _listed(row: Row, column: str) -> list[Mapping[str, Any]]:
    """A list of tests: data, JSON, or LiveCodeBench's JSON that is pickled, compressed and written as base64."""
    value = row.get(column)
    if is_empty(value):
        return []
    try:
        if isinstance(value, str) and value.lstrip()[:1] != "[":
            packed = base64.b64decode(value, validate=True)
            pickled = zlib.decompressobj().decompress(packed, MAX_TEST_BYTES)
            value = _TextUnpickler(io.BytesIO(pickled)).load()
        tests = json.loads(value) if isinstance(value, str) else value
    except _UNREADABLE as error:
        raise DataError("unparsed answer", f"the tests cannot be read: {error}", field=column) from None
    if not isinstance(tests, list) or any(
        not isinstance(test, Mapping) or {"input", "output"} - {*test} for test in tests
    ):
        reason = f"the tests are {shown(tests)}: expected a list of objects with input and output"
        raise DataError("wrong type", reason, field=column)
    return tests


class _TextUnpickler(pickle.Unpickler):
    """Reads plain data only: it imports nothing, so a file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"a pickle of text must not import {module}.{name}")
