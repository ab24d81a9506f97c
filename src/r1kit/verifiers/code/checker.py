"""Runs the asserts, in a sandbox of its own; their calls are answered by the program in another sandbox.

The report goes to standard error: a JSON line `{"asked": true}` before the first question to the program, and a last
line `{"units": [{"planned", "passed", "failed", "crashed"}, ...], "gone": reason, "detail": first failure}`, or
`{"unusable": reason}` if the tests fail without the program's fault. "undecided" beside the units means that an assert
cannot be decided from here, whatever the program; the results of the other asserts count.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from r1kit.verifiers.code.wire import Gone, Peer, Refused, decode, encode

ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class Enough(BaseException):
    """Stops at the first failure; a BaseException, so that tests that catch exceptions do not catch it."""


class Undecided(Exception):
    """An assert that only the program itself could decide, whatever the program; it costs no share of the tests."""


class Function:
    """A function of the program. It can only be called, so that it never passes for a plain value."""

    def __init__(self, client: Client, on: Any) -> None:
        self._client, self._on = client, on

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._client.call(self._on, args, kwargs)


class Object(Function):
    """An object or class of the program, for tests that build their input with the program's classes.

    There is no comparison or arithmetic: their operands would reveal expected values to the program. Two objects of the
    program are not compared here either: a program that returns the same object for everything would pass.
    """

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Object):
            raise Undecided("the tests compare objects of the program, and only it could say whether they are equal")
        return False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._client.value({"do": "get", "on": self._on, "name": name})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_client", "_on"):
            object.__setattr__(self, name, value)
        else:
            data = self._client.encoded(value)
            self._client.value({"do": "set", "on": self._on, "name": name, "value": data})

    def _method(self, name: str, *args: Any) -> Any:
        return self._client.value({"do": "get", "on": self._on, "name": name})(*args)

    def __len__(self) -> int:
        return int(self._method("__len__"))

    def __getitem__(self, key: Any) -> Any:
        return self._method("__getitem__", key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._method("__iter__"))

    def __str__(self) -> str:
        return str(self._method("__str__"))


class Client:
    """The program, seen from the tests."""

    def __init__(self, peer: Peer, seconds: float, objects: bool) -> None:
        self.peer, self.seconds, self.objects = peer, seconds, objects
        self.questions = 0
        self.last: Mapping[str, Any] = {}
        self.missing: set[str] = set()
        self.callbacks: list[Callable[..., Any]] = []
        self.known: dict[int, Function] = {}

    def value(self, question: Mapping[str, Any]) -> Any:
        """The answer to a question, or the program's exception, with its class if that is built in."""
        self.questions += 1
        self.last = reply = self.peer.ask(question, self.seconds)
        if "raised" in reply:
            raise raised(str(reply["raised"]), str(reply.get("message")))
        try:
            return self.decoded(reply.get("value"))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise Refused(f"the program's value cannot be read: {error}") from None

    def call(self, on: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        question = {
            "do": "call",
            "on": on,
            "args": [self.encoded(value) for value in args],
            "kwargs": {name: self.encoded(value) for name, value in kwargs.items()},
        }
        result = self.value(question)
        for value, after in zip(args, self.last.get("args") or ()):  # noqa: B905
            if after is not None:
                replace(value, self.decoded(after))
        return result

    def named(self, name: str) -> Any:
        """The program's object of that name; a missing one becomes a function that fails when it is called."""
        try:
            return self.value({"do": "name", "on": name})
        except Gone:
            raise
        except Exception:  # `value` raises what the program raised, of any class
            if self.last.get("raised") == "NameError":
                self.missing.add(name)
            return Function(self, name)

    def encoded(self, value: Any) -> Any:
        return encode(value, self.refer)

    def decoded(self, data: Any) -> Any:
        return decode(data, self.resolve)

    def refer(self, value: Any) -> Any:
        if isinstance(value, Function):
            return {"handle": value._on}
        if callable(value):
            self.callbacks.append(value)
            return {"callback": len(self.callbacks) - 1}
        raise Undecided(f"the tests cannot pass a {type(value).__name__} to the program")

    def resolve(self, tag: str, content: Any) -> Any:
        number, kind = content
        if tag == "function":
            return self.known.setdefault(int(number), Function(self, int(number)))
        if tag == "object" and self.objects:
            return self.known.setdefault(int(number), Object(self, int(number)))
        raise Refused(f"the program's value is a {str(kind)[:40]}, which is not plain data")

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Call a function that the tests passed to the program; the program can do nothing else here."""
        try:
            args = [self.decoded(item) for item in question["args"]]
            return {"value": self.encoded(self.callbacks[int(question["on"])](*args))}
        except Exception as error:  # a function of the tests may raise anything on the program's arguments
            return {"message": f"{type(error).__name__}: {error}"[:500]}


def raised(name: str, message: str) -> Exception:
    """An exception of the program: the built-in class of that name, otherwise a RuntimeError with the name.

    `StopIteration` is not raised as such: it would silently end a loop of the tests, as in `all(map(f, values))`.
    """
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and name not in ("StopIteration", "StopAsyncIteration"):
        try:
            return kind(message)
        except TypeError:  # some classes take more arguments (UnicodeDecodeError)
            pass
    return RuntimeError(f"{name}: {message}")


def replace(value: Any, after: Any) -> None:
    """Update a container with its content on the other side."""
    if isinstance(value, list) and isinstance(after, list):
        value[:] = after
    elif isinstance(value, (dict, set)) and type(value) is type(after):
        value.clear()
        value.update(after)


class Counted(ast.NodeTransformer):
    """Rewrites asserts so that each is counted by itself, and the next one runs whatever its result.

    An assert counts once, however often it runs: a program gains nothing by yielding many good values before a bad one.
    """

    def __init__(self) -> None:
        self.planned = self.number = 0

    def visit_Assert(self, node: ast.Assert) -> ast.stmt:
        """`assert X` -> try: assert X / except Exception as e: __failed__(7, e) / else: __passed__(7)."""
        if isinstance(node.test, ast.Constant) and node.test.value:
            return ast.copy_location(ast.Pass(), node)  # `assert True` tests nothing
        self.planned += not isinstance(node.test, ast.Constant)
        self.number += 1
        reports = f"except Exception as _error: __failed__({self.number}, _error)\nelse: __passed__({self.number})"
        [counted] = ast.parse(f"try: pass\n{reports}").body
        assert isinstance(counted, ast.Try)
        counted.body = [node]
        return ast.copy_location(counted, node)


class Unit:
    """One test: the results of its asserts, and the error that ended it, if any."""

    def __init__(self, source: str, thorough: bool) -> None:
        self.thorough, self.crashed, self.error, self.undecided = thorough, False, "", ""
        self.passed: set[int] = set()
        self.failed: set[int] = set()
        self.counted = Counted()
        tree = self.counted.visit(ast.parse(source))
        for node in list(tree.body):  # call test functions, as pytest does
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not node.args.args:
                tree.body += ast.parse(f"{node.name}()").body
        self.code = compile(ast.fix_missing_locations(tree), "tests.py", "exec")

    def run(self, namespace: dict[str, Any]) -> None:
        namespace.update(__passed__=self.passed.add, __failed__=self._fail)
        try:
            exec(self.code, namespace)
        except Undecided as error:
            self.undecided = self.undecided or str(error)
        except Exception as error:  # tests are any Python, and work on any value of the program
            self.crashed, self.error = True, self.error or described(error)

    def _fail(self, number: int, error: Exception) -> None:
        if isinstance(error, Undecided):
            self.undecided = self.undecided or str(error)
            return
        self.failed.add(number)
        self.error = self.error or described(error)
        if not self.thorough:
            raise Enough

    def report(self) -> dict[str, Any]:
        return {
            "planned": self.counted.planned,
            "passed": len(self.passed - self.failed),
            "failed": len(self.failed),
            "crashed": self.crashed,
        }


def misfits(setup: str, client: Client, bound: Mapping[str, Any]) -> set[str]:
    """Names with which the setup may fail by the program's fault, without asking it anything.

    The program binds them to plain data (`f = 5`), or to nothing, or to a function where the setup computes with them.
    Other objects are not among them: a setup may compute with objects, and only the program could.
    """
    plain = {name for name, value in bound.items() if not isinstance(value, Function)}
    functions = {name for name, value in bound.items() if type(value) is Function and isinstance(value._on, int)}
    computed = {part.id for part in operands(ast.parse(setup)) if isinstance(part, ast.Name)}
    return plain | client.missing | functions & computed


def operands(tree: ast.AST) -> Iterator[ast.AST]:
    """The parts of arithmetic, ordering, indexing and iteration, where no function can stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            yield from (node.left, node.right)
        elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.Not):
            yield node.operand
        elif isinstance(node, ast.AugAssign):
            yield from (node.target, node.value)
        elif isinstance(node, ast.Subscript):
            yield node.value
        elif isinstance(node, (ast.For, ast.comprehension)):
            yield node.iter
        elif isinstance(node, ast.Compare) and all(isinstance(each, ORDER) for each in node.ops):
            yield from (node.left, *node.comparators)


