"""Verifiers: no text breaks them, hard input ends in time, and a broken worker is an alarm and never a zero.

What is right and what is wrong stands in the labelled cases of `r1kit.conformance`, run by test_conformance.py.
"""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from r1kit import verifiers
from r1kit.verifiers import (
    VERIFIERS,
    choice,
    countdown,
    exact,
    extract,
    number,
    number_verifier,
    number_words,
    prose,
    spelling,
    units,
    verify_all,
    workers,
)
from r1kit.verifiers.math import comparison, formulas, names, parser, readings, shapes, worker
from r1kit.verifiers.math import equivalence as mathematics

SECONDS_FOR_A_VERDICT = 5.0
HARD = {
    "a tower of powers": "9^{9^{9^9}}",
    "a factorial": "100000000!",
    "nested fractions": "\\frac{" * 80,
    "nested roots": "\\sqrt{" * 70 + "2" + "}" * 70,
    "a megabyte of brackets": "[" * 1_000_000,
    "a megabyte of pairs": "(" * 500_000 + ")" * 500_000,
    "a null byte": "\0",
    "null bytes": "1\0" * 200,
    "half a surrogate pair": "\ud800",
    "nested boxes": "\\boxed{" * 60,
    "a chain of powers": "x^" * 200 + "x",
    "many digits": "9" * 500,
    "a huge exponent": "1.5\\times10^{999999999}",
    "dollars": "$" * 500,
}
# Short, harmless to look at, and nothing but the limit on processor time ends them.
ENDLESS = ["\\sum_{k=1}^{10^{12}} k^k", "9^{9^9}", "\\sin(10^{10^{10}})", "\\binom{10^9}{5\\cdot 10^8}"]
WRITTEN = r"""
    \frac \sqrt \text{ \left( \begin{pmatrix} \end{pmatrix} \\ & \cup \pm \le \infty \circ \in \approx \boxed{ \$ \, \
    { } ( ) [ ] ^ _ = < , ; : $ % . / - + ! ** ' " # or and one hundred half a cm per square not is the answer: A (B)
    x i e 1 23 0 1, 1' 1/ x= x_ $a \sqrt( ½ 七 百 yes <answer> </think>
"""
PIECES = [
    *WRITTEN.split(),
    *(
        "\0",
        " ",
        "\n",
        "1 ",
        " and ",
        "and a ",
        "one ",
        "is the ",
        "per ",
        "(A) ",
        ", and ",
        "eggs ",
        "a day ",
        "kids' ",
        "in ",
        "no-one ",
        "a.m. ",
        "m/s ",
        "ft^2 ",
    ),
]
TEXTS = st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


# Parsers


def spread(text: str) -> None:
    """Everything that one short text can go through on its way to a verdict without a worker."""
    shape = shapes.parse_shape(spelling.plain(text))
    assert isinstance(shape, shapes.Shape)
    names.names(text)
    with suppress(parser.Unreadable):
        parser.parse(text)
    mathematics.quick(text, "\\sqrt{2}")
    mathematics.quick("7", text)


PARSERS: dict[str, Callable[[str], Any]] = {
    "answers.extract": extract.extract,
    "answers.extract, last number": lambda text: extract.extract(text, last_number=True),
    "answers.boxed": extract.boxed,
    "answers.reference": extract.reference,
    "spelling.plain": spelling.plain,
    "spelling.undressed": spelling.undressed,
    "spelling.unwrapped": spelling.unwrapped,
    "words.digits": number_words.digits,
    "number.parse_number": number.parse_number,
    "number.parse_in_prose": number.parse_in_prose,
    "number.compound": number.compound,
    "number of an equation": number_verifier.equation_value,
    "number.of_reference": number.of_reference,
    "prose.before": prose.before,
    "prose.after": prose.after,
    "units.following": units.following,
    "units.split_unit": units.split_unit,
    "units.split_unit, letters": lambda text: units.split_unit(text, letters=True),
    "units.named": units.named,
    "readings.wording": readings.wording,
    "readings.base": readings.base,
    "readings.letter": readings.letter,
    "formulas.formulas": formulas.formulas,
    "choice.choice": choice.choice,
    "exact.normalise": exact.normalise,
    "math without a worker": spread,
}


