"""The command line: quick help, clear errors, results on stdout, exit statuses."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from r1kit import cli, recipes
from r1kit.cli.values import engine, setting
from r1kit.commands import eval_command, generate_command
from r1kit.pipeline import Context, External, Kind, Recipe, Stage, Stopped
from r1kit.settings import Settings
from r1kit.store import write_json
from r1kit.types import SamplingParams


class Toy(Settings):
    size: int = 1
    seed: int = 0


def summarise(context: Context) -> Mapping[str, Any]:
    write_json(context.folder / "summary.json", {"table": "accuracy  11 %  98 %", "size": context.settings.size})
    (context.folder / "report.html").write_text("<html>")
    return {}


def explode(context: Context) -> Mapping[str, Any]:
    errors: dict[str, BaseException] = {"value": ValueError("bad data"), "bug": KeyError("oops"), "stop": Stopped(15)}
    errors |= {"exit": SystemExit(0)}
    errors |= {"nan": FloatingPointError("the gradient is nan"), "io": OSError(28, "No space left on device")}
    raise errors[context.input("how").read_text()]


def toy(*, scale: str = "tiny", model: str | None = None, overrides: Mapping[str, Any], seed: int = 0) -> Recipe:
    changes = {name.removeprefix("report."): value for name, value in overrides.items()}
    settings = Toy(seed=seed).override(changes)
    return Recipe("toy", (Stage("report", Kind(name="toy", run=summarise, settings=Toy), settings),))


@pytest.fixture(autouse=True)
def toy_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    def broken(*, overrides: Mapping[str, Any], seed: int) -> Recipe:
        kind = Kind(name="broken", run=explode, settings=Settings)
        return Recipe("broken", (Stage("boom", kind, Settings(), {"how": External(Path("how"))}),))

    monkeypatch.setattr(recipes, "RECIPES", {"toy": toy, "r1-zero": toy, "broken": broken})
    monkeypatch.chdir(tmp_path)
    yield


def test_run_prints_the_table_and_its_last_line_is_the_runs_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "toy"]) == 0
    *_, table, page, folder = capsys.readouterr().out.splitlines()
    assert table == "accuracy  11 %  98 %"
    assert page == f"report: {folder}/report.html"
    assert (Path(folder) / "summary.json").exists()
    assert folder.startswith("runs/toy/report-")


def test_run_as_json_prints_nothing_else_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "toy", "--json", "--set", "report.size=7", "--seed", "3"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["summary"]["size"] == 7
    manifest = json.loads((Path(printed["folder"]) / "manifest.json").read_text())
    assert manifest["seed"] == 3


def test_plan_tells_status_and_reason_as_text_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "toy"]) == 0
    heading, row, left = capsys.readouterr().out.splitlines()
    assert heading.split() == ["stage", "model", "status", "why", "folder"]
    assert row.split()[:4] == ["report", "run", "never", "run"] and left == "1 of 1 stages to do"
    cli.main(["run", "toy"])
    capsys.readouterr()
    assert cli.main(["plan", "toy"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to do"
    assert cli.main(["plan", "toy", "--set", "report.size=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["why"] == "size 1 -> 2"


def test_report_finds_the_newest_run_in_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli.main(["run", "toy"])
    capsys.readouterr()
    assert cli.main(["report", "runs/toy", "--json"]) == 0
    folder = json.loads(capsys.readouterr().out)["folder"]
    assert cli.main(["report", folder]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "accuracy  11 %  98 %"
    assert cli.main(["report", str(tmp_path / "none")]) == 1
    assert "is not a finished run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "r1zero"], "there is no recipe 'r1zero': did you mean r1-zero?"),
        (["run", "qqq"], "there is no recipe 'qqq': known are toy, r1-zero, broken"),
        (["run", "toy", "--set", "report.sizee=3"], "there is no setting sizee: did you mean size?"),
        (["run", "toy", "--until", "reprot"], "recipe toy has no stage 'reprot': did you mean report?"),
        (["run", "broken", "--model", "m", "--scale", "s"], "recipe broken does not take scale or model: leave it out"),
        (["run", "broken"], "input 'how' of stage boom: there is no file or folder how"),
    ],
)
def test_what_a_user_can_mend_is_one_message_and_status_1(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert f"r1kit: error: {message}" in error
    assert "Traceback" not in error


def test_a_failing_stage_is_named_and_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "how").write_text("value")
    assert cli.main(["run", "broken"]) == 1
    error = capsys.readouterr().err
    assert "r1kit: error: bad data\nin stage boom (runs/broken/boom-" in error
    assert "Traceback" not in error
    assert cli.main(["run", "broken", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ("nan", "the gradient is nan"),
        ("io", "No space left"),
        ("exit", "sys.exit(0) and ended the command\nin stage boom"),
    ],
)
def test_a_diverged_training_and_a_failing_disk_are_no_bugs_of_ours(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, trouble: str, message: str
) -> None:
    (tmp_path / "how").write_text(trouble)
    assert cli.main(["run", "broken"]) == 1
    assert message in capsys.readouterr().err


def test_output_that_cannot_be_written_is_told_and_text_that_cannot_be_shown_is_replaced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_json(tmp_path / "summary.json", {"table": "accuracy \N{GREEK SMALL LETTER ALPHA}"})
    page = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", page)
    assert cli.main(["report", str(tmp_path)]) == 0
    page.seek(0)
    assert page.readline() == "accuracy ?\n"

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_a_summary_of_something_else_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_json(tmp_path / "summary.json", {"tables": []})
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "has no table" in capsys.readouterr().err


def test_a_bug_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "how").write_text("bug")
    with pytest.raises(KeyError, match="oops"):
        cli.main(["run", "broken"])


def test_a_stopped_run_says_how_to_go_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "how").write_text("stop")
    assert cli.main(["run", "broken", "--seed", "1"]) == 128 + 15
    error = capsys.readouterr().err
    assert "stopped by SIGTERM" in error
    assert error.splitlines()[-1] == "finished work is kept; to resume: r1kit run broken --seed 1"


def test_a_stopped_export_does_not_say_that_anything_is_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("stopped by SIGTERM")

    monkeypatch.setattr("r1kit.export.export", stopped)
    assert cli.main(["export", "tiny", "--to", "hub-folder", "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.strip() == "stopped by SIGTERM"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["runn"],
        ["run"],
        ["run", "toy", "--set", "size=3"],
        ["run", "toy", "--set", "report.size"],
        ["run", "toy", "--set", "report.size=[1"],
        ["eval", "tiny"],
        ["generate", "tiny"],
        ["generate", "tiny", "--prompt", "x", "--task", "y"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: r1kit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["eval", "tiny", "--task", "gsm8k", "--samples", "0"], "--samples: '0' is not a whole number of at least 1"),
        (["eval", "tiny", "--task", "gsm8k", "--limit", "0"], "--limit: '0' is not a whole number of at least 1"),
        (["chat", "tiny", "--max-tokens", "many"], "--max-tokens: 'many' is not a whole number of at least 1"),
        (["data", "show", "a.jsonl", "--model", "tiny", "--rows", "0"], "--rows: '0' is not a whole number of at"),
        (["plan", "toy", "--seed", "-1"], "--seed: '-1' is not a whole number of at least 0"),
    ],
)
def test_a_number_below_its_least_is_refused_by_the_name_of_its_option(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert f"error: argument {message}" in capsys.readouterr().err


def test_a_seed_below_0_in_a_recipe_file_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('recipe = "toy"\nseed = -1\n')
    assert cli.main(["plan", str(tmp_path / "own.toml")]) == 1
    assert "seed is -1: give at least 0" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--debug", "plan", "qqq"], ["plan", "qqq", "--debug"], ["plan", "qqq"]])
def test_debug_stands_before_or_behind_the_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 1
    assert ("Traceback" in capsys.readouterr().err) == ("--debug" in arguments)


def test_settings_on_the_command_line_are_text_unless_they_are_json() -> None:
    assert setting("rl.learning_rate=1e-4") == ("rl.learning_rate", "1e-4")
    assert setting('rl.a.b={"x": [1]}') == ("rl.a.b", {"x": [1]})
    assert setting("rl.limit=null") == ("rl.limit", None)
    assert setting("rl.text=a=b") == ("rl.text", "a=b")


def test_an_engine_is_an_address_json_or_a_file(tmp_path: Path) -> None:
    settings = {"kind": "openai", "base_url": "http://x/v1", "api_key_env": "KEY"}
    (tmp_path / "engine.json").write_text(json.dumps(settings))
    assert engine("http://x/v1") == {"kind": "openai", "base_url": "http://x/v1"}
    assert engine(json.dumps(settings)) == engine(str(tmp_path / "engine.json")) == settings
    assert engine("my.engines:Adder") == {"kind": "custom", "path": "my.engines:Adder"}
    for text, message in (("{", "not valid JSON"), ("nowhere", "expected an address, module:Class, JSON or a file")):
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            engine(text)


def test_an_engine_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text('{"model": "tiny"}', encoding="utf-8-sig")
    assert engine(str(tmp_path / "engine.json")) == {"model": "tiny"}


def test_eval_and_generate_hand_over_what_was_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[dict[str, Any]] = []

    def evaluate(model: str, **asked: Any) -> dict[str, Any]:
        calls.append(asked)
        return {"table": "a table", "pass@1": 0.5}

    def generate(model: str, **asked: Any) -> Iterator[dict[str, Any]]:
        calls.append(asked)
        yield {"completion": "four", "sample": 0}

    monkeypatch.setattr(eval_command, "evaluate", evaluate)
    monkeypatch.setattr(generate_command, "generate", generate)
    assert cli.main(["eval", "tiny", "--task", "gsm8k", "--samples", "4", "--temperature", "0.6"]) == 0
    assert calls[0]["sampling"] == SamplingParams(n=4, temperature=0.6, max_tokens=512)
    assert cli.main(["eval", "tiny", "--task", "gsm8k", "--json"]) == 0
    assert cli.main(["generate", "tiny", "--prompt", "2 + 2?"]) == 0
    assert cli.main(["generate", "tiny", "rows.jsonl"]) == 0
    assert (calls[2]["prompt"], calls[2]["task"]) == ("2 + 2?", None)
    assert (calls[3]["prompt"], calls[3]["task"]) == (None, Path("rows.jsonl"))
    out = capsys.readouterr().out
    assert out.startswith("a table\n{")
    assert out.endswith('\nfour\n{"completion": "four", "sample": 0}\n')


def test_the_module_runs_and_help_lists_the_commands() -> None:
    done = subprocess.run([sys.executable, "-m", "r1kit", "--help"], capture_output=True, text=True, check=True)
    for command in ("run", "plan", "eval", "generate", "chat", "report", "models", "data"):
        assert f"\n    {command} " in done.stdout


def test_the_console_script_imports_modules_of_the_current_folder_last(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def brief(completions, **columns):\n    return [7.0 for _ in completions]\n")
    (tmp_path / "numpy.py").write_text("raise RuntimeError('shadowed')\n")
    (tmp_path / "rows.jsonl").write_text('{"completion": "4"}\n')
    # a console script has its own folder at the front of sys.path, never the current one
    script = "import sys; sys.path = [p for p in sys.path if p]; from r1kit.cli import main; sys.exit(main())"
    score = [sys.executable, "-c", script, "score", "rows.jsonl", "--rewards"]
    done = subprocess.run([*score, "mine:brief"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["rewards"] == {"brief": 7.0}, done.stderr + done.stdout
    missing = subprocess.run([*score, "shapes:area"], cwd=tmp_path, capture_output=True, text=True)
    assert "no module named 'shapes' in the current folder or on PYTHONPATH" in missing.stderr
