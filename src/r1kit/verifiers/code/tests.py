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

A list of texts is read as asserts, and {"inputs": [...], "outputs": [...], "fn_name": ...} (APPS) as stdin tests, or as
calls if there is a function name. As usual in Python, arguments that the program changes in place are changed for the
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

from pydantic import Field, model_validator

from r1kit.settings import Settings

MAX_CHARS = 8 << 20
_warnings_lock = threading.Lock()  # the warning filters are shared by all threads
_FAULTS = (SyntaxError, ValueError, RecursionError, MemoryError)


class StdinTest(Settings):
    """The input of the program, and the output that it must print."""

    input: str
    output: str


class CallTest(Settings):
    """The arguments of one call, and the result that it must return, as JSON data."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    output: Any


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
        return CodeTests.parse(defaults.model_dump() | _shape(json.loads(reference)))
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


def parsed(source: str) -> ast.Module:
    """The syntax tree of a test, without warnings about its escape sequences."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return ast.parse(source)


def defines(program: str, name: str) -> bool:
    """Whether a program defines a top-level function, class or variable of that name; the text is not parsed."""
    definition = rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*(?::[^\n=]*)?=(?!=)"
    return re.search(definition, program, re.MULTILINE) is not None


def _shape(value: Any) -> dict[str, Any]:
    """Formats of other projects converted to ours."""
    if isinstance(value, list):
        return {"asserts": value}
    if not isinstance(value, dict):
        raise ValueError(f"the tests are {type(value).__name__}: expected an object or a list of asserts")
    if "inputs" not in value:
        return value
    inputs, outputs, name = value["inputs"], value.get("outputs"), value.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError("inputs and outputs must be lists of the same length")
    if name and all(isinstance(output, list) and len(output) == 1 for output in outputs):
        outputs = [output[0] for output in outputs]  # APPS and TACO wrap the result of a function in a list
    pairs = list(zip(inputs, outputs, strict=True))
    if name:
        return {"entry_point": name, "calls": [{"args": args, "output": output} for args, output in pairs]}
    return {"stdin": [{"input": _joined_lines(text), "output": _joined_lines(output)} for text, output in pairs]}


def _joined_lines(value: Any) -> Any:
    return "\n".join(map(str, value)) if isinstance(value, list) else value
