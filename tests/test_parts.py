"""The recipes of one part: every command of the guide on the tiny model, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import r1kit
from r1kit.cli import main
from r1kit.data.jsonl import read_rows
from r1kit.recipes import build_recipe
from r1kit.settings import SettingsError
from r1kit.store import read_json

GUIDE = (Path(__file__).parents[1] / "docs" / "guides" / "parts.md").read_text(encoding="utf-8")
SCRIPT, JUDGE = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.strip().splitlines()]
RESULTS = {
    "evaluate": ["eval-base/results.json"],
    "sft": ["sft/model/model.safetensors", "eval-base/results.json", "eval-sft/results.json"],
    "rl": ["rl/model/model.safetensors", "eval-base/results.json", "eval-rl/results.json"],
    "rejection": ["rejection/kept.jsonl", "eval-base/results.json"],
    "reward-model": ["reward-model/model/model.safetensors", "reward-model/held_out.json"],
    "preferences": ["preferences/preferences.jsonl"],
    "distill": [
        "student-sft/model/model.safetensors",
        "student-logits/model/model.safetensors",
        "eval-teacher/results.json",
    ],
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's files, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    exec(compile(SCRIPT, "guide", "exec"), {})
    (tmp_path / "judge.py").write_text(JUDGE)
    return tmp_path


def test_the_guide_has_a_command_for_each_part() -> None:
    assert {shlex.split(command)[2] for command in COMMANDS} == set(RESULTS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_guide_runs_and_is_reported(
    files: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = shlex.split(command)[1:]
    if "eval=held_out.jsonl" in arguments:
        arguments += ["--set", "eval.samples=1", "--set", "eval.max_tokens=40"]
    assert main(arguments) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert (folder / "report.html").is_file() and (folder / "recipe.toml").is_file()
    for result in RESULTS[arguments[1]]:
        stage, _, name = result.partition("/")
        assert list(folder.parent.glob(f"{stage}-????????/{name}")), result
    assert main(["plan", str(folder / "recipe.toml"), "--json"]) == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"done"}
    if arguments[1] == "preferences":
        [pairs] = folder.parent.glob("preferences-*/preferences.jsonl")
        rows = list(read_rows(pairs))
        assert rows and all(len(row["chosen"]) < len(row["rejected"]) for row in rows)


def stages(recipe: str, **options: Any) -> dict[str, Any]:
    return {stage.name: stage for stage in build_recipe(recipe, model="tiny", **options).stages}


def test_sft_reads_columns_of_other_names_and_worked_solutions_of_a_set(files: Path, tmp_path: Path) -> None:
    columns = {"prompt": "question", "completion": "answer"}
    built = stages(
        "sft",
        data={"rows": [{"name": "problems.jsonl", "columns": columns}, {"name": "held_out.jsonl", "columns": columns}]},
    )
    assert built["sft"].settings.columns == columns
    assert [str(built["sft"].inputs[f"data/{number}"].path) for number in (0, 1)] == [
        str(tmp_path / name) for name in ("problems.jsonl", "held_out.jsonl")
    ]
    assert built["sft"].settings.chat.system and "eval-base" not in built  # the tiny model's own format
    with pytest.raises(SettingsError, match=r"data\.rows: its files differ in columns"):
        stages("sft", data={"rows": ["chats.jsonl", {"name": "problems.jsonl", "columns": columns}]})
    worked = {"name": "gsm8k", "limit": 5}
    built = stages("sft", data={"rows": [worked, {"name": "problems.jsonl", "columns": columns}]})
    assert built["traces"].settings.tasks[0].limit == 5 and built["sft"].settings.columns == columns


RENAMED = {"name": "problems.jsonl", "columns": {"prompt": "question"}}


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        ("sft", {}, r"recipe sft needs data: --data rows=\.\.\. \(conversations to train on\)"),
        ("reward-model", {}, "needs one kind of data: --data preferences=.* or safety="),
        ("rl", {"data": {"problem": "problems.jsonl"}}, "recipe rl has no data role 'problem': did you mean problems"),
        ("rl", {"data": {"problems": "problems.jsonl"}, "teacher": "tiny"}, "recipe rl does not take teacher"),
        ("sft", {"data": {"rows": {"name": "chats.jsonl", "column": {}}}}, r"data\.rows\.column: did you mean columns"),
        ("distill", {"data": {"traces": "chats.jsonl"}, "scale": "tiny"}, "leave out scale"),
        ("sft", {"data": {"rows": "chats.jsonl"}, "scale": "tiny"}, "recipe sft does not take scale"),
        ("sft", {"data": {"rows": "none.jsonl"}}, r"data\.rows: there is no file or known set"),
        ("sft", {"data": {"rows": "chats.jsonl", "validation": "gsm8k"}}, r"data\.validation: gsm8k is a set of pro"),
        ("sft", {"data": {"rows": "chats.jsonl", "validation": RENAMED}}, r"data\.validation: columns would have no"),
        ("preferences", {"data": {"requests": RENAMED}}, r"data\.requests: columns would have no effect"),
        ("preferences", {"data": {"rows": "gsm8k"}}, r"data\.rows: gsm8k is a set of problems"),
        ("rl", {"data": {"problems": {"name": "gsm8k", "split": "test"}}}, "which is for evaluation only"),
        ("distill", {"data": {"traces": "chats.jsonl"}, "teacher": "smollm2-135m"}, "have different tokens"),
    ],
)
def test_a_part_says_what_it_needs(files: Path, recipe: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stages(recipe, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rl", "problems=problems.jsonl", "problems=held_out.jsonl"), "--data problems is given twice: give one list"),
        (("rl", "problems=problems.csv"), "read_csv(FILE).to_json('rows.jsonl', orient='records', lines=True)"),
        (("sft", "rows=problems.jsonl"), "row 1: the row's fields are question, answer: expected messages, or one of"),
        (("sft", "rows=asked.jsonl"), "the first rows have no reply to learn from; problems with references are for"),
        (("rl", "problems=empty.jsonl", "--hardware", "h100"), "empty.jsonl: the file has no rows"),
    ],
)
def test_a_plan_reads_the_files_that_it_is_given(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], message: str
) -> None:
    (files / "problems.csv").write_text("question,answer\n1+1,2\n")
    (files / "empty.jsonl").write_text("")
    (files / "asked.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "say a"}]}) + "\n")
    recipe, *rest = arguments
    rest = [part for each in rest for part in (("--data", each) if "=" in each else (each,))]
    assert main(["plan", recipe, "--model", "tiny", *rest, "--runs", "other"]) == 1
    assert message in capsys.readouterr().err


def test_a_part_without_a_model_is_refused(files: Path) -> None:
    with pytest.raises(SettingsError, match="recipe evaluate needs a model"):
        build_recipe("evaluate", data={"eval": "held_out.jsonl"})


def test_a_judge_of_ones_own_takes_the_place_of_the_model(files: Path) -> None:
    own = stages(
        "preferences",
        data={"requests": "requests.jsonl"},
        overrides={"preferences.judge": {"kind": "custom", "model": "x", "path": "judge:Shorter"}},
    )
    assert "judge" not in own["preferences"].inputs
    assert "judge" in stages("preferences", data={"rows": "chats.jsonl"}, teacher="tiny-half")["preferences"].inputs


def test_stored_logits_stand_in_for_the_teacher(files: Path) -> None:
    (files / "stored" / "logits").mkdir(parents=True)
    built = stages("distill", data={"traces": "chats.jsonl", "logits": "stored/logits"})
    assert str(built["student-logits"].inputs["logits"].path) == str(files / "stored" / "logits")
    assert "student-logits" not in stages("distill", data={"traces": "chats.jsonl"})


def test_a_part_that_stopped_goes_on(files: Path) -> None:
    options: dict[str, Any] = {"model": "tiny", "data": {"rows": "chats.jsonl"}, "overrides": {"sft.epochs": 1}}
    r1kit.run("sft", **options, until="sft")
    assert [row.status for row in r1kit.plan("sft", **options)] == ["done", "run"]
    assert read_json(next((files / "runs" / "sft").glob("sft-*/manifest.json")))["metrics"]["samples"] == 48


def test_a_part_can_be_rehearsed(files: Path) -> None:
    built = stages("rl", data={"problems": "problems.jsonl"}, rehearse=True)
    assert list(built) == ["rehearsal", "rl", "report"] and built["rl"].settings.steps == 2
    assert built["rehearsal"].settings.tasks[0].name == str(files / "problems.jsonl")
