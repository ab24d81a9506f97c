"""Stages side by side: they overlap, fail alone and leave no process behind; results are those of one process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import parallel_stages as stages
from r1kit.cli import main
from r1kit.pipeline import Display, Recipe, StagesFailed, execute, longest_chains, plan
from r1kit.pipeline.job import Job, run_job
from r1kit.recipes import build_recipe


def manifest(runs: Path, stage: str) -> dict[str, Any]:
    (file,) = runs.glob(f"*/{stage}-????????/manifest.json")
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def statuses(recipe: Recipe, runs: Path) -> dict[str, str]:
    return {row.stage.name: row.status for row in plan(recipe, runs)}


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_two_stages_run_at_the_same_time_in_processes_that_live_on(
    tmp_path: Path, pipe: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    folder = execute(stages.meeting(pipe), runs, jobs=2)
    assert (folder / "result").read_text() == "last"
    first = {manifest(runs, name)["metrics"]["process"] for name in ("left", "right")}
    later = {manifest(runs, name)["metrics"]["process"] for name in ("after-left", "last")}
    assert len(first) == 2 and later <= first and os.getpid() not in first
    lines = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"up to 2 stages side by side, \d+ threads? each", lines[0])
    assert all(re.match(r"\[\d/4\] (left|right|after-left|last): ", line) for line in lines[1:])
    (call,) = json.loads((runs / "meeting" / "run.json").read_text())["calls"]
    assert call["jobs"] == 2 and call["seconds"] > 0
    assert {name[:-9] for name in call["stages"]} == set(statuses(stages.meeting(pipe), runs))


class InTurn(contextlib.AbstractContextManager[Any]):
    """A pool of one: it runs each job in this process when it is started."""

    def __init__(self, display: Display) -> None:
        self.display, self.busy, self.names = display, list[Job](), list[str]()

    @property
    def has_room(self) -> bool:
        return not self.busy

    def start(self, job: Job) -> None:
        run_job(job, self.display)
        self.busy.append(job)
        self.names.append(job.name)

    def ended(self) -> tuple[Job, None]:
        return self.busy.pop(), None

    def __exit__(self, *error: object) -> None: ...


def test_stages_with_the_most_costly_chains_start_first(tmp_path: Path) -> None:
    short = stages.stage("short", stages.finish)
    long = stages.stage("long", stages.finish)
    after = stages.stage("after-long", stages.finish, long)
    recipe = Recipe("costs", (short, long, after, stages.stage("last", stages.finish, short, after)))
    assert longest_chains(recipe.stages, {}) == {"short": 2, "long": 3, "after-long": 2, "last": 1}
    costs = {"short": 9.0, "long": 0.5, "after-long": 2.0}
    assert longest_chains(recipe.stages, costs) == {"short": 10.0, "long": 3.5, "after-long": 3.0, "last": 1.0}
    pools: list[InTurn] = []

    def pool(recipe: Recipe, folder: Path, display: Display) -> InTurn:
        pools.append(InTurn(display))
        return pools[-1]

    execute(recipe, tmp_path / "1", cluster=pool)
    execute(recipe, tmp_path / "2", cluster=pool, costs=lambda recipe: costs)
    assert [each.names for each in pools] == [
        ["long", "short", "after-long", "last"],
        ["short", "long", "after-long", "last"],
    ]


def test_a_failed_stage_stops_only_the_stages_that_need_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StagesFailed) as error:
        execute(stages.failing(), tmp_path, jobs=2)
    (log,) = tmp_path.glob("failing/bad-*/log.txt")
    assert str(error.value).splitlines() == [
        "1 of 5 stages failed; the same command tries them again:",
        f"  bad: KeyError: 'the data is bad' ({log})",
        "not run, because they need one of these: victim, last",
    ]
    assert statuses(stages.failing(), tmp_path) == {
        "bad": "resume",
        "good": "done",
        "victim": "run",
        "better": "done",
        "last": "run",
    }
    assert "[1/5] bad: failed: KeyError: 'the data is bad'\n" in capfd.readouterr().err
    text = log.read_text()
    assert "[1/5] bad: never run; working in" in text and "printed by the stage" in text and "Traceback" in text


def test_the_command_ends_with_the_failures_and_status_1(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    assert main(["run", "parallel_stages:failing", "--jobs", "2", "--runs", str(tmp_path)]) == 1
    printed = capfd.readouterr()
    assert "r1kit: error: 1 of 5 stages failed" in printed.err and "Traceback" not in printed.err
    assert printed.out == ""
    assert main(["run", "parallel_stages:failing", "--jobs", "0", "--runs", str(tmp_path)]) == 1
    assert "jobs is 0: give at least 1" in capfd.readouterr().err


def test_a_killed_worker_is_a_failure_of_its_stage_alone(tmp_path: Path, pipe: Path) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(StagesFailed, match=r"right: its process was killed by SIGKILL.*memory") as error:
        execute(stages.meeting(pipe, right=stages.meet_and_die), runs, jobs=2)
    assert "not run, because they need one of these: last" in str(error.value)
    assert statuses(stages.meeting(pipe, right=stages.meet_and_die), runs) == {
        "left": "done",
        "right": "resume",
        "after-left": "done",
        "last": "run",
    }


def test_a_worker_killed_while_it_loads_its_stage_is_a_failure_of_that_stage_alone(tmp_path: Path) -> None:
    killed = stages.stage("killed", partial(stages.finish_with, stages.KillsItsLoader()))
    good = stages.stage("good", stages.finish)
    recipe = Recipe("loading", (killed, good, stages.stage("last", stages.finish, killed, good)))
    with pytest.raises(StagesFailed, match=r"1 of 3 stages failed(.|\n)*killed: its process was killed by SIGKILL"):
        execute(recipe, tmp_path, jobs=2)
    assert statuses(recipe, tmp_path)["good"] == "done"


def test_a_stage_may_print_and_report_anything_from_any_thread(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    talker = stages.stage("talker", stages.talk)
    execute(Recipe("talking", (stages.stage("last", stages.finish, talker),)), tmp_path, jobs=2)
    lines = [line.removeprefix("[1/2] talker: ") for line in capfd.readouterr().err.splitlines()]
    assert all(lines.count(letter * 40_000) == 20 for letter in "abcd")
    logs = {name: next(tmp_path.glob(f"*/{name}-*/log.txt")).read_text() for name in ("talker", "last")}
    assert logs["talker"].endswith("half ?, no end") and logs["last"].startswith("[2/2] last: ")


def test_a_full_disk_is_named_even_if_no_log_can_be_written(tmp_path: Path) -> None:
    recipe = Recipe("full", (stages.stage("full", stages.print_to_a_full_disk),))
    with pytest.raises(StagesFailed, match=r"full: OSError: .*File too large"):
        execute(recipe, tmp_path, jobs=2)


def test_a_function_of_a_notebook_gets_the_same_remedy(tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.py"
    notebook.write_text(f"""
