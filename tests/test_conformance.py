"""The conformance kit: what our verifiers and rewards make of its cases, and the commands verify and score."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1kit import cli, conformance
from r1kit.commands import verify_command
from r1kit.data.jsonl import read_rows
from r1kit.sandbox import SandboxError
from r1kit.store import write_text
from r1kit.verifiers import extract, verify_all

OWN = '''
from r1kit.types import Verdict

def parrot(response, reference):
    """Takes every answer that holds the reference somewhere."""
    return reference in response

def strict(response, reference):
    return Verdict.of(response == f"<answer>{reference}</answer>", detail="same text")

def breaks(response, reference):
    raise RuntimeError("no connection")

def scores(completions, solution, **columns):
    return [1.0 if answer in text else 0.0 for text, answer in zip(completions, solution)]

def speaks(response, reference):
    return "yes"

number = 7
'''
SOLVED = "<think>\n2 + 2 is 4.\n</think>\n<answer>\n4\n</answer>"


def write(path: Path, rows: list[Any]) -> Path:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of a user's own verifiers on the path."""
    (tmp_path / "graders.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


# The cases


@pytest.mark.parametrize("name", conformance.CASES)
def test_a_verifier_takes_no_wrong_answer_and_nearly_every_right_one(name: str) -> None:
    if reason := conformance.obstacle(name):
        pytest.skip(reason)
    report = conformance.measure(name)
    assert report.false_positives.count == 0, report.failures
    assert report.false_negatives.share <= 0.02, report.failures
    assert report.false_positives.of and report.false_negatives.of


def test_math_has_hundreds_of_cases_of_every_kind() -> None:
    cases = conformance.cases("math")
    assert len(cases) >= 300
    kinds = Counter(case.kind for case in cases)
    for kind in (
        "unicode",
        "units",
        "sign",
        "separators",
        "money",
        "percent",
        "mixed",
        "scientific",
        "set",
        "tuple",
        "interval",
        "matrix",
        "equation",
        "injection",
        "hedge",
        "extraction",
        "unusable",
        "huge",
    ):
        assert kinds[kind] >= 5, kind


def test_no_case_is_there_twice_or_with_two_labels() -> None:
    for name in conformance.CASES:
        count = Counter((case.prediction, case.answer) for case in conformance.cases(name))
        assert not [pair for pair, times in count.items() if times > 1]


def test_every_reward_gives_the_value_of_its_formula() -> None:
    reports = conformance.measure_rewards()
    assert [report.failures for report in reports] == [()] * len(reports)
    assert {report.name for report in reports} >= {
        "accuracy",
        "format",
        "tag_count",
        "reasoning_steps",
        "cosine_scaled",
        "repetition_penalty",
        "language_consistency",
        "soft_overlong",
        "graded_language",
        "reasoning_quality",
    }
    with pytest.raises(ValueError, match="did you mean format"):
        conformance.measure_rewards(["formt"])


def test_a_verifier_that_cannot_work_here_is_left_out_and_the_reason_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1kit.sandbox.choose._opened", SandboxError("there is none"))
    monkeypatch.setattr(verify_command, "CASES", ("exact", "code"))
    monkeypatch.setattr(verify_command, "measure_rewards", list)
    found, text, good = verify_command.conformance()
    assert [one["name"] for one in found["verifiers"]] == ["exact"] and good
    assert found["skipped"] == {"code": "there is none"} and text.endswith("code is not measured: there is none")


def test_a_rate_has_its_wilson_interval_and_none_without_cases() -> None:
    rate = conformance.Rate.among(0, 100)
    assert rate.share == 0.0 and rate.low == pytest.approx(0.0) and rate.high == pytest.approx(0.0370, abs=1e-4)
    assert conformance.Rate.among(0, 0) == conformance.Rate(count=0, of=0, low=None, high=None)


@given(st.integers(1, 500).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_the_interval_holds_the_rate(counts: tuple[int, int]) -> None:
    rate = conformance.Rate.among(*counts)
    assert rate.low is not None and rate.high is not None
    assert 0.0 <= rate.low <= rate.share + 1e-12 and rate.share - 1e-12 <= rate.high <= 1.0


# Verifiers of others


@pytest.mark.usefixtures("own")
def test_a_verifier_by_dotted_path_is_measured_and_a_bad_one_fails() -> None:
    parrot = conformance.measure("graders:parrot")
    assert not parrot.ok and parrot.false_positives.count > 100
    strict = conformance.measure("graders.strict", "exact")
    assert strict.false_positives.count == 0 and strict.false_negatives.share > 0.3 and not strict.ok
    reward = conformance.measure("graders:scores")
    assert reward.false_positives.count == parrot.false_positives.count


@pytest.mark.usefixtures("own")
def test_a_verifier_that_raises_or_returns_anything_is_a_finding_and_no_crash() -> None:
    for name, reason in (("graders:breaks", "RuntimeError: no connection"), ("graders:speaks", "returned str")):
        report = conformance.measure(name, "exact")
        assert not report.ok and report.false_positives.count == 0
        assert report.cannot_tell and all(reason in failure.detail for failure in report.failures)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("maths", "did you mean math"),
        ("graders:nothing", "cannot be imported.*nothing"),
        ("no_such_module:f", "cannot be imported"),
        ("graders:number", "is an int: expected a function"),
        (":f", "is not a dotted path"),
    ],
)
def test_a_verifier_that_is_not_there_is_an_error_that_says_so(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        conformance.measure(name)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prediction": 4, "answer": "4", "correct": True}, "'prediction' is 4: expected text"),
        ({"prediction": "4", "correct": True}, "'answer' is None: expected text"),
        ({"prediction": "4", "answer": "4"}, "'correct' is None: expected true, false or null"),
        ({"prediction": "4", "answer": "4", "correct": "yes"}, "'correct' is 'yes'"),
    ],
)
def test_own_cases_that_are_none_are_an_error_with_file_and_line(row: Any, reason: str, tmp_path: Path) -> None:
    good = {"prediction": "4", "answer": "4", "correct": True}
    file = write(tmp_path / "cases.jsonl", [good, row])
    with pytest.raises(ValueError, match=f"cases.jsonl, case 2: field {reason}"):
        conformance.measure("number", file)


