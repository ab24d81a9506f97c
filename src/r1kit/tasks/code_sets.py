"""Prompts and references of HumanEval and MBPP; the references are tests for the verifier `code`."""

from __future__ import annotations

import ast
import builtins
import json
from typing import Any

from r1kit.data.errors import DataError, encodable, shown
from r1kit.tasks.schemas import Row
from r1kit.verifiers.code.tests import parse_tests, parsed


def humaneval_prompt(row: Row) -> str:
    """A request to complete the stub, worded for a chat model."""
    stub = text_of(row, "prompt")
    request = "Complete this Python function. Write the whole function in one code block."
    return f"{request}\n\n```python\n{stub.rstrip()}\n```"


def humaneval_answer(row: Row) -> str:
    """The test's `check`, called with the function; the stub is included for completions that continue it."""
    name = text_of(row, "entry_point")
    asserts = [f"{text_of(row, 'test')}\ncheck({name})"]
    return usable({"entry_point": name, "prompt": text_of(row, "prompt"), "names": [], "asserts": asserts})


def mbpp_prompt(row: Row) -> str:
    """The task and its first test, which shows name and arguments; the other tests stay hidden."""
    task = text_of(row, "text" if "text" in row else "prompt")
    return f"{task}\nWrite it in Python, in one code block. A test:\n\n```python\n{mbpp_tests(row)[0]}\n```"


def mbpp_answer(row: Row) -> str:
    """The asserts; the reference solution tells which names the program must define, and which imports they need."""
    tests, setup = mbpp_tests(row), lines_of(row.get("test_setup_code") or "")
    imports = row.get("test_imports") or []
    tree = parsed(lines_of(text_of(row, "code")))
    used = {node.id for node in ast.walk(parsed("\n".join([setup, *tests]))) if isinstance(node, ast.Name)}
    own = {name for node in tree.body for name in defined(node)} & used
    missing = used - own - set(dir(builtins))
    needed = [ast.unparse(node) for node in tree.body if imported(node) & missing]
    return usable({"setup": "\n".join([*imports, *needed, setup]), "names": sorted(own), "asserts": tests})


def mbpp_solution(code: Any) -> str:
    """The reference solution with Unix line ends."""
    return lines_of(code) if isinstance(code, str) else ""


def mbpp_tests(row: Row) -> list[str]:
    """The asserts of a row, at least one."""
    tests = row.get("test_list", row.get("test"))
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise DataError("wrong type", f"the tests are {shown(tests)}: expected a list of asserts", field="test_list")
    return [lines_of(test).strip() for test in tests]


def usable(tests: dict[str, Any]) -> str:
    """The tests as a reference; raises `DataError` if the verifier cannot use them."""
    reference = json.dumps(tests)
    fault = parse_tests(reference)
    if isinstance(fault, str):
        raise DataError("unparsed answer", f"the tests cannot be used: {fault}")
    return reference


def text_of(row: Row, column: str) -> str:
    """A column that must hold text."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError("wrong type", f"the {column} is {shown(value)}: expected text", field=column)
    return encodable(value)


def lines_of(text: str) -> str:
    return text.replace("\r\n", "\n")


def defined(node: ast.stmt) -> set[str]:
    """The names that a top-level statement defines, imports aside."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


def imported(node: ast.stmt) -> set[str]:
    """The names that an import statement defines; empty for other statements."""
    aliases = node.names if isinstance(node, ast.Import | ast.ImportFrom) else []
    return {(alias.asname or alias.name).split(".")[0] for alias in aliases}