@pytest.mark.parametrize("name", PARSERS)
@given(text=TEXTS)
@example("")
@example("\0")
@example("\ud800")
@example("1" * 512)
@example("٣½²①Ⅷ五\u202e\u200b")
def test_no_text_breaks_a_parser(name: str, text: str) -> None:
    PARSERS[name](text)


@pytest.mark.parametrize(
    "deep", ["sin " * 490 + "x", "\\ln" * 490 + "x", "abc " * 166, "x" + "%" * 490, "|" * 490, "+x" * 240]
)
def test_a_long_chain_is_an_outcome_and_no_fault_of_the_worker(deep: str) -> None:
    mathematics.quick("7", deep)
    for reference, prediction in ((deep, "7"), ("x+1", deep)):
        replies = list(worker._answer({"reference": reference, "prediction": prediction}))
        assert replies and not any("broken" in reply for reply in replies), replies


def test_a_sum_of_absolute_values_keeps_its_bounds() -> None:
    reference = "|x-1|+|x-2|<5"
    answers = {"-1<x<4": True, "(-1,4)": True, "|x-2|+|x-1|<5": True, "|x-1|+|x-2|\\le 5": False, "-1<x\\le 4": False}
    verdicts = verify_all("math", [f"\\boxed{{{answer}}}" for answer in answers], [reference] * len(answers))
    assert [verdict.correct for verdict in verdicts] == list(answers.values())


def test_a_long_name_of_a_command_is_no_product_of_letters() -> None:
    verdicts = verify_all("math", ["\\boxed{n=\\varepsilon+1}", "\\boxed{n=\\varepsilon n}"], ["\\varepsilon+1"] * 2)
    assert [verdict.correct for verdict in verdicts] == [True, False]


@pytest.mark.parametrize("name", PARSERS)
def test_no_repetition_hangs_a_parser(name: str) -> None:
    start = time.process_time()
    for piece in PIECES:  # what expressions that backtrack would take quadratic or exponential time on
        for ending in ("", "!", "x", "}"):
            PARSERS[name]((piece * extract.MAX_ANSWER_CHARS)[: extract.MAX_ANSWER_CHARS] + ending)
    assert time.process_time() - start < SECONDS_FOR_A_VERDICT * 4, "some hundred texts, none of them slow"


@given(TEXTS)
def test_plain_spelling_settles_at_once(text: str) -> None:
    once = spelling.plain(text)
    assert spelling.plain(once) == once


@given(st.text(max_size=60) | st.text(alphabet="0123456789+-*/()= .", max_size=60))
def test_a_countdown_expression_has_a_value_or_is_refused_with_a_reason(text: str) -> None:
    try:
        value, used = countdown.evaluate_expression(text)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(value, Fraction) and used


@pytest.mark.parametrize("name", sorted(set(VERIFIERS) - {"math", "code"}))
@given(response=TEXTS, reference=TEXTS)
def test_no_text_breaks_a_verifier(name: str, response: str, reference: str) -> None:
    for wrapped in (response, f"<answer>{response}</answer>", f"\\boxed{{{response}}}"):
        assert VERIFIERS[name](wrapped, reference).correct in (True, False, None)


@settings(max_examples=30)
@given(response=TEXTS, reference=st.sampled_from(["\\sqrt{2}", "x+1", "(1,2)", "x^2+y^2=1", "7"]))
def test_no_text_breaks_math_and_none_makes_a_good_reference_useless(response: str, reference: str) -> None:
    verdict = verify_all("math", [f"<answer>{response}</answer>"], [reference])[0]
    assert verdict.correct in (True, False), verdict


@settings(max_examples=30)
@given(reference=TEXTS)
def test_a_reference_that_is_its_own_answer_is_right_or_cannot_tell(reference: str) -> None:
    verdict = mathematics.judge_answer(reference.strip(), reference.strip())
    assert verdict.correct is (True if reference.strip() else None)


