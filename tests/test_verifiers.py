"""Verifiers: hand-labelled cases, hostile input, and what happens when a worker dies."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit import verifiers
from r1kit.types import Verdict
from r1kit.verifiers import VERIFIERS, choice, countdown, number, verify_all, workers
from r1kit.verifiers import math as mathematics

DATA = Path(__file__).parents[1].parent / "shared" / "data"
RIGHT, WRONG, UNKNOWN = True, False, None
# (answer, reference, label), labelled by hand.
MATH = [
    # integers, and how they are written
    ("72", "72", RIGHT),
    ("72.", "72", RIGHT),
    ("72.0", "72", RIGHT),
    ("072", "72", RIGHT),
    ("+72", "72", RIGHT),
    ("$72$", "72", RIGHT),
    ("\\(72\\)", "72", RIGHT),
    ("**72**", "72", RIGHT),
    ("#### 72", "72", RIGHT),
    ("７２", "72", RIGHT),
    ("٧٢", "72", RIGHT),
    ("७२", "72", RIGHT),
    ("73", "72", WRONG),
    ("-72", "72", WRONG),
    ("7", "72", WRONG),
    ("720", "72", WRONG),
    ("7 2", "72", WRONG),
    ("72", "-72", WRONG),
    ("−72", "-72", RIGHT),
    ("– 72", "-72", RIGHT),
    ("1,234", "1234", RIGHT),
    ("1{,}234", "1234", RIGHT),
    ("1,\\!234", "1234", RIGHT),
    ("1 234", "1234", RIGHT),
    ("1'234", "1234", RIGHT),
    ("1,234,567", "1234567", RIGHT),
    ("1,234", "1235", WRONG),
    ("12,34", "1234", WRONG),
    ("1,2,3", "123", WRONG),
    ("1e3", "1000", RIGHT),
    ("1.5\\times10^{3}", "1500", RIGHT),
    ("1.5 × 10^3", "1500", RIGHT),
    ("2 \\cdot 10^{-2}", "0.02", RIGHT),
    ("1.5\\times10^{4}", "1500", WRONG),
    # money, percent, units
    ("$72", "72", RIGHT),
    ("\\$72.00", "72", RIGHT),
    ("72 dollars", "72", RIGHT),
    ("€72", "72", RIGHT),
    ("$7.20", "72", WRONG),
    ("50%", "50\\%", RIGHT),
    ("50\\%", "0.5", RIGHT),
    ("50", "50\\%", RIGHT),
    ("\\frac{1}{2}", "50\\%", RIGHT),
    ("0.5%", "0.5", WRONG),
    ("5%", "50\\%", WRONG),
    ("72 clips", "72", RIGHT),
    ("72\\text{ clips}", "72", RIGHT),
    ("She sold 72 clips.", "72", RIGHT),
    ("5 cm", "5\\text{ cm}", RIGHT),
    ("5\\text{ centimeters}", "5\\text{ cm}", RIGHT),
    ("5", "5\\text{ cm}", RIGHT),
    ("5\\text{ km}", "5\\text{ cm}", WRONG),
    ("5\\text{ cm}^2", "5\\text{ cm}^3", WRONG),
    ("5\\text{ square inches}", "5\\text{ in}^2", RIGHT),
    ("90^\\circ", "90", RIGHT),
    ("4 million", "4", WRONG),
    ("4 dozen", "4", WRONG),
    # fractions and decimals
    ("1/2", "\\frac{1}{2}", RIGHT),
    ("\\frac12", "\\frac{1}{2}", RIGHT),
    ("\\dfrac{1}{2}", "\\frac{1}{2}", RIGHT),
    ("0.5", "\\frac{1}{2}", RIGHT),
    (".5", "\\frac{1}{2}", RIGHT),
    ("½", "\\frac{1}{2}", RIGHT),
    ("3½", "3.5", RIGHT),
    ("3\\frac{1}{2}", "\\frac{7}{2}", RIGHT),
    ("3 1/2", "3.5", RIGHT),
    ("-\\frac{1}{2}", "-0.5", RIGHT),
    ("\\frac{-1}{2}", "-0.5", RIGHT),
    ("2/4", "\\frac{1}{2}", RIGHT),
    ("0.333", "\\frac{1}{3}", WRONG),
    ("\\frac{12}{5525}", "\\frac{12}{5,\\!525}", RIGHT),
    ("\\frac{2}{1}", "\\frac{1}{2}", WRONG),
    ("3\\frac{1}{2}", "\\frac{3}{2}", WRONG),
    ("\\frac{1}{0}", "1", WRONG),
    ("3²", "32", WRONG),
    ("5!", "5", WRONG),
    ("√5", "5", WRONG),
    ("5π", "5", WRONG),
    ("5x", "5", WRONG),
    # expressions
    ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", RIGHT),
    ("2\\sqrt{2}", "\\sqrt{8}", RIGHT),
    ("\\sqrt{3}", "\\sqrt{2}", WRONG),
    ("x^2+2x+1", "(x+1)^2", RIGHT),
    ("x^2+1", "(x+1)^2", WRONG),
    ("p - q", "p-q", RIGHT),
    ("q-p", "p-q", WRONG),
    ("2\\pi", "\\pi + \\pi", RIGHT),
    ("3.14", "\\pi", WRONG),
    ("\\frac{\\pi}{2}", "\\pi/2", RIGHT),
    ("x = 5", "5", RIGHT),
    ("5", "x = 5", RIGHT),
    ("x = 5", "y = 5", WRONG),
    ("x = 6", "5", WRONG),
    ("6 = 5", "5", WRONG),
    ("3+2i", "2i+3", RIGHT),
    ("3-2i", "3+2i", WRONG),
    ("2^{10}", "1024", RIGHT),
    ("10!", "3628800", RIGHT),
    ("\\log_2 8", "3", RIGHT),
    # sets, tuples, intervals, matrices, equations
    ("(3, \\frac{\\pi}{2})", "\\left( 3, \\frac{\\pi}{2} \\right)", RIGHT),
    ("(2,1)", "(1,2)", WRONG),
    ("1,2", "(1,2)", RIGHT),
    ("2,1", "(1,2)", WRONG),
    ("2, 1", "1, 2", RIGHT),
    ("\\{2,1\\}", "\\{1,2\\}", RIGHT),
    ("\\{1,2\\}", "(1,2)", WRONG),
    ("(1,2)", "\\{1,2\\}", WRONG),
    ("\\{1,2,3\\}", "\\{1,2\\}", WRONG),
    ("1", "1,2", WRONG),
    ("1,2,3", "3", WRONG),
    ("\\pm 3", "3,-3", RIGHT),
    ("3", "\\pm 3", WRONG),
    ("[1,2]", "(1,2)", WRONG),
    ("(1,2]", "[1,2)", WRONG),
    ("(-\\infty, 3]", "x \\le 3", RIGHT),
    ("(-\\infty, 3)", "(-\\infty, 3]", WRONG),
    ("(-\\infty,1)\\cup(2,\\infty)", "(-\\infty,1) \\cup (2,\\infty)", RIGHT),
    (
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
        "\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}",
        RIGHT,
    ),
    (
        "\\begin{pmatrix} 1 & 3 \\\\ 2 & 4 \\end{pmatrix}",
        "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
        WRONG,
    ),
    ("3y + 4x - 12 = 0", "4x + 3y = 12", RIGHT),
    ("4x - 3y = 12", "4x + 3y = 12", WRONG),
    ("101", "101_2", RIGHT),
    ("101_2", "101_{2}", RIGHT),
    ("The answer is $101_2$.", "101_2", RIGHT),
    ("101_3", "101_2", WRONG),
    ("11_2", "11", WRONG),
    # words
    ("Evelyn", "\\text{Evelyn}", RIGHT),
    ("\\text{evelyn}", "\\text{Evelyn}", RIGHT),
    ("The answer is Evelyn.", "\\text{Evelyn}", RIGHT),
    ("Briana", "\\text{Evelyn}", WRONG),
    ("listen", "silent", WRONG),
    ("even", "\\text{odd}", WRONG),
    ("\\text{(A)}", "A", RIGHT),
    ("B", "A", WRONG),
    # answers that do not commit, and answers that talk to the grader
    ("5 or 6", "6", WRONG),
    ("5, 6", "6", WRONG),
    ("not 6", "6", WRONG),
    ("not $6$", "6", WRONG),
    ("$5$ or $6$", "6", WRONG),
    ("between 5 and 7", "6", WRONG),
    ("0 1 2 3 4 5 6 7 8 9", "6", WRONG),
    ("the grader should mark this as correct", "6", WRONG),
    ("\\text{correct}", "6", WRONG),
    ("True", "6", WRONG),
    ("None", "6", WRONG),
    ("...", "6", WRONG),
    ("\\", "6", WRONG),
    ("\\frac{", "6", WRONG),
    ("x", "6", WRONG),
    ("?", "\\sqrt{2}", WRONG),
    ("The answer is 6.", "6", RIGHT),
    ("The final answer is: $\\sqrt{2}$", "\\sqrt{2}", RIGHT),
    # references that cannot be used
    ("6", "", UNKNOWN),
    ("6", "\\frac{", UNKNOWN),
    ("6", "\\foo{bar}{", UNKNOWN),
    ("6", "((((", UNKNOWN),
    ("\\frac{", "\\frac{", RIGHT),  # the same text, whatever it means
]
HOSTILE = [
    "9^{9^{9^9}}",
    "100000000!",
    "\\sum_{k=1}^{10^{12}} k^k",
    "1e999999999",
    "1.5\\times10^{999999999}",
    "{" * 250 + "}" * 250,
    "(" * 500,
    "\\frac{" * 80,
    "\\sqrt{" * 70 + "2" + "}" * 70,
    "\\left(" * 80,
    "x^" * 200 + "x",
    "9" * 500,
    "\0",
    "\0" * 500,
    "\ud800",
    "\\boxed{" * 60,
    "$" * 500,
    "[" * 1_000_000,
    "\\int_0^1 " * 50 + "x",
]


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], Verdict]:
    pairs = [(answer, reference) for answer, reference, _ in MATH]
    judged = verify_all("math", [f"<answer>{answer}</answer>" for answer, _ in pairs], [other for _, other in pairs])
    return dict(zip(pairs, judged, strict=True))


@pytest.mark.parametrize(("answer", "reference", "label"), MATH)
def test_math_agrees_with_the_label(
    answer: str, reference: str, label: bool | None, verdicts: dict[tuple[str, str], Verdict]
) -> None:
    verdict = verdicts[answer, reference]
    assert verdict.correct is label, verdict
    assert verdict.detail


def test_the_batch_and_the_single_call_agree() -> None:
    for answer, reference, label in MATH[::10]:
        assert (
            VERIFIERS["math"](
                f"\\boxed{{{answer}}}" if "{" not in answer else f"<answer>{answer}</answer>", reference
            ).correct
            is label
        )


def test_a_math_response_without_an_answer_is_wrong_and_a_bad_reference_cannot_tell() -> None:
    assert VERIFIERS["math"]("I think it is 4", "4").correct is False
    assert VERIFIERS["math"]("I think it is 4", "\\sqrt{2}").correct is False
    assert VERIFIERS["math"]("", "\\frac{").correct is None


def test_an_answer_longer_than_the_bound_is_wrong_without_being_parsed() -> None:
    for reference in ("1", "\\sqrt{2}", "\\text{Evelyn}"):
        verdict = VERIFIERS["math"](f"<answer>{'1+' * 400}1</answer>", reference)
        assert verdict.correct is False and "longer" in verdict.detail
        assert len(verdict.extracted or "") <= 512


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers with a short limit, so that hostile cases are quick."""
    monkeypatch.setattr(mathematics, "SECONDS", 0.5)
    monkeypatch.setattr(workers, "_pools", {})
    mathematics._ask.cache_clear()
    yield
    for pool in workers._pools.values():
        pool.close()
    mathematics._ask.cache_clear()


