"""The recipe r1-zero through the command line: it runs, resumes after a kill, redoes what changed, and refuses bad
input."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from r1kit.cli import main
from r1kit.pipeline import plan
from r1kit.recipes import RECIPES
from r1kit.settings import SettingsError

SMALL = {
    "rl.steps": "4", "rl.prompts_per_step": "3", "rl.group_size": "4", "rl.max_tokens": "16", "rl.rollouts_every": "2",
    "rl.checkpoint_every": "1", "eval.max_tokens": "16", "eval.samples": "2",
    "eval.tasks": '[{"name": "tiny/sums", "limit": 6}]',
}  # fmt: skip


def arguments(model: Path, runs: Path, **changes: str) -> list[str]:
    settings = SMALL | {name.replace("__", "."): value for name, value in changes.items()}
    pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return ["r1-zero", "--model", str(model), "--runs", str(runs), *pairs]


def statuses(capsys: pytest.CaptureFixture[str], wanted: list[str]) -> dict[str, str]:
    capsys.readouterr()
    assert main(["plan", *wanted, "--json"]) == 0
    return {row["stage"]: row["status"] for row in json.loads(capsys.readouterr().out)}


def test_r1_zero_runs_and_a_second_run_has_nothing_to_do(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = arguments(tiny_policy_folder, tmp_path)
    assert main(["run", *wanted]) == 0
    *table, folder = capsys.readouterr().out.splitlines()
    assert any(line.startswith("pass@1") and "difference" in table[0] for line in table)
    summary = json.loads((Path(folder) / "summary.json").read_text())
    assert list(summary["tables"][0]["columns"]) == ["base", "zero"]
    assert (Path(folder) / "report.html").stat().st_size > 10_000
    assert set(statuses(capsys, wanted).values()) == {"done"}


def test_a_changed_setting_redoes_exactly_what_depends_on_it(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments(tiny_policy_folder, tmp_path)]) == 0
    changed = statuses(capsys, arguments(tiny_policy_folder, tmp_path, rl__algorithm="dapo"))
    assert changed == {"eval-base": "done", "rl": "run", "eval-zero": "run", "report": "run"}
    same = statuses(capsys, arguments(tiny_policy_folder, tmp_path, rl__rollouts_every="3"))
    assert set(same.values()) == {"done"}


def test_killed_in_the_middle_it_goes_on_from_its_checkpoint(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = arguments(tiny_policy_folder, tmp_path, rl__steps="100")
    child = subprocess.Popen([sys.executable, "-m", "r1kit", "run", *wanted], stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:  # a line a second, so there are checkpoints by the first that is not 0/100
        if re.search(r"rl: +[1-9]\d*/100", line):
            break
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert statuses(capsys, wanted)["rl"] == "resume"
    assert main(["run", *wanted]) == 0
    assert "goes on from step" in capsys.readouterr().err
    rows = [json.loads(line) for line in next(tmp_path.glob("*/rl-*/metrics.jsonl")).read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 101))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rl__group_size": "1"}, "group_size"),
        ({"rl__rewards": "acuracy"}, "did you mean 'accuracy'"),
        ({"rl__learning_rate": "1"}, "no setting learning_rate"),
        ({"rl__max_tokens": "2000"}, "lower max_tokens"),
        ({"rl__tasks": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"rl__tasks": "svamp"}, "evaluation only"),
        ({"rl__chat.template": "chat"}, "no chat template"),
    ],
)
def test_bad_settings_are_refused_with_one_message(
    tiny_policy_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    message: str,
) -> None:
    assert main(["run", *arguments(tiny_policy_folder, tmp_path, **changes)]) == 1
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no rows"), ('{"question": "1+1?"}\n', "answer"), ('{"question": "1+1?", "answer": "2"', "row 1")],
)
def test_bad_data_is_refused_before_work(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(content)
    assert main(["run", *arguments(tiny_policy_folder, tmp_path / "runs", rl__tasks=str(file))]) == 1
    error = capsys.readouterr().err
    assert message in error and "rows.jsonl" in error and "Traceback" not in error
    assert not list(tmp_path.glob("runs/*/eval-base-*/manifest.json"))


def test_a_model_without_tokenizer_is_refused(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_policy_folder, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    assert main(["run", *arguments(bare, tmp_path / "runs")]) == 1
    assert "tokenizer" in capsys.readouterr().err


def test_data_that_changed_is_trained_on_again(
    tiny_policy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n}+1=?", "answer": str(n + 1)}) + "\n" for n in range(5)))
    wanted = arguments(tiny_policy_folder, tmp_path / "runs", rl__tasks=str(file))
    assert main(["run", *wanted]) == 0
    with file.open("a") as more:
        more.write('{"question": "9+1=?", "answer": "10"}\n')
    assert statuses(capsys, wanted) == {"eval-base": "done", "rl": "run", "eval-zero": "run", "report": "run"}


def test_a_wrong_item_of_a_list_is_one_line() -> None:
    with pytest.raises(SettingsError, match="there is no reward 'accurcy'") as caught:
        RECIPES["r1-zero"](overrides={"rl.rewards": "accurcy"})
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="width is 33 and heads 4"):
        RECIPES["tiny-base"](overrides={"pretrain.width": 33})


R1_ORDER = [
    "zero", "cold-start", "dev1", "dev2", "rejection", "requests", "general", "mix", "dev3", "rules", "helpfulness",
    "safety", "r1",
]  # fmt: skip
MODELS = ["base", "zero", "dev1", "dev2", "dev3", "r1"]


def test_r1_is_the_papers_graph() -> None:
    recipe = RECIPES["r1"]()
    stages = {stage.name: stage for stage in recipe.stages}
    measured = [f"{kind}-{model}" for kind in ("eval", "everyday") for model in MODELS]
    assert list(stages) == [*R1_ORDER, *measured, "report"]
    read = {name: [parent.name for parent in stage.parents] for name, stage in stages.items()}
    assert read["dev1"] == ["cold-start"] and read["dev3"] == ["mix"]  # both from the base
    assert read["cold-start"] == ["zero"] and read["rejection"] == ["dev2"] and read["mix"] == ["rejection", "general"]
    assert read["r1"] == ["rules", "helpfulness", "safety"] and read["rules"] == ["dev3"]
    assert all(stages[f"eval-{model}"].settings == stages["eval-base"].settings for model in MODELS)


def folders(overrides: dict[str, str], runs: Path, seed: int = 0) -> dict[str, str]:
    return {row.stage.name: row.folder.name for row in plan(RECIPES["r1"](overrides=overrides, seed=seed), runs)}


def test_a_changed_setting_in_the_middle_of_r1_redoes_exactly_what_depends_on_it(tmp_path: Path) -> None:
    before = folders({}, tmp_path)

    def redone(change: dict[str, str]) -> set[str]:
        return {name for name, folder in folders(change, tmp_path).items() if folder != before[name]}

    last = {"rules", "r1", "eval-dev3", "eval-r1", "everyday-dev3", "everyday-r1", "report"}
    assert redone({"mix.size": "100"}) == {"mix", "dev3", *last}
    assert redone({"dev2.steps": "3"}) == {"dev2", "rejection", "mix", "dev3", "eval-dev2", "everyday-dev2", *last}
    assert redone({"safety.epochs": "5"}) == {"safety", "r1", "eval-r1", "everyday-r1", "report"}
    assert redone({"eval.samples": "2"}) == {*(f"eval-{model}" for model in MODELS), "report"}
    assert redone({"r1.checkpoint_every": "3"}) == set()
    assert {"requests", "eval-base", "everyday-base"} == set(before) - {
        name for name, folder in folders({}, tmp_path, seed=1).items() if folder != before[name]
    }


def test_r1_names_its_stages_and_scales() -> None:
    with pytest.raises(SettingsError, match=r"did you mean cold-start\.samples"):
        RECIPES["r1"](overrides={"cold_start.samples": "2"})
    with pytest.raises(SettingsError, match="no scale 'huge': give one of tiny"):
        RECIPES["r1"](scale="huge")
