"""The reference of the verifier `code`: tests as JSON text.

    {"stdin": [{"input": "1 2\\n", "output": "3\\n"}]}                   a program that reads and prints
    {"entry_point": "add", "calls": [{"args": [1, 2], "output": 3}]}     a function, its arguments, its result
    {"entry_point": "add", "asserts": ["assert add(1, 2) == 3"]}         Python that asserts (or pytest functions)

and, besides, each of them optional:

    "setup"      Python that runs before the asserts: imports, helpers, inputs
    "prompt"     how the program begins, where the response may go on from it; its imports and helpers always count
    "names"      what the asserts take from the program; if left out, all that is defined nowhere else
    "time_s"     seconds for each test or call (5); "total_s" for all of them (30)
    "memory_mb"  address space (512)
    "tolerance"  for numbers written as fractions, absolute and relative, in stdin and calls (1e-6)
    "indent"     whether white space at the start of lines, and empty lines at the start of all, count in stdin (true)

A list of texts means asserts, and {"inputs": [...], "outputs": [...], "fn_name": ...} (APPS) stdin tests, or calls
where there is a function's name. Arguments that the program changes in place are changed for the asserts too, as Python
has it: expected values are best written as literals.
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
_quiet = threading.Lock()  # the state of warnings belongs to all threads
_FAULTS = (SyntaxError, ValueError, RecursionError, MemoryError)


class StdinTest(Settings):
    """What is read, and what must be printed."""

    input: str
    output: str


class CallTest(Settings):
    """The arguments of one call, and what it must return, as JSON data."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = Field(default_factory=dict)
    output: Any


class TestDefaults(Settings):
    """What a reference may say of its limits and its tolerance, and what holds where it does not."""

    time_s: float = Field(default=5.0, gt=0, le=600)
    total_s: float = Field(default=30.0, gt=0, le=600)
    memory_mb: int = Field(default=512, ge=64, le=1 << 20)
    tolerance: float = Field(default=1e-6, ge=0, le=1)
    indent: bool = True


DEFAULTS = TestDefaults()


class CodeTests(TestDefaults):
    """A reference, checked: see the module's text."""

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
            raise ValueError("a prompt needs the entry_point, so that helpers in it can be told from what is asked for")
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
        return _before(self.prompt, self.entry_point)

    @property
    def wanted(self) -> tuple[str, ...]:
        """The names that the asserts take from the program."""
        if self.names is not None:
            return tuple(dict.fromkeys(filter(None, [*self.names, self.entry_point])))
        return tuple(sorted({*free_names(self)[0], *filter(None, [self.entry_point])}))


@lru_cache(maxsize=4096)
def parse(reference: str, defaults: TestDefaults = DEFAULTS) -> CodeTests | str:
    """The tests, or what is wrong with them; many responses share one reference."""
    if len(reference) > MAX_CHARS:
        return f"it has more than {MAX_CHARS} characters"
    try:
        return CodeTests.parse(defaults.model_dump() | _shape(json.loads(reference)))
    except (ValueError, TypeError, RecursionError) as error:
        return str(error) or type(error).__name__


def free_names(tests: CodeTests) -> tuple[set[str], bool]:
    """The names that setup and asserts use and do not define, and whether anything is asserted."""
    used: set[str] = set()
    defined: set[str] = set()
    has_assert = False
    for source in (tests.head, tests.setup, *tests.asserts):
        try:
            tree = parsed(source)
        except _FAULTS as error:
            raise ValueError(f"the tests are no Python ({type(error).__name__}: {error}): {source[:60]!r}") from None
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
    """The syntax tree of a test, without the warnings that other people's escape sequences give."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return ast.parse(source)


def defines(program: str, name: str) -> bool:
    """Whether a program has a function, class or variable of that name at its top; the text is never parsed here."""
    found = rf"^(?:(?:async[ \t]+)?def|class)[ \t]+{name}\b|^{name}[ \t]*(?::[^\n=]*)?=(?!=)"
    return re.search(found, program, re.MULTILINE) is not None


def _before(prompt: str, name: str) -> str:
    found = list(re.finditer(rf"^(?:async[ \t]+)?def[ \t]+{name}\b", prompt, re.MULTILINE)) if name else []
    return prompt[: found[-1].start()] if found else ""


def _shape(value: Any) -> dict[str, Any]:
    """Other projects' shapes in ours."""
    if isinstance(value, list):
        return {"asserts": value}
    if not isinstance(value, dict):
        raise ValueError(f"the tests are an object or a list of asserts, not {type(value).__name__}")
    if "inputs" not in value:
        return value
    inputs, outputs, name = value["inputs"], value.get("outputs"), value.get("fn_name")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise ValueError("inputs and outputs are lists of one length")
    pairs = list(zip(inputs, outputs, strict=True))
    if name:
        return {"entry_point": name, "calls": [{"args": given, "output": output} for given, output in pairs]}
    return {"stdin": [{"input": _lined(given), "output": _lined(output)} for given, output in pairs]}


def _lined(value: Any) -> Any:
    return "\n".join(map(str, value)) if isinstance(value, list) else value