@given(st.fractions(min_value=-(10**12), max_value=10**12, max_denominator=10**6))
def test_every_fraction_is_read_back(value: Fraction) -> None:
    for written in (f"{value.numerator}/{value.denominator}", f"\\frac{{{value.numerator}}}{{{value.denominator}}}"):
        found = number.parse_number(written)
        assert found is not None and found.value == value


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_every_integer_is_read_back_with_separators(value: int) -> None:
    for written in (f"{value:,}", f"${value:,}", f"{value}.00", f" {value}. "):
        found = number.parse_number(written)
        assert found is not None and found.value == value


# What holds for each verifier beyond the cases


def test_the_batch_and_the_single_call_agree() -> None:
    pairs = [("\\sqrt{8}", "2\\sqrt{2}"), ("x+2", "x+1"), ("72", "72"), ("7", "\\frac{"), ("x = 1, 2", "\\{1, 2\\}")]
    responses, references = [f"<answer>{one}</answer>" for one, _ in pairs], [one for _, one in pairs]
    together = verify_all("math", responses, references)  # what was answered once is known to both
    assert together == [VERIFIERS["math"](*pair) for pair in zip(responses, references, strict=True)]
    assert [one.correct for one in together] == [True, False, True, None, True]


def test_an_answer_longer_than_the_bound_is_wrong_without_being_parsed() -> None:
    for reference in ("1", "\\sqrt{2}", "\\text{Evelyn}"):
        verdict = VERIFIERS["math"](f"<answer>{'1+' * 400}1</answer>", reference)
        assert verdict.correct is False and "longer" in verdict.detail
        assert len(verdict.extracted or "") <= extract.MAX_ANSWER_CHARS


def test_an_unusable_reference_cannot_tell_whatever_was_answered() -> None:
    unusable = {
        "math": "\\frac{",
        "number": "many",
        "last-number": "many",
        "exact": " ",
        "choice": "Paris or Rome",
        "countdown": "41",
    }
    for name, reference in unusable.items():
        responses = ["", "<answer>7</answer>", "\\boxed{B}"]
        assert [one.correct for one in verify_all(name, responses, [reference] * 3)] == [None] * 3, name


@pytest.mark.parametrize("name", VERIFIERS)
@pytest.mark.parametrize(
    "reference", [None, float("nan"), float("inf"), "", " ", "nan", [], ["5"], {}, {"a": 5}, True, b"5"]
)
def test_what_is_no_reference_cannot_tell_from_any_verifier(name: str, reference: Any) -> None:
    for response in ("", "<answer>5</answer>", "<answer>nan</answer>", "\\boxed{True}"):
        assert verifiers.find(name)(response, reference).correct is None
        assert verify_all(name, [response], [reference])[0].correct is None


def test_a_number_is_a_reference_and_what_is_no_text_is_no_answer() -> None:
    mixed: list[Any] = [5, None, 5.0, "5"]
    given: list[Any] = ["<answer>5</answer>", "<answer>5</answer>", "<answer>6</answer>", None]
    for name in ("math", "number"):
        assert [one.correct for one in verify_all(name, given, mixed)] == [True, None, False, False]


def test_an_unknown_verifier_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean countdown"):
        verify_all("countdwn", [], [])


def test_responses_and_references_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 responses but 1 references"):
        verify_all("math", ["a", "b"], ["a"])


# Hard input