def test_a_file_without_cases_is_an_error_and_no_success(tmp_path: Path) -> None:
    (tmp_path / "cases.jsonl").touch()
    with pytest.raises(ValueError, match="has no cases"):
        conformance.measure("number", tmp_path / "cases.jsonl")


# r1kit verify --conformance


def test_conformance_as_a_command_prints_rates_and_gives_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "--conformance", "--verifier", "exact"]) == 0
    printed = capsys.readouterr().out
    assert "wrong judged right (95 %)" in printed and "exact" in printed
    assert cli.main(["verify", "--conformance", "--verifier", "exact", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (report,) = found["verifiers"]
    assert report["name"] == "exact" and report["ok"] and report["false_positives"]["count"] == 0
    assert report["false_positives"]["high"] < 0.2


@pytest.mark.usefixtures("own")
def test_conformance_of_a_bad_verifier_has_status_1_and_names_the_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        {"kind": "sign", "prediction": "-14", "answer": "14", "correct": False},
        {"kind": "plain", "prediction": "14", "answer": "14", "correct": True},
    ]
    file = write(tmp_path / "cases.jsonl", cases)
    assert cli.main(["verify", "--conformance", "--verifier", "graders:parrot", "--cases", str(file)]) == 1
    printed = capsys.readouterr().out
    assert "1/1 = 100.0%" in printed and "cases:1 (sign): '-14' for '14' is wrong, judged right" in printed
    assert cli.main(["verify", "--conformance", "--verifier", "number", "--cases", str(file)]) == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "FILE and --verifier"),
        (["--conformance", "rows.jsonl"], "leave out FILE"),
        (["--conformance", "--cases", "math"], "name the verifier"),
        (["--conformance", "--verifier", "math", "--cases", "nothing"], "there are no cases 'nothing'"),
        (["--conformance", "--verifier", "mth"], "did you mean math"),
        (["rows.jsonl", "--verifier", "mth"], "did you mean math"),
        (["rows.jsonl", "--verifier", "math"], "rows.jsonl"),
        (["rows.jsonl"], "FILE and --verifier"),
        (["--conformance", "--verifier", "os:system"], "neither takes (response, reference) nor is"),
    ],
)
def test_verify_refuses_what_it_cannot_do(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["verify", *arguments]) != 0
    printed = capsys.readouterr()
    assert reason in printed.err and "Traceback" not in printed.err and not printed.out