import sys
from pathlib import Path
del sys.modules["__main__"].__file__
sys.path.append({str(Path(__file__).parent)!r})
import parallel_stages as stages
from r1kit.pipeline import Recipe, execute
def mine(context): return {{}}
execute(Recipe("local", (stages.stage("mine", mine),)), Path({str(tmp_path)!r}), jobs=2)
""")
    done = subprocess.run([sys.executable, notebook], capture_output=True, text=True)
    assert re.search(r"mine: cannot be sent to another process \(.*'mine'.*top of a module.*--jobs 1", done.stderr)
    (log,) = tmp_path.glob("local/mine-*/log.txt")
    assert "AttributeError" in log.read_text() and "AttributeError" not in done.stderr


def test_a_stage_that_no_other_process_can_receive_is_a_failure_with_a_remedy(tmp_path: Path) -> None:
    recipe = Recipe("local", (stages.stage("local", lambda context: {}),))
    with pytest.raises(StagesFailed, match=r"local: cannot be sent to another process .*top of a module.*--jobs 1$"):
        execute(recipe, tmp_path, jobs=2)
    assert execute(recipe, tmp_path, jobs=1).name.startswith("local-")


def test_a_script_without_a_main_guard_is_one_clear_error(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
from pathlib import Path
sys.path.append({str(Path(__file__).parent)!r})
import parallel_stages as stages
import r1kit
from r1kit.pipeline import execute
execute(stages.failing(), Path({str(tmp_path / "runs")!r}), jobs=2)
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith('needs `if __name__ == "__main__":` around the call')


def start_counting(runs: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A run whose two stages both wait, and the processes of its workers."""
    command = [sys.executable, stages.__file__, "counting", str(runs)]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert run.stderr is not None
    workers: list[int] = []
    for line in run.stderr:
        workers += [int(number) for number in re.findall(r"process (\d+) waits", line)]
        if len(workers) == 2:
            break
    return run, workers