def reads(setup: str, names: set[str], error: Exception) -> bool:
    """Whether the setup, up to the statement that failed, mentions one of the names."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != "setup.py":
        trace = trace.tb_next
    reached = [node for node in ast.parse(setup).body if trace is None or node.lineno <= trace.tb_lineno]
    return any(isinstance(node, ast.Name) and node.id in names for part in reached for node in ast.walk(part))


def described(error: Exception) -> str:
    """An exception as one line."""
    return f"{type(error).__name__}: {error}"[:300].removesuffix(": ")


def main() -> None:
    """Run all units and report."""
    with open("job.json", encoding="utf-8") as file:
        job = json.load(file)
    report, target, source = os.fdopen(os.dup(2), "w", encoding="ascii"), os.dup(1), os.dup(0)
    empty = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(empty, descriptor)
    random.seed(0)
    peer = Peer(source, target, lambda question: client.answer(question))
    client = Client(peer, job["seconds"], job["objects"])
    print(json.dumps(examined(job, client, report)), file=report, flush=True)
    os._exit(0)


def examined(job: dict[str, Any], client: Client, report: Any) -> dict[str, Any]:
    """The report on all units."""
    try:
        units = [Unit(source, job["thorough"]) for source in job["units"]]
        setup = compile(job["setup"], "setup.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return {"unusable": described(error)}
    module, detail, undecided = type(sys)("tests"), "", ""
    sys.modules["tests"] = module
    try:
        if "hello" not in client.peer.receive(None):
            raise Gone("it did not start")
        print(json.dumps({"asked": True}), file=report, flush=True)
        client.value({"do": "load"})
        bound = {name: client.named(name) for name in job["names"]}
        module.__dict__.update(bound)
        questions = client.questions
        try:
            exec(setup, module.__dict__)
        except Exception as error:  # the setup is any Python
            if client.questions == questions and not reads(job["setup"], misfits(job["setup"], client, bound), error):
                return {"unusable": f"the setup fails: {described(error)}"}  # the program had no part in it
            raise
        for unit in units:
            unit.run(module.__dict__)
    except Enough:
        pass
    except Undecided as error:
        undecided = str(error)
    except Exception as error:  # the program, which may raise any class, does not load or breaks the setup
        detail = described(error)
    detail = detail or next((unit.error for unit in units if unit.error), "")
    undecided = undecided or next((unit.undecided for unit in units if unit.undecided), "")
    return {
        "units": [unit.report() for unit in units],
        "gone": client.peer.gone,
        "detail": detail,
        "undecided": undecided,
    }


if __name__ == "__main__":
    main()
