"""Facts about tasks: what files become, what is refused, and how tasks are mixed."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import subprocess
import sys
import types
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1kit.data.errors import DataError
from r1kit.settings import SettingsError
from r1kit.tasks import (
    KNOWN,
    Listed,
    TaskSpec,
    check_file,
    iterate,
    load_file,
    load_known,
    load_task,
    load_tasks,
    mix,
    say_readings,
)
from r1kit.tasks.conversion import convert
from r1kit.tasks.mixture import PERIOD, apportion
from r1kit.tasks.public_sets import DATA_VARIABLE
from r1kit.tasks.recognition import guess
from r1kit.tasks.references import clean_number, reference
from r1kit.tasks.sources import gym as gym_module
from r1kit.types import Problem
from r1kit.verifiers.extract import boxed
from r1kit.verifiers.number import parse_number

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is not here")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(autouse=True)
def _no_data_folder_and_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def only(row: dict[str, Any]) -> Problem:
    return convert(row, guess([row], "f"), name="set/train", file="f", number=1)


def numbers(name: str, count: int) -> Listed:
    return Listed(
        name=name, problems=tuple(Problem(id=f"{name}/{i}", prompt=f"{i}?", answer=str(i)) for i in range(count))
    )


# Answers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,080", "1080"),
        ("$1,080.50", "1080.5"),
        ("-$5", "-5"),
        ("\u22125", "-5"),
        ("025", "25"),
        ("72.0", "72"),
        ("80 000", "80000"),
        ("80\u202f000 €", "80000"),
        (".5", "0.5"),
        ("18.", "18"),
        ("-0.0", "0"),
        ("\\$3", "3"),
        ("३", "3"),
        ("+7", "7"),
        ("1,08", None),
        ("1,0800", None),
        ("", None),
        (".", None),
        ("1e5", "100000"),
        ("two", "2"),
        ("3/4", "0.75"),
        ("1/3", "1/3"),
        ("50%", "50%"),
        ("5 apples", None),
    ],
)
def test_a_number_has_one_spelling(text: str, number: str | None) -> None:
    assert clean_number(text) == number


@given(st.integers(), st.sampled_from(["", "$", "€"]))
def test_thousands_separators_and_currency_do_not_change_a_number(value: int, sign: str) -> None:
    assert clean_number(f"{'-' if value < 0 else ''}{sign}{abs(value):,}") == str(value)


@given(st.text() | st.text("0123456789.,-+$€ \u0663\u00b2"))
def test_cleaning_accepts_any_text_and_settles_at_once(text: str) -> None:
    number = clean_number(text)
    assert number is None or (clean_number(number) == number and parse_number(number) == parse_number(text))


@given(JSON_VALUES)
def test_a_reference_is_text_or_a_task_error(value: Any) -> None:
    try:
        assert reference(value)
    except DataError as error:
        assert error.kind in {"empty answer", "wrong type", "unparsed answer", "invalid UTF-8"}


# Schemas


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"question": "Q", "answer": "48/2 = <<48/2=24>>24\n#### 1,024"},
            {"answer": "1024", "verifier": "number", "solution": "48/2 = 24"},
        ),
        (
            {"problem": "Q", "level": "Level 5", "solution": r"So $\boxed{\frac12}$."},
            {
                "answer": r"\frac12",
                "verifier": "math",
                "solution": r"So $\boxed{\frac12}$.",
                "columns": {"problem": "Q", "level": "Level 5", "solution": r"So $\boxed{\frac12}$."},
            },
        ),
        (
            {"problem": "Q", "answer": "025", "url": "u"},
            {"answer": "25", "columns": {"problem": "Q", "answer": "025", "url": "u"}},
        ),
        ({"Body": "A", "Question": "B?", "Answer": 72.0}, {"prompt": "A B?", "answer": "72", "verifier": "number"}),
        ({"lang": "zh", "question": "Q", "answer": "2,125"}, {"answer": "2125", "language": "zh"}),
        ({"question": "Q", "answer": None, "answer_number": 18}, {"answer": "18", "verifier": "number"}),
        ({"problem": "Q", "solution": r"\boxed{7}", "messages": [{"role": "user", "content": "Q"}]}, {"answer": "7"}),
        (
            {
                "system": "S",
                "conversations": [
                    {"from": "user", "value": r"Return your final response within \boxed{}. Q"},
                    {
                        "from": "assistant",
                        "value": r"<|begin_of_thought|>\boxed{1}<|end_of_thought|>"
                        r"<|begin_of_solution|>\boxed{2}<|end_of_solution|>",
                    },
                ],
            },
            {"prompt": "Q", "answer": "2"},
        ),
        (
            {
                "data_source": "openai/gsm8k",
                "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
                "reward_model": {"style": "rule", "ground_truth": "72"},
                "extra_info": {"index": 0},
            },
            {"prompt": "S\n\nQ", "answer": "72", "source": "openai/gsm8k"},
        ),
        ({"prompt": [{"role": "user", "content": "Q"}], "solution": "$x^2$"}, {"prompt": "Q", "answer": "$x^2$"}),
        ({"prompt": "Q", "ground_truth": "Paris"}, {"answer": "Paris", "verifier": "math"}),
        ({"prompt": "Q", "answer": "007", "verifier": "exact"}, {"answer": "007", "verifier": "exact"}),
        ({"question": "Q", "choices": ["x", "y"], "answer": 0}, {"prompt": "Q\nA. x\nB. y", "answer": "A"}),
        ({"question": "Q", "choices": ["x", "y"], "answer": 2}, {"prompt": "Q\nA. x\nB. y", "answer": "B"}),
        ({"question": "Q", "answer": "A, 1,234"}, {"answer": "A, 1,234"}),
    ],
)
def test_columns_of_known_data_sets_are_understood(row: dict[str, Any], expected: dict[str, Any]) -> None:
    problem = only(row)
    assert {field: getattr(problem, field) for field in expected} == expected
    assert problem.prompt.startswith(expected.get("prompt", "Q"))


@given(
    st.dictionaries(st.sampled_from(["prompt", "question", "answer", "solution", "lang", "choices", "x"]), JSON_VALUES)
)
def test_any_row_is_a_problem_or_a_task_error_that_names_the_row(row: dict[str, Any]) -> None:
    try:
        schema = guess([row], "f")
    except DataError as error:
        assert error.kind in ("missing column", "ambiguous columns")
        return
    try:
        problem = convert(row, schema, name="n", file="f", number=3)
    except DataError as error:
        assert (error.file, error.row) == ("f", 3) and error.field in row
    else:
        assert problem.prompt and problem.answer and problem.id == "n/2"


# Files


def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path) -> None:
    rows = [{"question": f"{i} + 1?", "answer": str(i + 1)} for i in range(5)]
    plain = write(tmp_path / "a" / "rows.jsonl", *rows)
    (tmp_path / "a" / "rows.jsonl.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + plain.read_bytes()))
    (tmp_path / "a" / "rows.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "a" / "lines.json").write_bytes(plain.read_bytes())
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a" / "rows.parquet")
    expected = load_file(plain).problems
    assert [problem.answer for problem in expected] == ["1", "2", "3", "4", "5"]
    for name in ("rows.jsonl.gz", "rows.json", "rows.parquet"):
        assert load_file(tmp_path / "a" / name).problems == expected
    assert load_file(tmp_path / "a" / "lines.json", name="a/rows").problems == expected


def test_ids_come_from_folder_file_and_row_and_survive_skipping(tmp_path: Path) -> None:
    good = {"question": "Q", "answer": "1"}
    task = load_file(write(tmp_path / "own" / "sums.jsonl", good, {"question": "Q"}, good), skip_invalid=True)
    assert [problem.id for problem in iterate(task)] == ["own/sums/0", "own/sums/2"]
    assert [(error.row, error.field, error.kind) for error in task.skipped] == [(2, "answer", "missing column")]
    notes: list[str] = []
    say_readings(task, notes.append)
    assert any("own/sums: 1 row is faulty and left out; the first: " in note for note in notes)
    rows = write(tmp_path / "asked.jsonl", {"prompt": "Hi?"}, {"other": 1})
    requests = load_task(TaskSpec(name=f"requests:{rows}", skip_invalid=True))
    assert (len(requests), [error.row for error in requests.skipped]) == (1, [2])


def test_an_explicit_mapping_wins_over_guessing(tmp_path: Path) -> None:
    row = {"q": "Q", "meta": {"gold": 3}, "l": "fr-CA", "question": "not this", "answer": "not this"}
    path = write(tmp_path / "a.jsonl", row)
    problem = load_file(path, columns={"prompt": "q", "answer": "meta.gold", "language": "l"})[0]
    assert (problem.prompt, problem.answer, problem.language) == ("Q", "3", "fr")
    with pytest.raises(DataError, match=r"did you mean answer\?"):
        load_file(path, columns={"prompt": "q", "anser": "a"})


def test_verifier_and_language_can_be_set_for_all_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "Q", "answer": "007", "lang": "de", "verifier": "math"})
    problem = load_file(path, verifier="exact", language="fr")[0]
    assert (problem.answer, problem.verifier, problem.language) == ("007", "exact", "fr")


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"),
    [
        ("a.jsonl", b"", "empty file", "no rows"),
        ("a.jsonl", b"\n \n", "empty file", "no rows"),
        ("a.json", b"[]", "empty file", "no rows"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "Q", "answer": "1"}\n' * 9, mtime=0)[:-12], "damaged file", "cut"),
        ("a.jsonl.gz", b"not gzip at all", "damaged file", "gzip"),
        ("a.parquet", b"PAR1 nonsense", "damaged file", "Parquet"),
        ("a.jsonl", b'{"question": "Q", "answer": "1"}\n{"question": "\xff"}\n', "invalid UTF-8", "row 2"),
        ("a.jsonl", b'{"question": "Q", "answer": "1"}\n{"question": \n', "invalid JSON", "row 2"),
        ("a.json", b'[{"question": "Q", ]', "invalid JSON", "column"),
        ("a.jsonl", b"[" * 100_000 + b"\n", "invalid JSON", "row 1"),
        ("a.jsonl", b'{"question": "Q", "answer": ' + b"9" * 5000 + b"}\n", "invalid JSON", "row 1"),
        ("a.jsonl", b"[1, 2]\n", "wrong type", "row 1"),
        ("a.jsonl", b'{"question": "Q", "answr": "1"}\n', "missing column", "answr"),
        ("a.jsonl", b'{"question": "Q", "answer": "1"}\n{"question": "Q"}\n', "missing column", "row 2, field answer"),
        ("a.jsonl", b'{"question": "Q", "answer": " "}\n', "empty answer", "row 1, field answer"),
        ("a.jsonl", b'{"question": "", "answer": "1"}\n', "empty prompt", "row 1, field question"),
        ("a.jsonl", b'{"question": 7, "answer": "1"}\n', "wrong type", "row 1, field question"),
        ("a.jsonl", b'{"question": "Q", "answer": NaN}\n', "wrong type", "row 1, field answer"),
        ("a.jsonl", b'{"question": "Q", "answer": true}\n', "wrong type", "row 1, field answer"),
        ("a.jsonl", b'{"question": "\\ud800", "answer": "1"}\n', "invalid UTF-8", "row 1, field question"),
        ("a.jsonl", b'{"problem": "Q", "solution": "no box"}\n', "unparsed answer", "row 1, field solution"),
        ("a.jsonl", b'{"question": "Q", "answer": "x\\n#### many"}\n', "unparsed answer", "row 1, field answer"),
        ("a.csv", b"question,answer\n", "wrong type", ".parquet"),
    ],
)
def test_bad_files_give_one_clear_message(tmp_path: Path, name: str, content: bytes, kind: str, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_file(path)
    assert caught.value.kind == kind
    assert says in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    report = check_file(path)
    assert not report.ok and report.counts[kind] == 1 and str(report.issues[0]) == str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_file(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="folder"):
        load_file(tmp_path)


def test_errors_survive_the_way_back_from_a_worker_process() -> None:
    error = pickle.loads(pickle.dumps(DataError("empty answer", "it is empty", "f.jsonl", 3, "answer")))
    assert str(error) == "f.jsonl, row 3, field answer: it is empty"
    assert error.as_dict()["row"] == 3


# The check


def test_the_check_goes_on_behind_a_fault_and_counts_every_row(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"question": "Q 1", "answer": "1"},
        {"question": "Q  1", "answer": ""},
        {"question": "Q  1", "answer": "1"},
        5,
        {"question": "R", "answer": "2"},
    )
    report = check_file(path)
    assert (report.rows, report.problems, report.schema, report.ok) == (5, 3, "question+answer", False)
    assert report.counts == {"empty answer": 1, "duplicate prompt": 1, "wrong type": 1}
    assert [(issue.row, issue.field) for issue in report.issues] == [(2, "answer"), (3, "question"), (4, None)]
    assert json.loads(json.dumps(report.as_dict()))["issues"][1]["reason"] == "the prompt repeats row 1's"


def test_a_verifier_that_does_not_exist_is_found_before_anything_is_sampled(tmp_path: Path) -> None:
    report = check_file(write(tmp_path / "a.jsonl", {"question": "Q", "answer": "1", "verifier": "nmber"}))
    assert not report.ok and report.counts == {"unknown verifier": 1}
    assert "row 1, field verifier: there is no verifier 'nmber': did you mean number?" in str(report.issues[0])


def test_repeated_prompts_alone_leave_a_file_usable(tmp_path: Path) -> None:
    report = check_file(write(tmp_path / "a.jsonl", *[{"question": "Q", "answer": "1"}] * 200))
    assert report.ok and report.counts == {"duplicate prompt": 199} and len(report.issues) == 50


def test_one_prompt_with_two_references_is_a_fault_of_its_own(tmp_path: Path) -> None:
    rows = [{"question": question, "answer": answer} for question, answer in (("Q", "7"), ("R", "1"), (" Q", "8"))]
    report = check_file(write(tmp_path / "a.jsonl", *rows))
    assert not report.ok and report.counts == {"contradictory answer": 1}
    assert "row 3, field question: the prompt repeats row 1's, with another answer: '8', not '7'" in str(
        report.issues[0]
    )
    chats = [{"prompt": "Q", "completion": reply} for reply in ("a", "b")]  # several replies are no contradiction
    assert check_file(write(tmp_path / "b.jsonl", *chats)).counts == {"duplicate prompt": 1}


@pytest.mark.parametrize(
    ("verifier", "first", "second", "same"),
    [
        *[("math", "x+1", "1+x", True), ("math", "(1,2)", "(1, 2)", True), ("math", "1/2", "0.5", True)],
        *[("math", "x+1", "x+2", False), ("math", "(1,2)", "(2,1)", False), ("math", "3", "4", False)],
        *[("choice", "A", "(A)", True), ("choice", "A", "B", False)],
        *[("exact", "New York.", "new york", True), ("exact", "A: 3", "B: 3", False)],
    ],
)
def test_the_verifier_decides_whether_two_references_are_the_same(
    tmp_path: Path, verifier: str, first: str, second: str, same: bool
) -> None:
    rows = [{"question": "Q", "answer": answer} for answer in (first, second)]
    report = check_file(write(tmp_path / "a.jsonl", *rows), verifier=verifier)
    assert report.counts == {"duplicate prompt" if same else "contradictory answer": 1}


@pytest.mark.parametrize(
    ("answer", "better"),
    [("twelve apples", "number"), ("New York", "exact"), ("June 20", "exact"), ("x + 2", ""), ("12 apples", "")],
)
def test_words_that_are_no_mathematics_come_with_a_verifier_that_fits(tmp_path: Path, answer: str, better: str) -> None:
    path = write(tmp_path / "a.jsonl", {"question": "Q", "answer": answer})
    report = check_file(path, verifier="math")
    assert report.ok and bool(report.issues) == bool(better)
    if better:
        assert f"{answer!r} cannot be read as mathematics" in str(report.issues[0])
        assert f"--verifier {better}," in str(report.issues[0])
        assert check_file(path, verifier=better).counts == {}


def test_rows_are_counted_even_where_the_columns_are_not_recognised(tmp_path: Path) -> None:
    report = check_file(write(tmp_path / "a.jsonl", *[{"text": "Q"}] * 30))
    assert (report.rows, report.problems, report.schema) == (30, 0, None)


@settings(deadline=None)  # the first Parquet file imports pyarrow
@given(content=st.binary(max_size=200), kind=st.sampled_from([".jsonl", ".json", ".jsonl.gz", ".parquet"]))
def test_no_file_breaks_the_check(tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{kind}"
    path.write_bytes(content)
    assert isinstance(json.dumps(check_file(path).as_dict()), str)


# Mixtures


def test_a_mixture_keeps_its_weights_at_every_point_and_cycles_members() -> None:
    task = mix([numbers("a", 2000), numbers("b", 3)], [3, 1])
    items = [problem.id for problem in iterate(task)]
    assert len(items) == 2003
    for end in (4, 10, 333, 1000, 1001, 2003):
        assert abs(sum(item.startswith("b") for item in items[:end]) - end / 4) <= 1
    assert [item for item in items if item.startswith("b")][:5] == ["b/0", "b/1", "b/2", "b/0", "b/1"]
    firsts = [item for item in items if item.startswith("a")]
    assert firsts == [f"a/{i}" for i in range(len(firsts))]


def test_an_item_of_a_mixture_depends_on_its_index_alone() -> None:
    def make() -> Any:
        return mix([numbers("a", 900), numbers("b", 900), numbers("c", 10)], [1, 0.5, 0.1])

    in_order = [problem.id for problem in iterate(make())]
    task = make()
    assert [task[i].id for i in reversed(range(len(task)))] == in_order[::-1]
    assert task[-1] == task[len(task) - 1]
    with pytest.raises(IndexError):
        task[len(task)]


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_turns_in_a_period_follow_the_weights(weights: list[float]) -> None:
    quotas = apportion(weights)
    assert sum(quotas) == PERIOD and min(quotas) >= 1
    assert all(
        abs(quota - weight / sum(weights) * PERIOD) <= len(weights)
        for quota, weight in zip(quotas, weights, strict=True)
    )


def test_weights_and_members_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        mix([numbers("a", 1)], [0])
    with pytest.raises(ValueError, match="no problems"):
        mix([numbers("a", 0)], [1])
    with pytest.raises(ValueError, match="one weight"):
        mix([numbers("a", 1)], [1, 2])


# Settings


def test_tasks_are_mixed_for_training_and_joined_for_evaluation(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", *[{"question": f"{name}{i}", "answer": "1"} for i in range(3)])
    specs = [TaskSpec(name=str(tmp_path / "a.jsonl")), TaskSpec(name=str(tmp_path / "b.jsonl"))]
    assert [problem.prompt for problem in iterate(load_tasks(specs, training=True))][:4] == ["a0", "b0", "a1", "b1"]
    joined = load_tasks(specs, training=False)
    assert [problem.prompt for problem in iterate(joined)] == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert joined[-1].prompt == "b2"


def test_an_evaluation_on_two_sets_with_the_same_ids_is_refused(tmp_path: Path) -> None:
    row = {"question": "Q", "answer": "1"}
    files = [write(tmp_path / place / "x" / "t.jsonl", row) for place in "ab"]
    specs = [TaskSpec(name=str(path)) for path in files]
    with pytest.raises(DataError, match=r"both have a problem x/t/0"):
        load_tasks(specs, training=False)


def test_easiest_puts_little_calculating_first(tmp_path: Path) -> None:
    long = {"question": "q", "answer": "1+1=<<1+1=2>>2\n2+1=3\n3+1=4\n#### 4"}
    short = {"question": "p", "answer": "5+1=6\n#### 6"}
    path = str(write(tmp_path / "rows.jsonl", long, short))
    assert [one.prompt for one in iterate(load_tasks([TaskSpec(name=path, order="easiest")], training=True))] == [
        "p",
        "q",
    ]


def test_calculations_asks_for_each_true_equation_of_two_numbers(tmp_path: Path) -> None:
    taken = ["He has $15 + $7 = $<<15+7=22>>22 now.", "Half is 22/2=11."]
    left = [
        "A third: 1/3 * 6 = 2",
        "1+1+1 = 3",
        "so 2 + 2 = 5",
        "4 - 1 = 3 and 3 x 2 = 6",
        "5 * 0.5 = 2.5",
        "7 / 0 = 0",
        "1,200 + 1 = 1,201",
        "nothing",
    ]
    path = write(tmp_path / "rows.jsonl", {"question": "q", "answer": "\n".join([*taken, *left, "#### 11"])})
    found = list(iterate(load_tasks([TaskSpec(name=str(path), calculations="alone")], training=True)))
    assert [one.prompt for one in found] == ["He has $15 + $7 = $? now.", "Half is 22/2=?."]
    assert [one.answer for one in found] == ["22", "11"]
    assert [one.id[-4:] for one in found] == ["/0/0", "/0/1"]


def test_calculations_in_context_are_problems_of_one_step(tmp_path: Path) -> None:
    question = "Ann has $48. Half of it is Ben's, and he finds $6 more. How much has Ben?"
    answer = "Half is $48/2 = $<<48/2=24>>24\nBen has $24 + $6 = $<<24+6=30>>30.\n#### 30"
    unasked = {"question": "Say 1 and 2.", "answer": "1+2=3\n#### 3"}
    hidden = {"question": "How many weeks have 3 years?", "answer": "They have 3*52 = 156.\n#### 156"}
    path = write(tmp_path / "rows.jsonl", {"question": question, "answer": answer}, unasked, hidden)
    first, last = iterate(load_tasks([TaskSpec(name=str(path), calculations="in_context")], training=True))
    assert (first.prompt, first.answer) == ("Ann has $48. Half of it is Ben's, and he finds $6 more. Half is $?", "24")
    assert last.prompt == "Ann has $48. Half of it is Ben's, and he finds $6 more. Half is $24. How much has Ben?"
    assert (last.answer, last.solution, last.id[-4:]) == ("30", "24 + 6 = 30.", "/0/1")
    assert list(iterate(load_tasks([TaskSpec(name=str(path), calculations="last")], training=True))) == [last]


def test_what_needs_a_reference_solution_says_so_where_there_is_none(tmp_path: Path) -> None:
    plain = str(write(tmp_path / "plain.jsonl", {"prompt": "q", "answer": "1"}))
    for asked in ({"order": "easiest"}, {"calculations": "alone"}):
        with pytest.raises(DataError, match="no reference solution"):
            load_tasks([TaskSpec(name=plain, **asked)], training=True)
    wordy = str(write(tmp_path / "wordy.jsonl", {"question": "q", "answer": "one and one\n#### 2"}))
    with pytest.raises(DataError, match=r"no solution of .* has a line with one calculation"):
        load_tasks([TaskSpec(name=wordy, calculations="alone")], training=True)
    with pytest.raises(SettingsError, match="calculations would have no effect"):
        TaskSpec.parse({"name": "tiny/sums", "calculations": "alone"})


def test_limit_and_order_choose_the_same_problems_every_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[{"question": f"{i}", "answer": "1"} for i in range(50)])

    def drawn(**changes: Any) -> list[str]:
        return [problem.prompt for problem in iterate(load_task(TaskSpec(name=str(path), **changes)))]

    assert drawn(limit=3) == ["0", "1", "2"]
    assert (
        drawn(limit=5, order="shuffled") == drawn(limit=5, order="shuffled") != drawn(limit=5, order="shuffled", seed=1)
    )
    assert sorted(drawn(order="shuffled"), key=int) == drawn()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": ""}, "name"),
        ({"name": "gsm8k", "weight": 0}, "weight"),
        ({"name": "gsm8k", "limit": 0}, "limit"),
        ({"name": "gsm8k", "columns": {"prompt": "q"}}, "answer"),
        ({"name": "gsm8k", "columns": {"prompt": "q", "answer": "a"}}, "no effect"),
        ({"name": "tiny/sums", "language": "zh"}, "language would have no effect on tiny/sums"),
        ({"name": "a.jsonl", "split": "test"}, "no effect"),
        ({"name": "gsm8k", "spilt": "test"}, "did you mean split"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        TaskSpec.parse(values)


@pytest.mark.parametrize("name", ["gsm9k", "no/such/file"])
def test_unknown_names_say_what_there_is(name: str) -> None:
    with pytest.raises(DataError, match="gsm8k"):
        load_task(TaskSpec(name=name))


def test_no_tasks_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one"):
        load_tasks([], training=True)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "gsm8k", "split": "test"},
        {"name": "math", "split": "test"},
        *({"name": name, "split": "test"} for name in ("math500", "svamp", "aime24", "amc23", "mgsm")),
        {"name": "svamp"},
        {"name": "mgsm", "split": "zh"},
        {"name": "hub:openai/gsm8k:main", "split": "test"},
        {"name": "tiny/reasoning", "split": "test"},
        {"name": "tiny/general", "split": "validation"},
        {"name": "gym/leg_counting", "split": "test"},
        {"name": "r1kit.tasks.public_requests:harmful", "split": "test"},
        {"name": "hub:openai/gsm8k:main", "split": "train+test[:5]"},
        {"name": "hub:HuggingFaceH4/aime_2024"},
        {"name": "somewhere/gsm8k/test.jsonl.gz"},
        {"name": "somewhere/mgsm/zh.jsonl.gz"},
    ],
)
def test_training_on_a_benchmark_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="for evaluation only"):
        load_tasks([TaskSpec(**spec)], training=True)


def test_a_link_to_a_benchmark_is_still_the_benchmark(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k" / "test.jsonl", {"question": "Q", "answer": "#### 1"})
    (tmp_path / "mine.jsonl").symlink_to(tmp_path / "gsm8k" / "test.jsonl")
    with pytest.raises(DataError, match="for evaluation only"):
        load_tasks([TaskSpec(name=str(tmp_path / "mine.jsonl"))], training=True)


def test_known_sets_are_found_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "gsm8k" / "train.jsonl", {"question": "Q", "answer": "#### 1"})
    write(tmp_path / "gsm8k" / "test.jsonl", {"question": "R", "answer": "#### 2"})
    by_option = [TaskSpec(name="gsm8k", data=tmp_path)]
    assert load_tasks(by_option, training=True)[0].id == "gsm8k/train/0"
    assert load_tasks(by_option, training=False)[0].id == "gsm8k/test/0"
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    assert load_known("gsm8k", "test")[0].answer == "2"
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(DataError, match=f"{DATA_VARIABLE} names"):
        load_known("gsm8k", "train")
    with pytest.raises(DataError, match="it has train, test"):
        load_known("gsm8k", "dev")


def test_offline_and_without_data_the_message_says_how_to_go_on() -> None:
    code = (
        "from r1kit.tasks import TaskSpec, load_task\n"
        "try: load_task(TaskSpec(name='gsm8k'))\nexcept ValueError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent", "PYTHONPATH": str(ROOT / "src")}
    environment.pop(DATA_VARIABLE, None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert "HF_HUB_OFFLINE is set" in done.stdout, done.stderr
    assert "gsm8k/train.jsonl.gz" in done.stdout and DATA_VARIABLE in done.stdout


def test_importing_tasks_loads_nothing_heavy() -> None:
    code = "import sys, r1kit.tasks; print([n for n in ('torch', 'datasets', 'pyarrow', 'numpy') if n in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_task_of_ones_own_is_found_by_module_and_function(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_task")
    module.make = lambda split, seed, size, step=1: numbers(f"{split}/{seed}/{step}", size)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "own_task", module)
    task = load_tasks([TaskSpec(name="own_task:make", limit=4, seed=7, options={"step": 2})], training=True)
    assert (task.name, len(task)) == ("train/7/2", 4)
    module.rows = lambda split, seed, size: [{"prompt": "1 + 1 = ?", "answer": "2"}]  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match=r"^own_task:rows returned a list, expected a Task: it has no name; r1kit"):
        load_task(TaskSpec(name="own_task:rows"))
    with pytest.raises(SettingsError, match="has no 'other'"):
        load_task(TaskSpec(name="own_task:other"))
    with pytest.raises(SettingsError, match=r"task 'no_such_module_here:make' cannot be imported.*PYTHONPATH"):
        load_task(TaskSpec(name="no_such_module_here:make"))


def test_the_example_prints_three_problems() -> None:
    script = ROOT / "examples" / "add_a_task.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("answer: ") == 3
    assert len(script.read_text().splitlines()) < 60


# Generators of reasoning-gym


def test_gym_seed_ranges_never_meet() -> None:
    ranges = [
        range(start, start + gym_module.STRIDE)
        for seed in (0, 1, 42, 43, gym_module.LAST_SEED)
        for split in gym_module.SPLITS
        for start in [gym_module.first_seed(split, seed, gym_module.STRIDE)]
    ]
    ranges.sort(key=lambda part: part.start)
    assert all(left.stop <= right.start for left, right in pairwise(ranges))
    assert ranges[-1].stop <= 2**32
    with pytest.raises(DataError, match="seed"):
        gym_module.first_seed("train", gym_module.LAST_SEED + 1, 10)


def test_gym_problems_are_checked_by_the_simplest_sound_verifier() -> None:
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    sums = load_tasks([TaskSpec(name="gym/chain_sum", limit=20, options={"max_terms": 3})], True)
    assert {problem.verifier for problem in iterate(sums)} == {"number"} and len(sums) == 20
    cipher = load_task(TaskSpec(name="gym/caesar_cipher", limit=2))
    assert cipher[0].verifier == "exact"
    countdown = load_task(TaskSpec(name="gym/countdown", limit=2))
    assert countdown[1].verifier == "reasoning_gym"
    assert json.loads(countdown[1].answer)["metadata"]["source_dataset"] == "countdown"
    assert countdown[1] == load_task(TaskSpec(name="gym/countdown", limit=9))[1]
    with pytest.raises(DataError, match="did you mean gym/countdown"):
        load_task(TaskSpec(name="gym/cuntdown"))
    with pytest.raises(DataError, match="options"):
        load_task(TaskSpec(name="gym/countdown", options={"nonsense": 1}))


# Real data


@needs_data
@pytest.mark.parametrize(
    ("name", "split", "size"),
    [
        ("gsm8k", "train", 7473),
        ("gsm8k", "test", 1319),
        ("math500", "test", 500),
        ("svamp", "test", 1000),
        ("aime24", "test", 30),
        ("amc23", "test", 40),
        ("math", "test", 5000),
        ("mgsm", "zh", 250),
    ],
)
def test_real_sets_load_whole(name: str, split: str, size: int) -> None:
    task = load_known(name, split, data=DATA)
    assert len(task) == size and not task.skipped
    if name in ("gsm8k", "svamp", "aime24", "amc23", "mgsm"):
        assert all(clean_number(problem.answer) == problem.answer for problem in iterate(task))


@needs_data
def test_math_training_rows_without_an_answer_are_left_out_and_kept_in_the_record() -> None:
    task = load_known("math", "train", data=DATA)
    assert len(task) + len(task.skipped) == 7474
    assert {error.kind for error in task.skipped} == {"empty answer"}


@needs_data
def test_all_of_mgsm_keeps_the_languages_level() -> None:
    task = load_known("mgsm", "test", data=DATA)
    assert len(task) == 2750
    assert len({problem.language for problem in task.problems[:11]}) == 11
    assert {problem.answer for problem in task.problems[:11]} == {"18"}


@needs_data
def test_the_answers_of_math500_are_the_boxes_of_its_solutions() -> None:
    task = load_known("math500", "test", data=DATA)
    equal = sum(boxed(problem.solution) == problem.answer for problem in iterate(task))
    assert equal >= 0.95 * len(task)


def test_every_benchmark_is_marked() -> None:
    trainable = {
        f"{name}/{split}"
        for name, known in KNOWN.items()
        for split, part in known.splits.items()
        if not part.evaluate_only
    }
    problems = ("gsm8k", "math", "mbpp", "numina-tir", "deepmath", "codeforces")
    assert trainable == {f"{name}/train" for name in (*problems, "openr1-math", "bespoke-stratos", "openthoughts")}