# r1kit verify FILE


def test_verify_gives_each_row_its_verdict_and_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prediction": SOLVED, "answer": "4", "id": 7},
        {"prediction": "4.0", "answer": 4},
        {"prediction": 5, "answer": "4"},
        {"prediction": None, "answer": "4"},
        {"prediction": "4", "answer": "\\frac{"},
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    assert cli.main(["verify", str(file), "--verifier", "math"]) == 0
    printed = capsys.readouterr()
    judged = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["correct"] for row in judged] == [True, True, False, False, None]
    assert judged[0]["id"] == 7 and judged[0]["extracted"] == "4" and all(row["detail"] for row in judged)
    assert "5 rows by math: 2 right, 2 wrong, 1 cannot tell; right 50.0%" in printed.err
    out = tmp_path / "judged.jsonl"
    assert cli.main(["verify", str(file), "--verifier", "math", "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["right"], summary["wrong"], summary["unknown"], summary["share"]) == (2, 2, 1, 0.5)
    assert list(read_rows(out)) == judged
    assert cli.main(["verify", str(file), "--verifier", "math", "--out", str(out)]) != 0
    assert "already contains rows" in capsys.readouterr().err


def test_a_prediction_that_is_no_text_is_wrong_and_the_file_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = [True, ["4"], {"text": "4"}, None, float("nan")]
    rows = [{"prediction": one, "answer": "4"} for one in [*odd, "4"]] + [{"prediction": ["4"], "answer": ""}]
    for verifier in ("number", "math"):
        assert cli.main(["verify", str(write(tmp_path / "rows.jsonl", rows)), "--verifier", verifier]) == 0
        judged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["correct"] for row in judged] == [False] * len(odd) + [True, None]
        assert judged[1]["detail"] == "not text: ['4']" and "not text" in judged[0]["detail"]


def test_verify_takes_a_puzzle_as_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"prediction": "(7 - 5) * 3", "answer": {"numbers": [3, 5, 7], "target": 6}}
    assert cli.main(["verify", str(write(tmp_path / "rows.jsonl", [row])), "--verifier", "countdown"]) == 0
    assert json.loads(capsys.readouterr().out)["correct"] is True