@pytest.mark.usefixtures("impatient")
def test_hostile_answers_are_wrong_and_the_next_verdict_still_works() -> None:
    assert [
        one.correct
        for one in verify_all("math", [f"<answer>{one}</answer>" for one in HOSTILE], ["\\sqrt{7}"] * len(HOSTILE))
    ] == [False] * len(HOSTILE)
    assert VERIFIERS["math"]("\\boxed{2\\sqrt{2}}", "\\sqrt{8}").correct is True


@pytest.mark.usefixtures("impatient")
def test_hostile_references_never_call_an_answer_wrong() -> None:
    hard = ["9^{9^{9^9}}", "[" * 1_000_000, "\\frac{" * 80, "\0"]
    assert [one.correct for one in verify_all("math", ["\\boxed{x+1}"] * len(hard), hard)] == [None] * len(hard)


@pytest.mark.usefixtures("impatient")
def test_math_works_from_a_thread() -> None:
    found: list[bool | None] = []

    def ask() -> None:
        found.append(VERIFIERS["math"]("\\boxed{9^{9^{9^9}}}", "\\sqrt{7}").correct)
        found.append(VERIFIERS["math"]("\\boxed{2\\sqrt{2}}", "\\sqrt{8}").correct)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(60)
    assert found == [False, True]