def _ask(answer: str, reference: str) -> Any:
    return verify_all("math", [f"\\boxed{{{answer}}}"], [reference])[0]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers of their own, with little processor time, so that endless questions end soon."""
    monkeypatch.setattr(mathematics, "SECONDS", 0.5)
    monkeypatch.setattr(workers, "_pools", {})
    mathematics._ask_worker.cache_clear()
    yield
    for pool in workers._pools.values():
        pool.close()
    mathematics._ask_worker.cache_clear()


@pytest.mark.parametrize("name", HARD)
def test_a_hard_answer_is_wrong_within_seconds_and_a_hard_reference_cannot_tell(name: str) -> None:
    for reference in ("\\sqrt{7}", "12"):
        verify_all("math", [""], [reference])  # the reference is known to be good, the worker is up
        for response in (f"<answer>{HARD[name]}</answer>", f"\\boxed{{{HARD[name]}}}"):
            start = time.process_time()  # what workers take is limited by themselves
            assert verify_all("math", [response], [reference])[0].correct is False
            assert time.process_time() - start < SECONDS_FOR_A_VERDICT
    assert VERIFIERS["math"]("<answer>x+1</answer>", HARD[name]).correct is not True
    assert _ask("2\\sqrt{2}", "\\sqrt{8}").correct is True


@pytest.mark.parametrize("verifier", sorted(set(VERIFIERS) - {"math", "code"}))
def test_hard_input_is_no_more_to_the_other_verifiers(verifier: str) -> None:
    start = time.process_time()
    for text in HARD.values():
        assert VERIFIERS[verifier](f"<answer>{text}</answer>", "12").correct is not True
        assert VERIFIERS[verifier]("<answer>12</answer>", text).correct is not True
    assert time.process_time() - start < SECONDS_FOR_A_VERDICT


@pytest.mark.usefixtures("impatient")
def test_endless_answers_are_wrong_and_endless_references_cannot_tell() -> None:
    judged = verify_all("math", [f"\\boxed{{{one}}}" for one in ENDLESS], ["\\sqrt{7}"] * len(ENDLESS))
    assert [one.correct for one in judged] == [False] * len(ENDLESS)
    assert [one.correct for one in verify_all("math", ["\\boxed{x+1}"] * 2, ENDLESS[:2])] == [None] * 2
    assert verify_all("math", ["\\boxed{2\\sqrt{2}}"], ["\\sqrt{8}"])[0].correct is True


@pytest.mark.usefixtures("impatient")
def test_math_works_from_a_thread() -> None:
    found: list[bool | None] = []

    def ask() -> None:
        for answer, reference in (("9^{9^{9^9}}", "\\sqrt{7}"), (ENDLESS[0], "\\sqrt{7}"), ("2\\sqrt{2}", "\\sqrt{8}")):
            found.extend(one.correct for one in verify_all("math", [f"\\boxed{{{answer}}}"], [reference]))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(100)
    assert found == [False, False, True]


def test_math_works_in_a_spawned_daemonic_process_as_workers_of_ray_are() -> None:
    hard = ["9^{9^{9^9}}", ENDLESS[0], "2\\sqrt{2}"]
    with multiprocessing.get_context("spawn").Pool(1) as child:
        pairs = [f"\\boxed{{{one}}}" for one in hard], ["\\sqrt{8}"] * len(hard)
        judged = child.apply_async(verify_all, ("math", *pairs)).get(timeout=100)
    assert [one.correct for one in judged] == [False, False, True]


def test_math_works_in_a_script_without_a_main_guard_and_in_its_forks() -> None:
    script = """
