"""Trackers hold what metrics.jsonl holds, however often a run is killed, and never disturb it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from r1kit.data.jsonl import RowWriter, keep_steps, read_rows
from r1kit.pipeline import Display, execute, plan
from r1kit.recipes import build_recipe
from r1kit.settings import SettingsError
from r1kit.tracking import TRACKERS, follower, tracked
from r1kit.tracking.feed import SAMPLES, Feed, bounded, samples
from r1kit.tracking.names import TRL_NAMES, plain_names, trainer_names
from r1kit.tracking.trackers import TrackedStage
from tracked_run import COMPLETION, recipe
from tracker_readers import READERS, faults, read_back

HERE = Path(__file__).parent


def run(runs: Path, trackers: str, dies_at: int = 0, with_trackers: bool = False) -> str:
    """A run in a process of its own; returns what it printed."""
    arguments = [str(runs), trackers, str(dies_at), str(int(with_trackers))]
    done = subprocess.run(
        [sys.executable, str(HERE / "tracked_run.py"), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])},
        cwd=runs.parent,
    )
    assert done.returncode == (-9 if dies_at else 0), done.stderr
    return done.stderr


@pytest.mark.filterwarnings("ignore")  # of the trackers' own libraries, which read back here
@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_run_that_is_killed_three_times_is_whole_in_the_tracker(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in ("WANDB_MODE", "WANDB_DIR", "MLFLOW_TRACKING_URI", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.delenv(name, raising=False)
    pytest.importorskip(tracker, reason=f"{tracker} is not installed: `make trackers` tests all of them")
    run(tmp_path / "runs", tracker, dies_at=2, with_trackers=True)
    run(tmp_path / "runs", tracker, dies_at=5)  # the tracker lives on, and sends steps that the next attempt repeats
    run(tmp_path / "runs", tracker, dies_at=8, with_trackers=True)
    run(tmp_path / "runs", tracker)
    [stage] = (tmp_path / "runs" / "tracked").glob("rl-*")
    assert faults(tracker, stage) == {"missing": [], "twice": [], "too many": [], "other value": []}
    assert f"{tracker}: " not in run(tmp_path / "runs", tracker)  # all was sent
    shown = read_back(tracker, stage)
    assert shown.name == stage.name
    assert str(shown.config["learning_rate"]) == "0.5"
    assert {name for name, *_ in shown.points} >= {"probe/accuracy", "tokens/train"}
    assert sorted(shown.tables) == [1, 3, 5, 7, 9]
    for table in shown.tables.values():
        assert len(table) == 14  # every third of 40
        assert {"prompt", "completion", "accuracy", "advantage", "verdict"} <= table[0].keys()


def test_a_finished_stage_that_no_tracker_has_seen_is_sent_as_a_whole(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    execute(recipe(), tmp_path / "runs")
    execute(recipe(), tmp_path / "runs", companion=partial(tracked, ["tensorboard"]))
    [stage] = (tmp_path / "runs" / "tracked").glob("rl-*")
    assert not any(faults("tensorboard", stage).values())
    (stage / "tracking" / "tensorboard.json").unlink()  # sends it again, as another run
    (tmp_path / "runs").rename(tmp_path / "moved")
    execute(recipe(), tmp_path / "moved", companion=partial(tracked, ["tensorboard"]))
    [stage] = (tmp_path / "moved" / "tracked").glob("rl-*")
    assert read_back("tensorboard", stage).name == f"{stage.name}-2"
    assert not any(faults("tensorboard", stage).values())


UNREACHABLE = """
def Settings(**options): pass
def init(**options): raise OSError("the network is down")
"""


def test_rows_that_a_resumed_stage_takes_back_while_they_are_followed_are_not_sent_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = tmp_path / "tracked" / "rl-00000000"
    feed = Feed("tensorboard", TrackedStage("tracked", folder, {"seed": 0}))
    with RowWriter(folder / "metrics.jsonl") as rows:
        for step in range(1, 6):
            rows.append({"step": step, "policy/kl": float(step)})
    assert not feed.send()
    keep_steps(folder / "metrics.jsonl", 3)  # another file, which is read from its beginning
    with RowWriter(folder / "metrics.jsonl") as rows:
        for step in range(4, 8):
            rows.append({"step": step, "policy/kl": float(step)})
            assert not feed.send()
    feed.close()
    assert faults("tensorboard", folder) == {"missing": [], "twice": [], "too many": [], "other value": []}


BROKEN = {
    "raise ImportError('no module named wandb.core')": "pip install 'r1kit[wandb]'",
    UNREACHABLE: "OSError: the network is down; the run goes on",
    "import os; os._exit(3)": "ended with status 3",
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_tracker_that_fails_is_said_once_and_the_run_is_the_same(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that breaks takes the library's place."""
    library = tmp_path / "library" / "wandb.py"
    library.parent.mkdir()
    library.write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(library.parent))
    printed = run(tmp_path / "runs", "wandb")
    said = [line for line in printed.splitlines() if line.startswith("wandb: ")]
    assert len(said) == 1
    assert BROKEN[code] in said[0]
    assert "the same command sends what is missing" in said[0]
    execute(recipe(), tmp_path / "alone")
    [tracked_rows], [rows] = ([*path.glob("tracked/rl-*")] for path in (tmp_path / "runs", tmp_path / "alone"))
    assert list(read_rows(tracked_rows / "metrics.jsonl")) == list(read_rows(rows / "metrics.jsonl"))
    assert tracked_rows.name == rows.name