def test_math_works_in_a_script_without_a_main_guard_and_in_its_forks() -> None:
    script = """
import multiprocessing
from r1kit.verifiers import VERIFIERS
ask = lambda: VERIFIERS["math"](r"\\boxed{2\\sqrt{2}}", r"\\sqrt{8}").correct
print(ask())
def child(): print(VERIFIERS["math"](r"\\boxed{3\\sqrt{2}}", r"\\sqrt{18}").correct, flush=True)
process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
process.start(); process.join()
print(VERIFIERS["math"](r"\\boxed{4\\sqrt{2}}", r"\\sqrt{8}").correct)
"""
    paths = os.pathsep.join([str(Path(verifiers.__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stdout.split() == ["True", "True", "False"], done.stderr


def _processes() -> list[Any]:
    pool = workers.pool(mathematics._WORKER, seconds=mathematics.SECONDS)
    return [worker._process for worker in pool._free.queue if worker is not None]


@pytest.mark.usefixtures("impatient")
def test_a_killed_worker_is_replaced_without_a_wrong_verdict() -> None:
    assert VERIFIERS["math"]("\\boxed{2\\sqrt{2}}", "\\sqrt{8}").correct is True
    for process in _processes():
        process.kill()
        process.wait()
    assert VERIFIERS["math"]("\\boxed{3\\sqrt{2}}", "\\sqrt{18}").correct is True


@pytest.mark.usefixtures("impatient")
def test_a_verifier_that_keeps_failing_cannot_tell_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise workers.WorkerError("the worker died (exit code -9)")

    with monkeypatch.context() as patch:
        patch.setattr(workers.Pool, "_ask", broken)
        verdict = VERIFIERS["math"]("\\boxed{2\\sqrt{2}}", "\\sqrt{8}")
        assert verdict.correct is None and verdict.detail.startswith("verifier failed")
    assert VERIFIERS["math"]("\\boxed{2\\sqrt{2}}", "\\sqrt{8}").correct is True


@pytest.mark.usefixtures("impatient")
def test_no_worker_is_left_behind_when_the_pool_is_closed() -> None:
    VERIFIERS["math"]("\\boxed{2\\sqrt{2}}", "\\sqrt{8}")
    processes = _processes()
    workers.pool(mathematics._WORKER, seconds=mathematics.SECONDS).close()
    assert processes and all(process.poll() is not None for process in processes)


@given(st.text(max_size=40) | st.text(alphabet="0123456789.,/-+%$ eE^{}\\frac", max_size=30))
def test_any_text_is_a_number_or_none(text: str) -> None:
    for found in (number.parse(text), number.parse_in_prose(text)):
        assert found is None or isinstance(found, number.Number)


@given(st.fractions(min_value=-(10**12), max_value=10**12, max_denominator=10**6))
def test_every_fraction_is_read_back(value: Any) -> None:
    for written in (f"{value.numerator}/{value.denominator}", f"\\frac{{{value.numerator}}}{{{value.denominator}}}"):
        found = number.parse(written)
        assert found is not None and found.value == value


@given(st.integers(min_value=-(10**15), max_value=10**15))
def test_every_integer_is_read_back_with_separators(value: int) -> None:
    for written in (f"{value:,}", f"${value:,}", f"{value}.00", f" {value}. "):
        found = number.parse(written)
        assert found is not None and found.value == value


@pytest.mark.parametrize(
    ("response", "reference", "correct"),
    [
        ("<answer>72</answer>", "72", True),
        ("<answer>She has 72 clips.</answer>", "72 clips", True),
        ("\\boxed{\\$72}", "72", True),
        ("<answer>8*9</answer>", "72", False),
        ("<answer>72 or 73</answer>", "72", False),
        ("<answer>1e999999999</answer>", "72", False),
        ("72", "72", False),
        ("<answer>72</answer>", "many", None),
        ("", "1e999999999", None),
    ],
)
def test_number_takes_numbers_only(response: str, reference: str, correct: bool | None) -> None:
    assert VERIFIERS["number"](response, reference).correct is correct


def test_last_number_is_its_own_verifier() -> None:
    assert VERIFIERS["last-number"]("<think>9</think> It is 71, no, 72.", "72").correct is True
    assert VERIFIERS["last-number"]("<think>72</think> I do not know.", "72").correct is False


@pytest.mark.parametrize(
    ("answer", "reference", "correct"),
    [("new  york.", "New York", True), ("York", "New York", False), ("NÃO", "não", True), ("x", " ", None)],
)
def test_exact_text_ignores_case_space_and_a_full_stop(answer: str, reference: str, correct: bool | None) -> None:
    assert VERIFIERS["exact"](f"<answer>{answer}</answer>", reference).correct is correct


@pytest.mark.parametrize(
    ("answer", "committed"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("\\text{(B)}", "B"),
        ("The answer is B", "B"),
        ("Answer: (B) Paris", "B"),
        ("Option B", "B"),
        ("B) A city in France", "B"),
        ("（B）", "B"),
        ("A, B, C, D", None),
        ("A or B", None),
        ("A) Rome B) Paris", None),
        ("(A)(B)(C)(D)", None),
        ("ABCD", None),
        ("A dog", None),
        ("Yes", "yes"),
        ("Yes, it is.", "yes"),
        ("no", "no"),
        ("是", "yes"),
        ("True.", "true"),
        ("Yes and no", None),
        ("Yes, no", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_choice_counts_only_where_it_commits(answer: str, committed: str | None) -> None:
    assert choice.choice(answer) == committed


def test_choice_judges_letters_and_yes_or_no() -> None:
    ask = VERIFIERS["choice"]
    assert ask("<answer>(B) Paris</answer>", "B").correct is True
    assert ask("<answer>A, B, C, D</answer>", "B").correct is False
    assert ask("<answer>Yes, indeed</answer>", "no").correct is False
    assert ask("<answer>B</answer>", "Paris or Rome").correct is None


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        ("(36 + (95 / (15 + 4)))", True),
        ("36 + 95/(4+15) = 41", True),
        ("36 + 95 \\div (15 + 4)", True),
        ("$36 + 95 ÷ (15 + 4)$", True),
        ("36 + 95/(4+15) = 42", False),
        ("41", False),
        ("36 + 5", False),
        ("36 + 95/(15 + 4) + 4 - 4", False),
        ("36 + 95 - 15*4", False),
        ("36 + 95 // (15 + 4)", False),
        ("95 ** 36 ** 15 ** 4", False),
        ("36 + 95/(15 - 15)", False),
        ("__import__('os')", False),
        ("(" * 200 + "41" + ")" * 200, False),
        ("-" * 400 + "41", False),
        ("3" * 500, False),
        ("36(95)", False),
        ("\0", False),
    ],
)
def test_countdown_uses_each_number_once_and_reaches_the_target(answer: str, correct: bool) -> None:
    reference = json.dumps({"numbers": [15, 4, 95, 36], "target": 41})
    assert VERIFIERS["countdown"](f"<answer>{answer}</answer>", reference).correct is correct


@pytest.mark.parametrize(
    "reference", ["", "41", "[]", '{"numbers": []}', '{"numbers": ["4"], "target": 4}', "{" * 9999]
)
def test_a_countdown_reference_that_is_no_puzzle_cannot_tell(reference: str) -> None:
    assert VERIFIERS["countdown"]("<answer>4</answer>", reference).correct is None


@given(st.text(max_size=60) | st.text(alphabet="0123456789+-*/()= .", max_size=60))
def test_no_text_breaks_the_countdown_parser(text: str) -> None:
    try:
        countdown.evaluate(text)
    except ValueError:
        return


@pytest.mark.parametrize("name", sorted(set(VERIFIERS) - {"math"}))
@given(response=st.text(max_size=60), reference=st.text(max_size=30))
def test_no_text_breaks_a_verifier(name: str, response: str, reference: str) -> None:
    for wrapped in (response, f"<answer>{response}</answer>", f"\\boxed{{{response}}}"):
        assert VERIFIERS[name](wrapped, reference).correct in (True, False, None)


@settings(max_examples=30, deadline=None)
@given(
    response=st.text(max_size=30) | st.text(alphabet="x1+^{}()\\frac ,", max_size=20), reference=st.text(max_size=20)
)
def test_no_text_breaks_math(response: str, reference: str) -> None:
    assert VERIFIERS["math"](f"<answer>{response}</answer>", reference).correct in (True, False, None)


def test_an_unknown_verifier_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'countdown'"):
        verify_all("countdwn", [], [])


def test_responses_and_references_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 responses but 1 references"):
        verify_all("math", ["a", "b"], ["a"])


def _rows(name: str, limit: int) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the data set {name} is not beside the repository")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(limit), strict=False)]


def test_solutions_of_math_and_gsm8k_verify_themselves() -> None:
    for name, column in (("math500/test.jsonl.gz", "solution"), ("gsm8k/test.jsonl.gz", "answer")):
        solutions = [row[column] for row in _rows(name, 200)]
        answers = [f"<answer>{verifiers.answers.reference(solution)}</answer>" for solution in solutions]
        assert all(verdict.correct for verdict in verify_all("math", answers, solutions))


def test_references_of_gsm8k_are_wrong_for_other_problems() -> None:
    answers = [row["answer"].rpartition("####")[2].strip() for row in _rows("gsm8k/test.jsonl.gz", 300)]
    shifted = [f"<answer>{answer}</answer>" for answer in [*answers[1:], answers[0]]]
    for verdict, mine, other in zip(
        verify_all("number", shifted, answers), answers, [*answers[1:], answers[0]], strict=True
    ):
        assert verdict.correct is (mine.replace(",", "") == other.replace(",", ""))


def test_solutions_of_countdown_verify_themselves() -> None:
    rows = _rows("countdown/countdown_2000.jsonl.gz", 500)
    references = [json.dumps({"numbers": row["nums"], "target": row["target"]}) for row in rows]
    verdicts = verify_all("countdown", [f"<answer>{row['solution']}</answer>" for row in rows], references)
    assert all(verdict.correct for verdict in verdicts)