import multiprocessing
from r1kit.verifiers import verify_all
ask = lambda answer, reference: verify_all("math", [answer], [reference])[0].correct
print(ask(r"\\boxed{2\\sqrt{2}}", r"\\sqrt{8}"))
def child(): print(ask(r"\\boxed{3\\sqrt{2}}", r"\\sqrt{18}"), flush=True)
process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
process.start(); process.join()
print(ask(r"\\boxed{4\\sqrt{2}}", r"\\sqrt{8}"))
"""
    paths = os.pathsep.join([str(Path(verifiers.__file__).parents[2]), *sys.path])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.split() == ["True", "True", "False"], done.stderr


def _memory() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _children() -> set[str]:
    children = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            children.update((task / "children").read_text().split())
    return children


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory and processes are read from /proc")
def test_five_thousand_hard_answers_in_a_row_leak_neither_memory_nor_processes() -> None:
    hard = ["9^{{9^{{9^{}}}}}", "1{:08}!", "\\frac{{" * 40 + "{}", "\0{}", "5 or {}"]
    asked = [hard[index % 5].format(index) for index in range(5_000)]
    asked[::100] = ["[" * 100_000] * 50
    asked[50::100] = [f"({index}+x)^2" for index in range(50)]  # these do reach a worker
    before, memory = _children(), 0
    for index, answer in enumerate(asked):
        assert verify_all("math", [f"<answer>{answer}</answer>"], ["x^2+1"])[0].correct is False
        if index == 1000:  # caches have found their size, more or less
            memory = _memory()
    assert _memory() - memory < 16 << 20
    assert len(_children() - before) <= workers.pool(mathematics._WORKER, seconds=1).size


# Workers


def _processes() -> list[subprocess.Popen[bytes]]:
    pool = workers.pool(mathematics._WORKER, seconds=mathematics.SECONDS)
    return [worker._process for worker in pool._free.queue if worker is not None]


@pytest.mark.usefixtures("impatient")
def test_a_killed_worker_is_replaced_without_a_wrong_verdict() -> None:
    assert _ask("2\\sqrt{2}", "\\sqrt{8}").correct is True
    for process in _processes():
        process.kill()
        process.wait()
    assert _ask("3\\sqrt{2}", "\\sqrt{18}").correct is True


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_is_killed_in_the_middle_of_a_question_is_asked_again() -> None:
    _ask("2\\sqrt{2}", "\\sqrt{8}")
    (process,) = _processes()
    process.send_signal(signal.SIGSTOP)  # it stops, and takes the question without an answer
    killer = threading.Timer(0.3, process.kill)
    killer.start()
    assert _ask("3\\sqrt{2}", "\\sqrt{18}").correct is True
    killer.join()


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_stands_still_is_cannot_tell_and_the_next_verdict_works(monkeypatch: pytest.MonkeyPatch) -> None:
    _ask("2\\sqrt{2}", "\\sqrt{8}")
    (process,) = _processes()
    process.send_signal(signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(mathematics, "PATIENT_SECONDS", 0.3)
        verdict = _ask("3\\sqrt{2}", "\\sqrt{18}")
    assert verdict.correct is None and verdict.detail.startswith("verifier failed") and "overloaded" in verdict.detail
    assert _ask("3\\sqrt{2}", "\\sqrt{18}").correct is True


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("before", "used", "error"),
    [
        (0.0, 0.01, workers.Overloaded),
        (0.0, 0.4, workers.OutOfTime),
        (0.0, None, workers.Overloaded),
        (None, 0.4, workers.Overloaded),  # the system does not tell
    ],
)
def test_an_answer_that_the_wall_clock_ends_is_wrong_only_if_it_computed_much(
    before: float | None, used: float | None, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import json; input = open(0).readline; say = lambda **reply: print(json.dumps(reply), flush=True)\n"
    (tmp_path / "slow_worker.py").write_text(program + "say(ready=1); input(); say(reference='ok'); input()")
    monkeypatch.syspath_prepend(str(tmp_path))
    with monkeypatch.context() as patch:
        clock = iter([before, used] * 9)
        patch.setattr(workers.Worker, "_processor_seconds", lambda worker: next(clock))
        question = {"reference": "x", "prediction": "y"}
        pool = workers.pool("slow_worker", seconds=mathematics.SECONDS)
        with pytest.raises(error):
            pool.ask(question, 2, 3.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit(3)", "did not start"),
        ("print('{\"ready\": true}', flush=True); input(); print('rubbish', flush=True); input()", "an invalid reply"),
        ("print('{\"ready\": true}', flush=True); input(); import os; os._exit(0)", "died"),
        ('print(\'{"ready": true}\', flush=True); input(); print(\'{"broken": "it"}\', flush=True)', "broken"),
        ('print(\'{"broken": "no good"}\', flush=True)', "did not start: no good"),
    ],
)
def test_a_worker_that_breaks_is_cannot_tell_and_never_wrong(
    program: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_worker.py").write_text(program)
    monkeypatch.syspath_prepend(str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(mathematics, "_WORKER", "broken_worker")
        verdict = _ask("2\\sqrt{2}", "\\sqrt{8}")
        assert verdict.correct is None and verdict.detail.startswith("verifier failed") and reason in verdict.detail
    assert _ask("2\\sqrt{2}", "\\sqrt{8}").correct is True, "a failure is not remembered"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("executable", ["", None, "/nowhere/python"])
def test_a_worker_that_cannot_be_launched_is_a_failure(executable: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    workers.pool(mathematics._WORKER, seconds=mathematics.SECONDS).close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", executable)
        verdict = _ask("2\\sqrt{2}", "\\sqrt{8}")
    assert (
        verdict.correct is None and verdict.detail.startswith("verifier failed") and "did not start" in verdict.detail
    )


@pytest.mark.parametrize("error", ["ImportError", "RuntimeError"])
def test_a_library_that_breaks_after_the_start_is_a_failure_and_no_bad_reference(
    error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise {"ImportError": ImportError, "RuntimeError": RuntimeError}[error]("no grammar")

    question = {"reference": "\\sqrt{8}", "prediction": "2"}
    assert next(worker._answer({**question, "reference": "\\frac{"})) != {"reference": "ok"}
    monkeypatch.setattr(comparison, "parse", broken)
    worker._problem.cache_clear()
    (reply,) = list(worker._answer(question))
    assert "no grammar" in reply["broken"]
    monkeypatch.undo()
    assert next(worker._answer(question)) == {"reference": "ok"}, "a failure is not remembered"


@pytest.mark.usefixtures("impatient")
def test_a_missing_library_is_an_error_and_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "poor_worker.py").write_text('print(\'{"missing": "No module named mpmath"}\', flush=True)')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(mathematics, "_WORKER", "poor_worker")
    with pytest.raises(ModuleNotFoundError, match="install r1kit"):
        _ask("2\\sqrt{2}", "\\sqrt{8}")


@pytest.mark.usefixtures("impatient")
def test_no_worker_is_left_behind_when_the_pool_is_closed() -> None:
    _ask("2\\sqrt{2}", "\\sqrt{8}")
    processes = _processes()
    workers.pool(mathematics._WORKER, seconds=mathematics.SECONDS).close()
    assert processes and all(process.poll() is not None for process in processes)


# Real references


def _rows(file: Path, count: int) -> list[dict[str, Any]]:
    """A fixed sample of the rows of a data set."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return random.Random(0).sample([json.loads(line) for line in lines], count)