def test_a_call_that_hangs_ends_the_process_even_if_it_never_lets_another_thread_run() -> None:
    code = (
        "import re\nfrom r1kit.tracking import feed\nfeed.CALL_S = 0.2\n"
        "with feed.bounded(): re.match(r'(a+)+$', 'a' * 60 + 'b')"  # holds the lock of the interpreter
    )
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "Timeout" in done.stderr


HANGS = """
import pathlib, subprocess, sys, time
process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("child").write_text(str(process.pid))
time.sleep(600)
"""


def test_no_process_of_a_tracker_outlives_a_run_that_is_stopped_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trackers hang, and a library has started a process of its own."""
    for name in ("trackio", "wandb"):
        (tmp_path / f"{name}.py").write_text(HANGS.replace("child", f"{name}-child"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = set(psutil.Process().children(recursive=True))

    def stop(*_: object, **__: object) -> None:  # the second Ctrl-C arrives while the run waits
        raise KeyboardInterrupt

    monkeypatch.setattr(follower._Follower, "wait", stop)
    with pytest.raises(KeyboardInterrupt), tracked(["trackio", "wandb"], plan(recipe(), tmp_path), Display()):
        execute(recipe(), tmp_path)
        children = [tmp_path / f"{name}-child" for name in ("trackio", "wandb")]
        deadline = time.monotonic() + 60
        while not all(file.exists() and file.read_text() for file in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        started = set(psutil.Process().children(recursive=True)) - before
        assert len(started) == 4
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


def test_a_call_that_returns_ends_nothing() -> None:
    with bounded():
        pass


def test_names_are_those_of_trl() -> None:
    """Each translated name is written by one of TRL's trainers, or by transformers' own."""
    trainers = pytest.importorskip("trl.trainer").__path__[0]
    source = "".join(file.read_text() for file in Path(trainers).glob("*_trainer.py"))
    logged = set(re.findall(r'_metrics\[(?:mode|"train")\]\["([^"]+)"\]', source)) | {
        "loss",
        "grad_norm",
        "learning_rate",
    }
    for name in TRL_NAMES.values():
        assert name.removeprefix("eval_") in logged, name
    assert 'f"rewards/{reward_func_name}/mean"' in source
    assert len(set(TRL_NAMES.values())) == len(TRL_NAMES)


def test_metrics_of_a_step_get_trls_names_and_keep_ours_without_a_counterpart() -> None:
    row = {
        "step": 3,
        "reward/mean": 0.5,
        "reward/std": 0.1,
        "reward/format": 1.0,
        "validation/loss": 2.0,
        "policy/kl": 0,
    }
    row |= {"probe/accuracy": 0.75, "rewards/accuracy/length": 9.0, "optim/grad_norm": None}
    theirs = {"reward": 0.5, "rewards/format/mean": 1.0, "kl": 0}
    ours = {"reward/std": 0.1, "probe/accuracy": 0.75, "rewards/accuracy/length": 9.0}
    assert plain_names(row) == theirs | ours | {"eval_loss": 2.0}
    assert trainer_names(row) == {f"train/{name}": value for name, value in theirs.items()} | ours | {"eval/loss": 2.0}


def test_samples_are_spread_over_a_step(tmp_path: Path) -> None:
    execute(recipe(), tmp_path)
    [stage] = (tmp_path / "tracked").glob("rl-*")
    assert samples(stage, 2) == []
    rows = samples(stage, 9)
    assert len(rows) <= SAMPLES
    assert rows[0]["completion"] == COMPLETION.replace("\ud800", "?")
    assert rows[0]["accuracy"] == 1.0
    assert rows[-1]["accuracy"] is None


def test_trackers_are_named_on_the_command_line_in_a_file_and_in_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from r1kit.cli.parser import parser

    options = parser().parse_args(["run", "r1-zero", "--track", "trackio,wandb", "--track", "mlflow"])
    assert options.track == ["trackio", "wandb", "mlflow"]
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "r1-zero"\nscale = "tiny"\ntrack = ["tensorboard"]\n')
    from_file = build_recipe(str(file))
    assert from_file.track == ("tensorboard",)
    assert 'track = ["tensorboard"]' in from_file.file  # the file that repeats the run
    assert build_recipe(str(file), track=["wandb"]).track == ("wandb",)
    plain = build_recipe("r1-zero", scale="tiny")
    assert plain.track == ()
    assert from_file.stages == plain.stages


@pytest.mark.parametrize("source", ["option", "file"])
def test_an_unknown_tracker_is_refused_before_anything_runs(source: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "r1-zero"\nscale = "tiny"\ntrack = ["trakio"]\n')
    given: dict[str, Any] = {"track": ["trakio"], "scale": "tiny"} if source == "option" else {}
    with pytest.raises(SettingsError, match=r"track: there is no tracker 'trakio': did you mean trackio\?") as error:
        build_recipe("r1-zero" if source == "option" else str(file), **given)
    assert source == "option" or "line 3" in str(error.value)


def test_every_tracker_has_a_reader_and_an_extra() -> None:
    assert READERS.keys() == TRACKERS.keys()
    extras = (HERE.parent / "pyproject.toml").read_text()
    for tracker in TRACKERS:
        assert f'\n{tracker} = ["{tracker}>=' in extras
