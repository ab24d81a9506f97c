"""The reference of the verifier `code`: tests as JSON text.

    {"stdin": [{"input": "1 2\\n", "output": "3\\n"}]}                   a program that reads and prints
    {"entry_point": "add", "calls": [{"args": [1, 2], "output": 3}]}     a function, its arguments, its result
    {"entry_point": "add", "asserts": ["assert add(1, 2) == 3"]}         Python that asserts (or pytest functions)

Optional:

    "setup"      Python that runs before the asserts: imports, helpers, inputs
    "prompt"     the beginning of the program, if responses may continue it; its imports and helpers always count
    "names"      the names that the asserts use from the program; default: all that are defined nowhere else
    "time_s"     seconds for each test or call (5); "total_s" for all of them (30)
    "memory_mb"  address space (512)
    "tolerance"  of decimals, absolute and relative, in stdin tests and calls (1e-6)
    "indent"     whether indentation and leading empty lines count in stdin tests (true)

A list of texts is read as asserts. The shapes of other projects are read too: {"inputs": [...], "outputs": [...],
"fn_name": ...} (APPS, TACO), and lists of {"input": ..., "output": ...}, alone or in columns such as `official_tests`
(Codeforces), `public_tests` (code_contests) and `public_test_cases` (LiveCodeBench). They are stdin tests, or calls if
there is a function name. As usual in Python, arguments that the program changes in place are changed for the
asserts too, so expected values are best written as literals.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import threading
import warnings
from functools import lru_cache
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from r1kit.settings import Settings
from r1kit.verifiers.code.fenced import STRING

MAX_CHARS = 8 << 20
_MAX_DIGITS = 100_000
# Where other projects keep their tests: code_contests, Codeforces, LiveCodeBench and others.
_TABLES = (
    *("tests", "test_cases", "official_tests", "public_tests", "private_tests", "generated_tests"),
    *("public_test_cases", "private_test_cases"),
)
_LONG_INTEGER = re.compile(rf"{STRING}|(?<![\w.])(?P<digits>\d{{4001,}})(?![\w.])", re.DOTALL)
_READ = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0\b|\bfileinput\b|/dev/stdin|\bos\.read\s*\(\s*0\b")
_SOLUTION = re.compile(r"^class[ \t]+Solution\b", re.MULTILINE)
_warnings_lock = threading.Lock()  # the warning filters are shared by all threads
_FAULTS = (SyntaxError, ValueError, RecursionError, MemoryError)


class StdinTest(Settings):
    """The input of the program, and the output that it must print."""

    input: str
    output: str


class CallTest(Settings):
    """The arguments of one call, and the result that it must return, as JSON data.

    If `boxed`, the output is a list of one item, and a call may also return that item.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    output: Any
    boxed: bool = False

    @property
    def accepted(self) -> tuple[Any, ...]:
        """The results of which any is right."""
        return (self.output, *self.output) if self.boxed and isinstance(self.output, list) else (self.output,)


class TestDefaults(Settings):
    """Limits and tolerance of a reference, with the values that apply if it does not set them."""

    time_s: float = Field(default=5.0, gt=0, le=600)
    total_s: float = Field(default=30.0, gt=0, le=600)
    memory_mb: int = Field(default=512, ge=64, le=1 << 20)
    tolerance: float = Field(default=1e-6, ge=0, le=1)
    indent: bool = True


DEFAULTS = TestDefaults()


class CodeTests(TestDefaults):
    """A checked reference; see the module's docstring."""

    stdin: tuple[StdinTest, ...] = ()
    calls: tuple[CallTest, ...] = ()
    asserts: tuple[str, ...] = ()
    setup: str = ""
    prompt: str = ""
    entry_point: str = Field(default="", pattern=r"^([A-Za-z_]\w*)?$")
    names: tuple[str, ...] | None = None

    @field_validator("asserts", "setup")
    @classmethod
    def _parseable(cls, source: Any) -> Any:
        return _short_integers(source) if isinstance(source, str) else tuple(map(_short_integers, source))

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not (self.stdin or self.calls or self.asserts):
            raise ValueError("there is no test: give stdin, calls or asserts")
        if self.calls and not self.entry_point:
            raise ValueError("calls need the entry_point, the name of the function to call")
        if self.prompt and not self.entry_point:
            raise ValueError("a prompt needs the entry_point, which separates its helpers from the function to write")
        if not self.asserts:
            return self
        free, has_assert = free_names(self)
        if not has_assert:
            raise ValueError("the asserts assert nothing")
        if self.names is not None and (unknown := sorted(free - {*self.names, self.entry_point})):
            raise ValueError(f"the tests use {', '.join(unknown)}: import it in setup, or list it in names")
        return self

    @property
    def head(self) -> str:
        """The part of the prompt before the entry point: imports and helpers."""
        if not self.entry_point:
            return ""
        definition = rf"^(?:async[ \t]+)?def[ \t]+{self.entry_point}\b"
        starts = [match.start() for match in re.finditer(definition, self.prompt, re.MULTILINE)]
        return self.prompt[: starts[-1]] if starts else ""

    def fit(self, program: str) -> int:
        """How many of the names that the tests use a program defines; for stdin tests, 1 if it reads its input."""
        if self.calls or self.asserts:
            return sum(defines(program, name) for name in self.used_names)
        return int(_READ.search(program) is not None)

    @property
    def used_names(self) -> tuple[str, ...]:
        """The names that the asserts use from the program."""
        if self.names is not None:
            return tuple(dict.fromkeys(filter(None, [*self.names, self.entry_point])))
        return tuple(sorted({*free_names(self)[0], *filter(None, [self.entry_point])}))