def continued_rows(runs: Path) -> dict[str, str]:
    """The rows of both stages once the run was resumed."""
    execute(stages.counting(), runs, jobs=2)
    assert all(manifest(runs, name)["metrics"] == {"resumed from": 3} for name in ("first", "second"))
    return {name: next(runs.glob(f"*/{name}-*/rows.jsonl")).read_text() for name in ("first", "second")}


@pytest.mark.parametrize(("signum", "to_all"), [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)])
def test_a_signal_stops_all_workers_and_the_run_resumes(tmp_path: Path, signum: signal.Signals, to_all: bool) -> None:
    run, workers = start_counting(tmp_path)
    os.killpg(run.pid, signum) if to_all else run.send_signal(signum)  # a terminal sends Ctrl-C to all processes
    _, errors = run.communicate()
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith(f"Stopped: stopped by {signum.name}")
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    assert continued_rows(tmp_path) == dict.fromkeys(
        ("first", "second"), "".join(f'{{"step": {n}}}\n' for n in range(5))
    )


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="this system cannot wait for a process of another parent")
def test_workers_end_with_a_run_that_was_killed(tmp_path: Path) -> None:
    run, workers = start_counting(tmp_path)
    processes = [os.pidfd_open(worker) for worker in workers]
    run.kill()
    run.communicate()
    for process in processes:
        ended, _, _ = select.select([process], [], [], stages.PATIENCE_S)
        os.close(process)
        assert ended
    logs = [log.read_text().splitlines() for log in tmp_path.glob("*/*/log.txt")]
    assert [log[-1] for log in logs] == ["stopped by SIGTERM"] * 2
    continued_rows(tmp_path)


def test_results_are_those_of_one_process_bit_for_bit(tiny_policy_folder: Path, tmp_path: Path) -> None:
    small = {"rl.steps": 2, "rl.prompts_per_step": 4, "rl.max_tokens": 24, "eval.samples": 1, "eval.max_tokens": 24}
    small |= {"eval.tasks": [{"name": "tiny/sums", "limit": 6}], "rl.tasks": [{"name": "tiny/reasoning", "limit": 40}]}
    small |= {"rl.optimizer.learning_rate": 0.01}
    built = build_recipe("r1-zero", scale="tiny", model=str(tiny_policy_folder), overrides=small)
    rl, after = (stage for stage in built.stages if stage.name in ("rl", "eval-zero"))
    for jobs in (1, 2):
        # `eval-zero` runs in the worker of `rl`, which has imported torch already, so the test is short
        execute(Recipe("small", (rl, stages.stage("beside", stages.finish), after)), tmp_path / str(jobs), jobs=jobs)
    names = {path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()}
    logs = {path.relative_to(tmp_path / "2") for path in (tmp_path / "2").rglob("log.txt")}
    assert {path.relative_to(tmp_path / "2") for path in (tmp_path / "2").rglob("*") if path.is_file()} == names | logs
    results = [name for name in names if name.name in ("model.safetensors", "completions.jsonl", "results.json")]
    assert len(results) == 3
    for name in results:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name