@pytest.mark.parametrize(
    ("command", "line", "reason"),
    [
        ("verify", '{"answer": "4"}', "no field 'prediction'"),
        ("verify", '{"prediction": "4"}', "no field 'answer'"),
        ("verify", '{"prediction": "4", "answer": true}', "expected text or a number"),
        ("verify", '{"prediction": "4", "answer": NaN}', "expected a finite number"),
        ("verify", '{"prediction": ', "JSON"),
        ("verify", "7", "object"),
        ("score", '{"answer": "4"}', "no field 'completion'"),
        ("score", '{"completion": 4}', "expected text or messages"),
        ("score", '{"completion": [4]}', "expected text or messages"),
        ("score", '{"completion": ', "JSON"),
        ("score", "7", "object"),
    ],
)
def test_a_bad_row_is_named_with_file_and_number(
    command: str, line: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    write_text(file, '{"prediction": "4", "completion": "4", "answer": "4"}\n' + line + "\n")
    kind = ["--verifier", "number"] if command == "verify" else ["--rewards", "format"]
    assert cli.main([command, str(file), *kind]) != 0
    printed = capsys.readouterr().err
    assert "rows.jsonl" in printed and "2" in printed and reason in printed and "Traceback" not in printed


# r1kit score FILE


def test_score_gives_each_completion_its_rewards_by_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"completion": SOLVED, "solution": "4"},
        {"completion": "4", "solution": "4"},
        {"completion": [{"role": "assistant", "content": SOLVED}], "solution": "5"},
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    assert cli.main(["score", str(file), "--rewards", "accuracy,format"]) == 0
    printed = capsys.readouterr()
    scored = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["rewards"] for row in scored] == [
        {"accuracy": 1.0, "format": 1.0},
        {"accuracy": 0.0, "format": 0.0},
        {"accuracy": 0.0, "format": 1.0},
    ]
    assert [row["total"] for row in scored] == [2.0, 0.0, 1.0]
    assert "accuracy" in printed.err and "0.3333" in printed.err
    out = tmp_path / "scored.jsonl"
    assert cli.main(["score", str(file), "--rewards", "accuracy,format", "--out", str(out), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows"] == 3 and summary["means"]["total"] == pytest.approx(1.0)
    assert list(read_rows(out)) == scored


@pytest.mark.usefixtures("own")
def test_score_takes_settings_weights_and_rewards_by_dotted_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "rows.jsonl", [{"completion": SOLVED, "solution": "4"}])
    settings = ["--set", "accuracy.verifier=exact", "--set", "accuracy.weight=0.5"]
    assert cli.main(["score", str(file), "--rewards", "accuracy,graders:scores", *settings]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["total"] == 1.5 and sorted(row["rewards"].values()) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("verifier", ["math"], "column 'verifier'"),
        ("verifier", "os:system", "there is no verifier 'os:system'"),
        ("log_metric", 1, "column 'log_metric'"),
        ("completions", "4", "column 'completions'"),
        ("completion", [{"role": "assistant", "content": [{"type": "image"}]}], "expected text, or parts"),
    ],
)
def test_score_names_a_column_that_cannot_be_meant(
    field: str, value: Any, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path / "rows.jsonl", [{"completion": SOLVED, "answer": "4", "default_verifier": "x"} | {field: value}]
    )
    assert cli.main(["score", str(file), "--rewards", "accuracy"]) == 2
    printed = capsys.readouterr().err
    assert reason in printed and "rows.jsonl, row 1" in printed and "Traceback" not in printed


def test_score_takes_completions_in_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = [{"type": "text", "text": SOLVED}]
    file = write(tmp_path / "rows.jsonl", [{"completion": [{"role": "assistant", "content": content}], "answer": 4}])
    assert cli.main(["score", str(file), "--rewards", "accuracy"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == 1.0


@pytest.mark.parametrize(
    ("rewards", "extra", "reason"),
    [
        ("acuracy", [], "did you mean accuracy"),
        ("[{", [], "--rewards is not valid JSON"),
        ("", [], "reward"),
        ("format", ["--set", "accuracy.weight=2"], "there is no reward 'accuracy'"),
        ("accuracy", ["--set", "accuracy.verifer=math"], "verifer"),
        ("accuracy", ["--set", "accuracy.verifier=mth"], "math"),
        ("no_such_module:f", [], "no_such_module"),
        ("os:system", [], "built into Python"),
    ],
)
def test_score_refuses_rewards_that_are_none(
    rewards: str, extra: list[str], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "rows.jsonl", [{"completion": SOLVED, "solution": "4"}])
    assert cli.main(["score", str(file), "--rewards", rewards, *extra]) == 2
    printed = capsys.readouterr()
    assert reason in printed.err and "Traceback" not in printed.err and not printed.out


def test_a_reference_is_never_wrong_for_itself() -> None:
    for name in set(conformance.CASES) - {"countdown", "code", "ifeval"}:
        references = sorted({case.answer for case in conformance.cases(name)})
        responses = [f"<answer>{extract.reference(one)}</answer>" for one in references]
        assert not [one for one in verify_all(name, responses, references) if one.correct is False], name
