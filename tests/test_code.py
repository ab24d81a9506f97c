"""The verifier `code`: programs that are right, wrong, or hostile, and what is no fault of the program."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile_programs
from r1kit.rewards import REWARDS
from r1kit.rewards.code import code_reward, get_code_reward
from r1kit.sandbox import Execution, Limits, SandboxError, choose, default_sandbox, process
from r1kit.tasks import TaskSpec, load_known, load_task, load_tasks
from r1kit.types import Problem
from r1kit.verifiers import VERIFIERS, verify_all
from r1kit.verifiers.code import grading as code_verifier
from r1kit.verifiers.code.fenced import extract_program
from r1kit.verifiers.code.grading import grade_code, grade_code_batch, verify_code
from r1kit.verifiers.code.matching import same_output, same_value
from r1kit.verifiers.code.runs import Grade
from r1kit.verifiers.code.tests import CodeTests, parse_tests
from r1kit.verifiers.code.wire import decode, encode
from sandbox_worker import workers

Ask = Callable[..., Any]
PLUS = {"entry_point": "plus", "calls": [{"args": [1, 2], "output": 3}]}


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with workers() as asking:
        yield asking


@pytest.fixture
def works() -> None:
    try:
        default_sandbox()
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error} (apt-get install bubblewrap)")


def answer(program: str) -> str:
    return f"<think>It is easy.</think>\n```python\n{program}\n```"


def grade(program: str, *, thorough: bool = True, **tests: Any) -> Grade:
    return grade_code(answer(program), json.dumps(tests), thorough=thorough)


# --- which program


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("```py\nx = 1\n```\nSo:\n```python\nx = 2\n```\nprints\n```\n2\n```", "x = 2"),
        ("```\nx = 1\n```", "x = 1"),
        ("```python\nx = 1\n```\n```bash\npython x.py\n```", "x = 1"),
        ("<think>```python\nx = 1\n```</think> so be it", None),
        ("<think>```python\nx = 1\n```</think>```python\nx = 2\n```", "x = 2"),
        ("<think>a</think><answer>\n    return 1\n</answer>", "    return 1"),
        ("<think>a</think>```python\nx = 1\n```<answer>```python\nx = 2\n```</answer>", "x = 2"),
        ("<answer>x = 1</answer><think>no</think>", None),
        ("<answer>```python\nx = 1</answer>", None),
        ("```python\nx = 1\n```\n```python\nx = 2", None),
        ("1. So:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y"),
        ("````python\ns = '''\n```\n'''\n````", "s = '''\n```\n'''"),
        ("~~~python\nx = 1\n~~~", "x = 1"),
        ("```python title='a.py'\nx = 1\n```", "x = 1"),
        ("\ufeff```python\n\ufeffx = 1\n```", "x = 1"),
        ("```python\nx = '''\n```\nprints\n```\n'''\n```", "x = '''\n```\nprints\n```\n'''"),
        ("```python\n# don't\nx = '''\n```\nno end", "# don't\nx = '''"),
        ("x = 1", None),
        ("```python\n\n```", None),
        ("", None),
    ],
)
def test_the_program_is_in_the_answer_or_the_last_closed_block(response: str, program: str | None) -> None:
    assert extract_program(response) == program


@pytest.mark.parametrize(
    ("tests", "blocks", "chosen"),
    [
        (PLUS, ["def plus(a, b): return a + b", "print(plus(1, 2))"], 0),
        (PLUS, ["def plus(a, b): return 0", "def plus(a, b): return a + b", "assert plus(1, 2) == 3"], 1),
        (PLUS, ["class Solution:\n    def plus(self, a, b): return a + b", "print(Solution().plus(1, 2))"], 0),
        (PLUS, ["def minus(a, b): return a - b", "print(minus(1, 2))"], 1),
        ({"asserts": ["s = Stack()\nassert s.top() is None"]}, ["class Stack: ...", "s = Stack()"], 0),
        ({"stdin": [{"input": "1", "output": "1"}]}, ["print(input())", "print('1 gives 1')"], 0),
        ({"stdin": [{"input": "1", "output": "1"}]}, ["print(0)", "print(1)"], 1),
    ],
)
def test_of_several_blocks_the_program_has_what_the_tests_need(
    tests: dict[str, Any], blocks: list[str], chosen: int
) -> None:
    checked = parse_tests(json.dumps(tests))
    assert isinstance(checked, CodeTests)
    response = "\nSo:\n".join(f"```python\n{block}\n```" for block in blocks)
    assert extract_program(response, checked.fit) == blocks[chosen]


@given(st.text(st.sampled_from("`~\n pyx<>/think answer"), max_size=60))
def test_no_text_is_too_odd_to_look_for_a_program(text: str) -> None:
    assert extract_program(text) is None or extract_program(text)


# --- what counts as the same


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("3\n", "3", True),
        ("1 2\n3", "1 2  \n3\n\n", True),
        ("1 2", "1\n2", False),
        ("Yes", "yes", False),
        ("0.5", "0.5000001", True),
        ("0.50", ".5", True),
        ("0.5", "0.51", False),
        ("1e-3", "0.001", True),
        ("3.0", "3", True),
        ("3", "3.0", False),
        ("1000000007", "1000000008", False),
        ("a 1.5", "b 1.5", False),
        ("1.5", "nan", False),
        ("1.5", "1" * 5000, False),
        ("1.5", "1e9999", False),
        ("", "", True),
        ("", "0", False),
        (" 3", "3", False),
        ("3", "\t3", False),
        ("1  2", "1 2", True),
        ("\n3", "3", False),
        ("  0.5", "  0.5000001", True),
    ],
)
def test_outputs_are_compared_by_lines_and_fractions_by_tolerance(expected: str, printed: str, same: bool) -> None:
    assert same_output(expected, printed, 1e-6) is same
    assert same_output(expected, printed, 1e-6, indent=False) is (same or expected.strip() == printed.strip())


@pytest.mark.parametrize(
    ("expected", "value", "same"),
    [
        (3, 3, True),
        (3, 3.0, True),
        (3, True, False),
        (True, 1, False),
        (True, True, True),
        (None, None, True),
        (None, 0, False),
        ("a", "a", True),
        (0.1, 0.1 + 1e-9, True),
        (0.1, 0.2, False),
        (2.0, 2, True),
        (2.5, 10**400, False),
        ([1, [2, 3]], (1, (2, 3)), True),
        ([1, 2], [1, 2, 3], False),
        ([1, 2], {1, 2}, False),
        ([1, 2], {1: 2}, False),
        ({"1": "a"}, {1: "a"}, True),
        ({"a": [1]}, {"a": (1,)}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, [["a", 1]], False),
        (2**70, 2**70, True),
        (2**70, 2**70 + 1, False),
        ([], (), True),
    ],
)
def test_values_are_compared_as_json_would_have_them(expected: Any, value: Any, same: bool) -> None:
    data = json.loads(json.dumps(encode(value, refused)))
    assert same_value(expected, data, 1e-6) is same


def refused(value: Any) -> Any:
    raise AssertionError(value)


def none(tag: str, content: Any) -> Any:
    raise ValueError(tag)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.integers(2**53, 2**90),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers(), st.text()), inner, max_size=3)
        | st.sets(st.integers() | st.text(), max_size=3)
        | st.frozensets(st.booleans(), max_size=2)
    ),
    max_leaves=10,
)


@given(PLAIN)
def test_plain_values_cross_the_wire_unchanged(value: Any) -> None:
    back = decode(json.loads(json.dumps(encode(value, refused))), none)
    assert back == value
    assert type(back) is type(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["tuple", "dict", "int", "set", "bytes", "type", "x"]), inner, max_size=2)
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_whatever_comes_over_the_wire_is_compared_and_never_raises(expected: Any, data: Any) -> None:
    assert same_value(expected, data, 1e-6) in (True, False)


# --- references


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("", "Expecting value"),
        ("{", "Expecting"),
        ("5", "an object or a list of asserts"),
        ("{}", "there is no test"),
        ("[]", "there is no test"),
        ("[5]", "asserts.0"),
        ('["x ="]', "not valid Python"),
        ('["print(f(1))"]', "assert nothing"),
        ('{"stdin": [{"input": "1"}]}', "stdin.0.output"),
        ('{"stdin": [], "call": []}', "did you mean calls"),
        ('{"calls": [{"output": 1}]}', "need the entry_point"),
        ('{"calls": [{"output": 1}], "entry_point": "a b"}', "entry_point"),
        ('{"asserts": ["assert f(1) == g(2)"], "names": ["f"]}', "use g: import it in setup"),
        ('{"inputs": ["1"], "outputs": []}', "the same length"),
        ('{"stdin": [{"input": "1", "output": "1"}], "time_s": -1}', "time_s"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_reference_that_cannot_be_used_gives_none_whatever_was_answered(reference: str, told: str) -> None:
    for response in ("", answer("print(1)")):
        verdict = verify_code(response, reference)
        assert verdict.correct is None
        assert told in verdict.detail


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_a_reference_or_a_reason(text: str) -> None:
    assert isinstance(parse_tests(text), CodeTests | str)


def test_shapes_of_other_projects_are_understood() -> None:
    stdin = parse_tests(json.dumps({"inputs": ["1\n", ["2", "3"]], "outputs": ["1\n", ["2"]]}))
    calls = parse_tests(json.dumps({"inputs": [[1, 2]], "outputs": [3], "fn_name": "plus"}))
    asserts = parse_tests(json.dumps(["assert plus(1, 2) == 3"]))
    columns = {"public_tests": {"input": ["1"], "output": ["2"]}, "private_tests": {"input": ["3"], "output": ["4"]}}
    texts = parse_tests(json.dumps({"inputs": [["a"]], "outputs": ["12"], "fn_name": "f"}))
    functional = {"input": "[1, 2]\n9", "output": "[0, 1]", "testtype": "functional"}
    lines = parse_tests(json.dumps({"public_test_cases": [functional], "metadata": '{"func_name": "two"}'}))
    assert isinstance(texts, CodeTests) and isinstance(lines, CodeTests)
    assert texts.calls[0].accepted == ("12",)
    assert (lines.entry_point, lines.calls[0].args, lines.calls[0].accepted) == ("two", ([1, 2], 9), ([0, 1],))
    assert "function" in str(parse_tests(json.dumps({"tests": [functional], "metadata": "[]"})))
    tables = [columns, [{"input": "1", "output": "2"}, {"input": "3", "output": "4"}]]
    tables += [{"official_tests": tables[1], "time_limit": 1.0}, {"public_test_cases": json.dumps(tables[1])}]
    for table in tables:
        listed = parse_tests(json.dumps(table))
        assert isinstance(listed, CodeTests)
        assert [(one.input, one.output) for one in listed.stdin] == [("1", "2"), ("3", "4")]
    assert isinstance(stdin, CodeTests) and isinstance(calls, CodeTests) and isinstance(asserts, CodeTests)
    assert [(one.input, one.output) for one in stdin.stdin] == [("1\n", "1\n"), ("2\n3", "2")]
    assert (calls.entry_point, calls.calls[0].output) == ("plus", 3)
    assert asserts.used_names == ("plus",)


def test_no_program_is_wrong_without_a_sandbox() -> None:
    verdict = verify_code("<think>hard</think> I do not know", json.dumps(PLUS))
    assert (verdict.correct, verdict.detail) == (False, "no program found")
    assert verify_code(answer("x" * 300_000), json.dumps(PLUS)).correct is False


# --- right and wrong


def test_stdin_programs_are_judged_by_what_they_print(works: None) -> None:
    tests = [{"input": "1 2\n", "output": "3\n"}, {"input": "4 5", "output": "9"}, {"input": "1.5 1", "output": "2.5"}]
    program = "a, b = map({}, input().split())\nprint(a + b)\nif __name__ != '__main__': print('no')"
    assert grade(program.format("eval"), stdin=tests) == Grade(
        verdict=code_verifier.Verdict(outcome="right", extracted=program.format("eval"), detail="passes 3 tests"),
        share=1.0,
    )
    failing = grade(program.format("int"), stdin=tests)
    assert failing.verdict.correct is False
    assert failing.share == pytest.approx(2 / 3)
    assert failing.verdict.detail.startswith("test 3: ValueError")


def test_calls_are_judged_by_what_comes_back(works: None) -> None:
    calls = [{"args": [[2, 1]], "output": [1, 2]}, {"args": [[]], "kwargs": {"key": {"a": 1}}, "output": []}]
    right = (
        "def order(items, key=None):\n    print('noise')\n    assert key in (None, {'a': 1})\n"
        "    return tuple(sorted(items))"
    )
    assert grade(right, entry_point="order", calls=calls).share == 1.0
    half = grade("def order(items, key=None): return items", entry_point="order", calls=calls)
    assert (half.verdict.correct, half.share) == (False, 0.5)
    assert half.verdict.detail == "call 1: returned [2, 1]"
    for broken in ("def order(", "def order(items, key=None): return sorted(items)\nraise KeyError('late')"):
        found = grade(broken, entry_point="order", calls=calls)
        assert (found.share, found.verdict.detail.split(":")[0]) == (0.0, "it does not load")
    method = "class Solution:\n    def order(self, items, key=None): return sorted(items)"
    assert grade(method, entry_point="order", calls=calls).verdict.correct is True


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(x): return x + 1", ["assert f(1) == 2", "for n in range(5):\n    assert f(n) == n + 1"]),
        ("def f(x): return x / 3", ["assert abs(f(1) - 0.3333) < 1e-3"]),
        (
            "def f(x): raise ValueError('no')",
            ["try:\n    f(1)\n    assert False\nexcept ValueError as e:\n    assert str(e) == 'no'"],
        ),
        ("def f(x): x.reverse()", ["a = [1, 2]\nf(a)\nassert a == [2, 1]"]),
        ("def f(g, x): return g(g(x))", ["assert f(lambda n: n * 2, 3) == 12"]),
        ("def f(x): return lambda y: x + y", ["assert f(1)(2) == 3"]),
        ("def f(x):\n    yield x\n    yield x", ["assert list(f(1)) == [1, 1]"]),
        ("from collections import *\ndef f(x): return Counter(x)", ["assert f('aab') == {'a': 2, 'b': 1}"]),
        ("from collections import *\ndef f(x): return namedtuple('P', 'x')(x)", ["assert f(1) == (1,)"]),
        (
            "def f(*x, k=0): return (x, {k}, b'', 1j, None, 10 ** 5000)",
            ["assert f(1, k=2) == ((1,), {2}, b'', 1j, None, 10 ** 5000)"],
        ),
        (
            "LIMIT = 7\ndef f(x, kind): return [y for y in x if not isinstance(y, kind)]",
            ["assert f([1, 'a'], str) == [1]", "assert LIMIT == 7"],
        ),
        ("def f(x): return x", ["def test_one():\n    assert f(1) == 1\ndef test_two():\n    assert f('é') == 'é'"]),
        (
            "class Node:\n    def __init__(self, v): self.v, self.next = v, None\n    def __len__(self): return 3\n"
            "    def __getitem__(self, k): return k\n    def __str__(self): return 'N'\n"
            "    def __bool__(self): return True\n"
            "def f(n):\n    return f(n.next) + n.v if n else 0",
            [
                "a = Node(1)\na.next = Node(2)\nassert f(a) == 3",
                "assert a.next.v == 2 and len(a) == 3 and a[5] == 5 and str(a) == 'N'",
            ],
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(p): return p.x",
            ["assert f(P(3)) == 3"],
        ),
        ("from __future__ import annotations\ndef f(x: X) -> Y: return 1", ["assert f(0)"]),
    ],
)
def test_asserts_of_many_kinds_pass(works: None, program: str, tests: list[str]) -> None:
    found = grade(program, asserts=tests)
    assert (found.verdict.correct, found.share, found.verdict.detail) == (True, 1.0, f"passes {len(tests)} tests")


@pytest.mark.parametrize(
    ("program", "tests", "share", "detail"),
    [
        ("def f(x): return 1", ["assert f(1) == 1", "assert f(2) == 2"], 0.5, "AssertionError"),
        (
            "def f(x): return 1",
            ["def check(g):\n    assert g(1) == 1\n    assert g(2) == 2, 'two'\n    assert True\ncheck(f)"],
            0.5,
            "two",
        ),
        (
            "def f(x): return 1 if x else 1 / 0",
            ["assert f(1) == 1\nf(0)\nassert f(2) == 1"],
            0.5,
            "ZeroDivisionError: division by zero",
        ),
        ("def f(x): return []", ["for y in f(1):\n    assert y == 1"], 0.0, "an assert was never reached"),
        ("def g(x): return 1", ["assert f(1) == 1"], 0.0, "NameError: name 'f' is not defined"),
        ("def f(x) return 1", ["assert f(1) == 1"], 0.0, "SyntaxError"),
        ("def f(x): return 1\nraise KeyError('late')", ["assert f(1) == 1"], 0.0, "KeyError"),
        ("def f(x): return input()", ["assert f(1) == ''"], 0.0, "EOFError"),
        ("def f(x): return object()", ["assert f(1) == 1"], 0.0, "not plain data"),
        ("def f(x): raise StopIteration", ["assert all(map(f, [1, 2]))"], 0.0, "RuntimeError: StopIteration"),
        ("def f(x): raise KeyError(chr(0xd800))", ["assert f(1) == 1"], 0.0, "KeyError"),
        (
            "def f(x): return range(1000)",
            ["for y in f(1):\n    assert y < 900\nassert f(1) == 2"],
            0.0,
            "AssertionError",
        ),
        ("def f(x): return __import__('itertools').count()", ["assert 7 not in f(1)"], 0.0, "AssertionError"),
        (
            "def f(x): return 1",
            ["assert f(1) == 1, f(1)", "assert f(open) == 1", "assert f(object()) == 1", "assert f(2) == 2"],
            2 / 4,
            "AssertionError",
        ),
    ],
)
def test_asserts_that_fail_leave_their_share(
    works: None, program: str, tests: list[str], share: float, detail: str
) -> None:
    found = grade(program, asserts=tests)
    assert found.verdict.correct is False
    assert found.share == pytest.approx(share)
    assert detail in found.verdict.detail


@pytest.mark.parametrize(
    "tests",
    [
        {"asserts": ["assert f(1) == 1"], "setup": "raise ValueError('broken')"},
        {"asserts": ["assert f(1) == 1"], "setup": "import nothing_of_this_name"},
    ],
)
def test_tests_that_fail_by_themselves_are_nobodys_fault(works: None, tests: dict[str, Any]) -> None:
    verdict = grade("def f(x): return 1", **tests).verdict
    assert verdict.correct is None
    assert verdict.detail.startswith("unusable tests: the setup fails")


def test_a_stub_can_be_completed_or_written_anew_and_its_helpers_count(works: None) -> None:
    prompt = "import math\n\ndef half(x):\n    return x / 2\n\ndef f(x: float) -> float:\n    '''Root of the half.'''\n"
    tests = {"prompt": prompt, "entry_point": "f", "asserts": ["assert f(8) == math.sqrt(half(8))"]}
    for program in ("    return math.sqrt(half(x))", "def f(x):\n    return math.sqrt(half(x))"):
        assert grade(program, **tests).verdict.correct is True
    # the tests' helper is the prompt's, whatever the program makes of it
    assert grade("def half(x): return 0\ndef f(x): return 0", **tests).verdict.correct is False


def test_equal_pairs_are_run_once_and_order_is_kept(works: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    real = code_verifier.grade_code
    monkeypatch.setattr(code_verifier, "grade_code", lambda *a, **k: ran.append(a[0]) or real(*a, **k))
    right, wrong = answer("def plus(a, b): return a + b"), answer("def plus(a, b): return a - b")
    verdicts = verify_all("code", [right, wrong, right, ""], [json.dumps(PLUS)] * 4)
    assert [verdict.correct for verdict in verdicts] == [True, False, True, False]
    assert len(ran) == 3
    assert grade_code_batch([], []) == []


def test_the_reward_is_the_share_or_all_or_nothing(works: None) -> None:
    tests = json.dumps({"entry_point": "f", "calls": [{"args": [n], "output": n} for n in range(4)]})
    completions = [answer(f"def f(n): return {body}") for body in ("n", "min(n, 2)", "n / 0")] + ["no program", ""]
    names = ["code", "code", None, "code", "math"]
    columns = {"answer": [tests] * 5, "verifier": names}
    assert get_code_reward()(completions, **columns) == [1.0, 0.75, 0.0, 0.0, None]
    assert get_code_reward(partial=False)(completions, **columns) == [1.0, 0.0, 0.0, 0.0, None]
    assert get_code_reward()(completions[:2], answer=[json.loads(tests)] * 2) == [1.0, 0.75]
    unusable = {"solution": ["{}"]}
    assert get_code_reward()([completions[0]], **unusable) == [None]
    assert get_code_reward(unknown=0.5)([completions[0]], **unusable) == [0.5]


# --- what is the sandbox's fault


def test_without_a_sandbox_nobody_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.sandbox.choose._opened", SandboxError("there is none"))
    verdict = verify_code(answer("def plus(a, b): return a + b"), json.dumps(PLUS))
    assert (verdict.correct, verdict.detail) == (None, "verifier failed: there is none")
    assert get_code_reward(unknown=0.5)([answer("x = 1")], answer=[json.dumps(PLUS)]) == [None]


@pytest.mark.parametrize(
    "tests", [PLUS, {"asserts": ["assert plus(1, 2) == 3"]}, {"stdin": [{"input": "", "output": ""}]}]
)
def test_a_sandbox_that_breaks_in_mid_run_is_never_wrong(
    works: None, monkeypatch: pytest.MonkeyPatch, tests: dict[str, Any]
) -> None:
    assert grade("def plus(a, b): return a + b", **tests).verdict.correct is True
    monkeypatch.setattr(process, "CHILD", Path(os.devnull))
    broken = grade("def plus(a, b): return a + b", **tests)
    assert (broken.verdict.correct, broken.share) == (None, None)
    assert broken.verdict.detail.startswith("verifier failed: the sandbox did not start")


class Slow:
    """A sandbox in which every run ends at its wall limit, after having waited for a processor."""

    kind = "slow"

    def __init__(self, waited_s: float) -> None:
        self.waited_s, self.walls = waited_s, list[float]()

    def run(self, *_: Any, limits: Limits, **__: Any) -> Execution:
        self.walls.append(limits.wall_s)
        return Execution(stdout="", stderr="", exit_status=None, limit="wall", wall_s=10.0, waited_s=self.waited_s)

    def converse(self, *_: Any, limits: Limits, **__: Any) -> tuple[Execution, Execution]:
        stopped = self.run(limits=limits)
        report = json.dumps({"units": [], "gone": "no reply in time", "detail": ""}) + "\n"
        return Execution(stdout="", stderr=report, exit_status=0, limit=None, wall_s=10.0), stopped


@pytest.mark.parametrize(
    "tests", [PLUS, {"asserts": ["assert plus(1, 2) == 3"]}, {"stdin": [{"input": "", "output": ""}]}]
)
def test_on_a_machine_that_is_busy_there_is_more_time_and_then_no_verdict(tests: dict[str, Any]) -> None:
    slow = Slow(waited_s=9.0)
    found = grade_code(answer("x = 1"), json.dumps(tests), sandbox=slow)  # type: ignore[arg-type]
    assert (found.verdict.correct, found.share) == (None, None)
    assert found.verdict.detail.startswith("verifier failed: the machine is too busy")
    assert slow.walls[-1] > 4 * slow.walls[0]
    idle = grade_code(answer("x = 1"), json.dumps(tests), sandbox=Slow(waited_s=1.0))  # type: ignore[arg-type]
    assert idle.verdict.correct is False


def test_limits_and_tolerance_are_settings_for_tests_that_say_nothing_of_them(works: None) -> None:
    near = answer("def f(): return 0.11")
    said, unsaid = ({"entry_point": "f", "calls": [{"output": 0.1}]} | more for more in ({"tolerance": 1e-3}, {}))
    columns = {"answer": [json.dumps(said), json.dumps(unsaid)]}
    assert REWARDS["code"](tolerance=0.1)([near] * 2, **columns) == [0.0, 1.0]
    assert code_reward([near] * 2, **columns) == [0.0, 0.0]
    for wrong in ({"tolerance": 2}, {"time": 1}):
        with pytest.raises(ValueError, match=r"tolerance|time_s"):
            get_code_reward(**wrong)


def test_a_checker_that_dies_before_it_asks_is_not_the_programs_fault(works: None) -> None:
    class Broken:
        kind = "broken"

        def converse(self, *_: Any, **__: Any) -> tuple[Execution, Execution]:
            dead = Execution(stdout="", stderr="", exit_status=-9, limit=None, wall_s=0.1)
            return dead, dead

    tests = json.dumps({"asserts": ["assert f(1) == 1"]})
    assert grade_code(answer("x = 1"), tests, sandbox=Broken()).verdict.correct is None  # type: ignore[arg-type]


# --- hostile programs


class Host:
    """What a program must not harm or read: a secret, a process of the same user, a listening socket."""

    def __init__(self, folder: Path) -> None:
        self.mark = f"h{os.getpid()}x{time.monotonic_ns() % 10**8}"[:15]
        self.secret = folder / "secret"
        folder.chmod(0o755)
        self.secret.write_text("expected-" + os.urandom(16).hex())
        self.secret.chmod(0o666)
        self.before = (self.secret.read_text(), self.secret.stat().st_mode)
        self.neighbour = subprocess.Popen(["sleep", "1000"], **process.dropped())
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.letters = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.letters.bind(str(folder / "letters"))
        (folder / "letters").chmod(0o777)
        for inbox in (self.listener, self.letters):
            inbox.setblocking(False)

    def program(self, name: str) -> str:
        """The hostile program of that name, told where everything is."""
        port = self.listener.getsockname()[1]
        return hostile_programs.program(
            name,
            MARK=self.mark,
            SECRET=str(self.secret),
            NEIGHBOUR=self.neighbour.pid,
            PORT=port,
            LETTERS=self.letters.getsockname(),
        )

    def unharmed(self) -> None:
        """Fails where anything was changed, reached or left."""
        assert (self.secret.read_text(), self.secret.stat().st_mode) == self.before
        assert self.neighbour.poll() is None
        with pytest.raises(BlockingIOError):
            self.listener.accept()
        with pytest.raises(BlockingIOError):
            self.letters.recv(1)
        assert not Path("/dev/shm/r1kit-hostile").exists()
        deadline = time.monotonic() + 20
        while self._left():
            assert time.monotonic() < deadline, "a process outlives its limit"
            time.sleep(0.02)

    def _left(self) -> list[str]:
        found = []
        for comm in Path("/proc").glob("[0-9]*/comm"):
            try:
                found += [str(comm)] if comm.read_text().strip() == self.mark else []
            except OSError:  # it ended in the meantime
                continue
        return found


@pytest.fixture
def host() -> Iterator[Host]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # everyone can reach it, as a sandbox without walls would
        made = Host(Path(folder))
        yield made
        made.neighbour.kill()
        made.neighbour.wait()
        made.listener.close()
        made.letters.close()


@pytest.mark.parametrize(("who", "kind"), [(who, kind) for who in ("root", "user") for kind in choose.KINDS])
@pytest.mark.parametrize("name", hostile_programs.HOSTILE)
def test_hostile_programs_never_pass_never_outlive_their_limit_and_harm_nothing(
    ask: Ask, host: Host, name: str, who: str, kind: str
) -> None:
    expected = host.before[0]
    reference = {
        "stdin": [{"input": expected[:3], "output": expected}],
        "entry_point": "f",
        "calls": [{"args": [1], "output": expected}],
        "asserts": [f"assert f(1) == {expected!r}"],
        "time_s": 0.5,
        "total_s": 1.0,
        "memory_mb": 128,
    }
    start = time.monotonic()
    found = ask(who, do="grade", kind=kind, response=answer(host.program(name)), reference=json.dumps(reference))
    undecided = found["correct"] is None and "too busy to tell" in found["detail"]
    assert undecided or (found["correct"], found["share"]) == (False, 0), found
    found["detail"].encode()
    assert time.monotonic() - start < 250
    host.unharmed()


@pytest.mark.parametrize("kind", ["bubblewrap", "landlock"])
def test_the_next_program_still_works_after_a_hostile_one(ask: Ask, kind: str) -> None:
    for program in ("os._exit(0)", "os.closerange(0, 256)", "os.fork()"):
        ask("user", do="grade", kind=kind, response=answer(f"import os\n{program}"), reference=json.dumps(PLUS))
    right = answer("def plus(a, b): return a + b")
    assert ask("user", do="grade", kind=kind, response=right, reference=json.dumps(PLUS))["correct"] is True


@pytest.mark.parametrize(
    ("program", "asserts"),
    [
        # values that would pass if their own comparison, arithmetic or methods had a say
        ("class E(str):\n    __eq__ = lambda *_: True\ndef f(x): return E('a')", ["assert f(1) == 'b'"]),
        ("class E:\n    __eq__ = lambda *_: True\ndef f(x): return E()", ["assert f(1) == 'b'"]),
        ("class E:\n    __eq__ = lambda *_: True\ndef f(x): return [E()]", ["assert f(1) == ['b']"]),
        (
            "class E:\n    __sub__ = lambda *_: 0.0\n    __abs__ = lambda s: 0\ndef f(x): return E()",
            ["assert abs(f(1) - 2.5) < 1e-6"],
        ),
        ("class E:\n    def startswith(*_): return True\ndef f(x): return E()", ["assert f(1).startswith('b')"]),
        ("class E:\n    __contains__ = lambda *_: True\ndef f(x): return E()", ["assert 'b' in f(1)"]),
        # helpers and builtins of the tests that a program defines too
        ("def abs(x): return 0\ndef f(x): return 1", ["assert abs(f(1) - 2.5) < 1e-6"]),
        ("def isclose(*_): return True\ndef f(x): return 1", ["from math import isclose\nassert isclose(f(1), 2.5)"]),
        ("import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 1", ["assert abs(f(1) - 2.5) < 1e-6"]),
        ("def f(x):\n    x.append(1)\n    return x", ["a = [1]\nassert f(a) == [1]"]),
        ("def f(x): return (lambda: x(5).__globals__)", ["answer = 3\nassert f(lambda n: n)() == answer"]),
    ],
)
def test_no_value_is_asked_whether_it_is_right(works: None, program: str, asserts: list[str]) -> None:
    assert grade(program, asserts=asserts, names=["f"]).verdict.correct is False


def test_colliding_keys_and_long_values_do_not_stop_the_verifier(works: None) -> None:
    keys = "{(2 ** 61 - 1) * n: n for n in range(3000)}"
    start = time.monotonic()
    for tests in ({"calls": [{"args": [], "output": {"a": 1}}]}, {"asserts": ["assert f() == {'a': 1}"]}):
        for value in (keys, "'x' * 10 ** 8", "[[]] * 10 ** 6", "10 ** 10 ** 6", "[10 ** 5000]"):
            found = grade(f"def f(): return {value}", entry_point="f", time_s=1, total_s=3, **tests)
            assert found.verdict.correct is False
    assert time.monotonic() - start < 200


# --- the public sets


def data_of(name: str, split: str, shared_data: Path) -> Sequence[Problem]:
    return load_known(name, split, data=shared_data).problems


def solved(problem: Problem) -> str:
    return answer(problem.solution)


# what cannot be turned into a plain comparison: random inputs, helpers of the prompt, tolerances, classes, built-in
# names, types as arguments, modules that only the solution imports
ODD = {
    ("humaneval", "test"): (2, 4, 32, 33, 38, 44, 50, 53, 87, 151, 162),
    ("mbpp", "train"): (600, 700, 800, 911, 926),
    ("mbpp", "test"): (125, 366, 485, 10, 200),
    ("mbpp", "validation"): (532, 595),
}


@pytest.mark.parametrize(("name", "split"), ODD)
def test_reference_solutions_pass_and_empty_ones_fail(works: None, shared_data: Path, name: str, split: str) -> None:
    every = {int(one.id.rpartition("/")[2]): one for one in data_of(name, split, shared_data)}
    problems = [every[number] for number in ODD[name, split]] + list(every.values())[:: len(every) // 8]
    references = [one.answer for one in problems]
    right = verify_all("code", [solved(one) for one in problems], references)
    assert [(one.id, verdict.detail) for one, verdict in zip(problems, right, strict=True) if not verdict.correct] == []
    for empty in ("", answer("pass")):
        assert {verdict.correct for verdict in verify_all("code", [empty] * len(problems), references)} == {False}


def test_the_official_samples_of_humaneval_have_their_outcomes(works: None, shared_data: Path) -> None:
    """Of six completions of `return1`, the last three are right, whatever their indentation."""
    tests = {
        "prompt": "def return1():\n",
        "entry_point": "return1",
        "time_s": 1,
        "asserts": ["def check(candidate):\n    assert candidate() == 1\ncheck(return1)"],
    }
    samples = [
        "    import subprocess\n    subprocess.check_output('rm -rf tmp')",
        "    import time\n    time.sleep(10)\n    return 1",
        "    return input('enter a number')",
        "    return 1",
        "  return 1",
        "\treturn 1",
    ]
    responses = [f"<answer>\n{sample}\n</answer>" for sample in samples]
    verdicts = verify_all("code", responses, [json.dumps(tests)] * 6)
    assert [verdict.correct for verdict in verdicts] == [False, False, False, True, True, True]


def test_the_splits_of_mbpp_are_the_official_ones_and_only_train_is_for_training(shared_data: Path) -> None:
    sizes = {split: len(data_of("mbpp", split, shared_data)) for split in ("train", "validation", "test")}
    assert sizes == {"train": 374, "validation": 90, "test": 500}
    assert data_of("mbpp", "train", shared_data)[0].columns["task_id"] == 601
    assert load_tasks([TaskSpec(name="mbpp", data=shared_data, limit=3)], training=True)[0].verifier == "code"
    for spec in (TaskSpec(name="humaneval", data=shared_data), TaskSpec(name=str(shared_data / "mbpp/mbpp.jsonl.gz"))):
        with pytest.raises(ValueError, match="evaluation only"):
            load_tasks([spec], training=True)


def test_a_file_of_either_set_is_recognised(shared_data: Path) -> None:
    stub = load_task(TaskSpec(name=str(shared_data / "humaneval/HumanEval.jsonl.gz")))[0]
    task = load_task(TaskSpec(name=str(shared_data / "mbpp/mbpp.jsonl.gz")))[0]
    assert (stub.verifier, task.verifier) == ("code", "code")
    assert "def has_close_elements" in stub.prompt
    assert "assert min_cost" in task.prompt
    assert task.prompt.count("assert") == 1  # the other tests stay unseen


def test_the_verifier_is_known_by_name() -> None:
    assert VERIFIERS["code"] is verify_code


def test_objects_of_the_program_never_count_as_equal_and_nobody_can_tell(works: None) -> None:
    tests = {"asserts": ["assert V(1, 2).add(V(3, 4)) == V(4, 6)"]}
    one_for_all = """
