"""`r1kit status`: what runs by its process, how far, how healthy, and why the rest ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from parallel_stages import failing
from r1kit.cli import main
from r1kit.pipeline import StagesFailed, execute
from tracked_run import recipe

HERE = Path(__file__).parent


def status(path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["status", str(path), "--json"]) == 0
    runs: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return runs


def text(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["status", str(path)]) == 0
    return capsys.readouterr().out


def test_a_stage_runs_as_long_as_its_process_lives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, str(HERE / "parallel_stages.py"), "counting", str(tmp_path)]
    path = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
    assert process.stderr is not None
    with process, process.stderr as lines:
        for stage in range(2):  # both wait
            assert next(line for line in lines if "waits" in line), stage
        [run] = status(tmp_path, capsys)
        assert {stage["name"]: stage["state"] for stage in run["stages"]} == {
            "first": "running",
            "second": "running",
            "last": "waiting",
        }
        assert run["state"] == "running"
        assert "waiting: last" in text(tmp_path, capsys)
        for worker in psutil.Process(process.pid).children(recursive=True):
            worker.kill()
        process.kill()
    [run] = status(tmp_path, capsys)
    assert run["state"] == "died"
    [first, *_] = run["stages"]
    assert first["state"] == "died"
    assert "its process ended without an error message" in first["error"]
    assert first["log"] == str(tmp_path / "counting" / first["id"] / "log.txt")
    assert f"or the machine went down; its log: {first['log']}" in text(tmp_path, capsys)


def test_a_failed_stage_says_why_and_where_its_log_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StagesFailed):
        execute(failing(), tmp_path, jobs=2)
    [run] = status(tmp_path / "failing", capsys)
    assert (run["state"], run["stages_done"], run["stages_total"]) == ("failed", 2, 5)
    bad = run["stages"][0]
    assert bad["error"] == "KeyError: 'the data is bad'"
    shown = text(tmp_path, capsys)
    assert f"bad failed: KeyError: 'the data is bad'; its log: {bad['log']}" in shown
    assert "printed by the stage" in Path(bad["log"]).read_text()


def test_a_stage_alone_has_steps_and_health(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = execute(recipe(), tmp_path)
    [run] = status(folder, capsys)
    [stage] = run["stages"]
    assert stage["id"] == folder.name
    assert stage["health"]["name"] == run["health"]["name"] == "hacking"  # its reward rises, and its accuracy falls
    assert f"rl hacking: {'; '.join(stage['health']['evidence'])}; {stage['health']['remedy']}" in text(folder, capsys)
    execute(recipe(learning_rate=0.25), tmp_path)  # the first is now of an earlier plan
    assert status(folder, capsys)[0]["stages"] == [stage]


def test_what_is_damaged_is_said_and_the_rest_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("broken", "sound"):
        execute(recipe(), tmp_path / name).parent.rename(runs / name)
    [stage] = runs.glob("broken/rl-*")
    (stage / "metrics.jsonl").write_text('{"step": "\x1b[31m"}\n[1, {"step": 2\n', encoding="utf-8")
    [first, second] = status(runs, capsys)
    assert first["stages"][0]["state"] == "damaged"
    assert "metrics.jsonl is damaged" in first["stages"][0]["error"] and "verify-run" in first["stages"][0]["error"]
    assert second["health"]["name"] == "hacking"
    for file, content in (("manifest.json", "{"), ("stage.json", "[1]"), ("progress.json", "\0")):
        (stage / file).write_text(content)
    for plan in ("", "[]", "{}", '{"stages": 1}', '{"stages": [{"stage": "rl"}]}'):
        (runs / "broken" / "plan.json").write_text(plan)
        [broken] = status(runs, capsys)[0]["stages"]
        assert broken["state"] == "damaged"
        assert "progress.json is not JSON" in broken["error"]
    shown = text(runs, capsys)
    assert "\x1b" not in shown
    assert "sound: finished, 1 of 1 stages done" in shown


def test_a_folder_without_runs_is_an_error_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 1
    assert "holds no run: name a run's folder" in capsys.readouterr().err