@lru_cache(maxsize=4096)
def parse_tests(reference: str, defaults: TestDefaults = DEFAULTS) -> CodeTests | str:
    """The tests, or why they cannot be used; cached, because many responses share a reference."""
    if len(reference) > MAX_CHARS:
        return f"the reference has more than {MAX_CHARS} characters"
    try:
        return CodeTests.parse(defaults.model_dump() | _shape(json.loads(reference, parse_int=integer)))
    except (ValueError, TypeError, RecursionError) as error:
        return str(error) or type(error).__name__


def free_names(tests: CodeTests) -> tuple[set[str], bool]:
    """The names that setup and asserts use but do not define, and whether there is an assert."""
    used: set[str] = set()
    defined: set[str] = set()
    has_assert = False
    for source in (tests.head, tests.setup, *tests.asserts):
        try:
            tree = parsed(source)
        except _FAULTS as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"the tests are not valid Python ({reason}): {source[:60]!r}") from None
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                defined.add(node.name)
            elif isinstance(node, ast.arg):
                defined.add(node.arg)
            elif isinstance(node, ast.alias):
                defined.add((node.asname or node.name).split(".")[0])
            elif isinstance(node, ast.ExceptHandler) and node.name:
                defined.add(node.name)
            has_assert = has_assert or isinstance(node, ast.Assert)
    return used - defined - set(dir(builtins)), has_assert


def _short_integers(source: str) -> str:
    """Python source with its integers of thousands of digits in hexadecimal, which Python parses without a limit."""
    return _LONG_INTEGER.sub(lambda match: hex(integer(match["digits"])) if match["digits"] else match[0], source)


def parsed(source: str) -> ast.Module:
    """The syntax tree of a test, without warnings about its escape sequences."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return ast.parse(source)


def defines(program: str, name: str) -> bool:
    """Whether a program defines a top-level function, class or variable of that name, or a method of its `Solution`.

    The text is not parsed: it is not trusted.
    """
    definition = rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*(?::[^\n=]*)?=(?!=)"
    if _SOLUTION.search(program):
        definition += rf"|^[ \t]+def[ \t]+{name}\b"
    return re.search(definition, program, re.MULTILINE) is not None


def _shape(value: Any) -> dict[str, Any]:
    """Formats of other projects converted to ours."""
    if isinstance(value, list) and not any(isinstance(test, dict) for test in value):
        return {"asserts": value}
    row = {"tests": value} if isinstance(value, list) else value
    if not isinstance(row, dict):
        raise ValueError(f"the tests are {type(value).__name__}: expected an object or a list of asserts or tests")
    tables = [_decoded(row[name], name) for name in _TABLES if row.get(name)]
    if "inputs" in row:
        tables.append(row)
    if not tables:
        if empty := [name for name in _TABLES if name in row]:
            raise ValueError(f"there is no test in {', '.join(empty)}")
        return row
    metadata = _decoded(row.get("metadata"), "metadata")
    tests = [test for table in tables for test in _listed(table)]
    named_there = metadata.get("func_name") if isinstance(metadata, dict) else None
    name = next(filter(None, (row.get("fn_name"), named_there, *(test.get("fn_name") for test in tests))), None)
    own = {name: row[name] for name in CodeTests.model_fields if name in row}
    if name is None:
        if any(test.get("testtype") == "functional" for test in tests):
            raise ValueError("the tests call a function: give its name as fn_name, or as func_name in metadata")
        pairs = [{"input": _text(test["input"]), "output": _text(test["output"])} for test in tests]
        return {**own, "stdin": pairs}
    calls = [_call(test) for test in tests]
    # APPS and TACO put each result into a list of its own.
    boxed = all(isinstance(test["output"], list) and len(test["output"]) == 1 for test in tests)
    return {**own, "entry_point": name, "calls": [call | {"boxed": boxed} for call in calls]}


def _decoded(value: Any, name: str) -> Any:
    """A value that may be JSON text, as in Parquet files."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_int=integer)
    except ValueError:
        raise ValueError(f"{name} is text, but not JSON: decompress it first, or leave it out") from None


def _listed(table: Any) -> list[dict[str, Any]]:
    """Tests as objects with input and output, from a list of them or from two lists of one length."""
    if isinstance(table, dict):
        texts, outputs = (table.get(plural, table.get(plural[:-1])) for plural in ("inputs", "outputs"))
        if not isinstance(texts, list) or not isinstance(outputs, list) or len(texts) != len(outputs):
            raise ValueError("inputs and outputs must be lists of the same length")
        return [{"input": text, "output": output} for text, output in zip(texts, outputs, strict=True)]
    if not isinstance(table, list) or not all(
        isinstance(test, dict) and {"input", "output"} <= {*test} for test in table
    ):
        raise ValueError("each test must be an object with input and output")
    return table


def _text(value: Any) -> Any:
    """Lines joined to one text."""
    return "\n".join(map(str, value)) if isinstance(value, list) else value


def _call(test: dict[str, Any]) -> dict[str, Any]:
    """A call and its result; LiveCodeBench writes arguments and results as JSON, one per line."""
    arguments, output = test["input"], test["output"]
    if isinstance(arguments, str):
        arguments = [json.loads(line, parse_int=integer) for line in arguments.splitlines() if line.strip()]
        output = json.loads(output, parse_int=integer) if isinstance(output, str) else output
    return {"args": arguments, "output": output}


def integer(digits: str) -> int:
    """As `int`, which refuses more than 4,300 digits; raises ValueError above `_MAX_DIGITS`: it would take seconds."""
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits: expected at most {_MAX_DIGITS}")
    negative, value = digits.startswith("-"), 0
    digits = digits.lstrip("-")
    for start in range(0, len(digits), 4000):
        piece = digits[start : start + 4000]
        value = value * 10 ** len(piece) + int(piece)
    return -value if negative else value