class V:
    one = None
    def __new__(cls, *parts):
        cls.one = cls.one or object.__new__(cls)
        return cls.one
    def add(self, other):
        return self
"""
    right = """
class V:
    def __init__(self, x, y): self.x, self.y = x, y
    def add(self, other): return V(self.x + other.x, self.y + other.y)
    def __eq__(self, other): return (self.x, self.y) == (other.x, other.y)
"""
    for program in (one_for_all, right):
        found = grade(program, **tests)
        assert (found.verdict.correct, found.share) == (None, None)
        assert found.verdict.detail.startswith("unusable tests: the tests compare objects of the program")
    more = tests["asserts"] + ["assert V(1, 2).add(V(3, 4)).x == 4"]
    assert grade(right, asserts=more).verdict.correct is None
    assert grade(one_for_all, asserts=more).verdict.correct is False  # what can be told is told
    plain = "class V:\n    def __init__(self, *_): pass\n    def f(self): return self"
    assert grade(plain, asserts=["assert V().f() == 3"]).verdict.correct is False


def test_what_the_tests_cannot_hand_over_is_not_the_programs_fault(works: None) -> None:
    setup = "class Node:\n    def __init__(self, value): self.value = value"
    found = grade("def f(node): return node.value", setup=setup, asserts=["assert f(Node(3)) == 3"])
    assert found.verdict.correct is None and "cannot pass a Node" in found.verdict.detail


def test_a_crash_after_the_right_output_is_a_crash(works: None) -> None:
    tests = [{"input": "", "output": "3"}]
    for end, told in (
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "status 3"),
        ("import os; os._exit(1)", "status 1"),
        ("import os; os.kill(os.getpid(), 9)", "status"),
    ):
        found = grade(f"print(3, flush=True)\n{end}", stdin=tests)
        assert found.verdict.correct is False and told in found.verdict.detail, end
    assert grade("print(3)\nraise SystemExit", stdin=tests).verdict.correct is True


def test_white_space_before_the_first_word_counts_unless_a_setting_says_no(works: None) -> None:
    tests = [{"input": "", "output": "  *\n ***"}]
    assert grade("print('  *'); print(' ***')", stdin=tests).verdict.correct is True
    assert grade("print('*'); print('***')", stdin=tests).verdict.correct is False
    assert grade("print('*'); print('***')", stdin=tests, indent=False).verdict.correct is True
    assert REWARDS["code"](indent=False)(
        [answer("print(3)")], answer=[json.dumps({"stdin": [{"input": "", "output": "\n 3"}]})]
    ) == [1.0]


@pytest.mark.parametrize("memory", [1e17, 10**30, -1])
def test_limits_that_no_system_can_set_are_unusable(memory: float) -> None:
    verdict = verify_code(answer("print(1)"), json.dumps({"asserts": ["assert f() == 1"], "memory_mb": memory}))
    assert verdict.correct is None and "memory_mb" in verdict.detail
    with pytest.raises(ValueError, match="memory_mb"):
        REWARDS["code"](memory_mb=memory)


def test_fences_that_never_end_take_no_time() -> None:
    before = time.process_time()
    assert extract_program("```" + " " * 400_000 + "`") is None
    for odd in ("```python\n'''\n```\n", "```\n", "```python\nx = '''\n```\n"):
        extract_program(odd * 10_000)
    assert time.process_time() - before < 2


@pytest.mark.parametrize("value", ["5", "None", "dict", "[1]", "'text'", "iter([1])", "range(3)"])
@pytest.mark.parametrize("setup", ["expected = f(3)", "def helper():\n    return f(3).x\nexpected = helper()"])
def test_a_program_that_rebinds_the_tested_name_to_data_is_wrong(works: None, value: str, setup: str) -> None:
    program = f"def f(x): return x\nf = {value}"
    verdict = grade(program, setup=setup, asserts=["assert f(3) == expected"], names=["f"]).verdict
    assert verdict.correct is False, verdict.detail


@pytest.mark.parametrize("bound", ["LIMIT = lambda: 2", ""])
@pytest.mark.parametrize("setup", ["expected = LIMIT + 1", "expected = 3\nif LIMIT > 5: pass", "expected = LIMIT[0]"])
def test_a_program_without_the_data_that_the_setup_computes_with_is_wrong(works: None, bound: str, setup: str) -> None:
    tests = {"setup": setup, "asserts": ["assert f(3) == expected"], "names": ["f", "LIMIT"]}
    verdict = grade(f"def f(x): return x\n{bound}", **tests).verdict
    assert verdict.correct is False, verdict.detail


def test_a_setup_that_fails_with_what_no_program_gives_is_unusable(works: None) -> None:
    for setup, names in (("f.cache_clear()", ["f"]), ("if f is None: pass\nimport nothing_of_this_name", ["f"])):
        verdict = grade("def f(x): return x", setup=setup, asserts=["assert f(3) == 3"], names=names).verdict
        assert verdict.outcome == "unknown", setup


def test_a_setup_that_fails_before_it_comes_to_the_program_is_unusable_whatever_the_program_binds(works: None) -> None:
    tests = {"setup": "import nothing_of_this_name\nexpected = LIMIT + 1", "asserts": ["assert f(3) == expected"]}
    for program in ("LIMIT = 2\ndef f(x): return x", "LIMIT = f = 2"):
        verdict = grade(program, names=["f", "LIMIT"], **tests).verdict
        assert verdict.outcome == "unknown" and "nothing_of_this_name" in verdict.detail