@pytest.mark.parametrize(("file", "column"), [("math_test", "solution"), ("gsm8k", "answer")])
def test_references_verify_themselves_and_only_coincidences_verify_others(
    file: str, column: str, shared_data: Path
) -> None:
    solutions = [row[column] for row in _rows(shared_data / file / "test.jsonl.gz", 150)]
    wanted = [extract.reference(solution) for solution in solutions]
    boxed = [f"The answer is <answer>${one}$</answer>" for one in wanted]
    assert all(one.correct for one in verify_all("math", boxed, solutions))
    assert all(one.correct is False for one in verify_all("math", [""] * len(solutions), solutions))
    turned = [*wanted[1:], wanted[0]]
    judged = verify_all("math", [f"<answer>{one}</answer>" for one in turned], solutions)
    for verdict, mine, other in zip(judged, turned, wanted, strict=True):
        assert verdict.correct is (mine.replace(",", "") == other.replace(",", "")), (mine, other)


def test_solutions_of_countdown_verify_themselves(shared_data: Path) -> None:
    rows = _rows(shared_data / "countdown/countdown_2000.jsonl.gz", 500)
    references = [json.dumps({"numbers": row["nums"], "target": row["target"]}) for row in rows]
    verdicts = verify_all("countdown", [f"<answer>{row['solution']}</answer>" for row in rows], references)
    assert all(verdict.correct for verdict in verdicts)
