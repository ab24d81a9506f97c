"""The pipeline runs what is missing, once, in order, and says why; a kill at any moment costs no result."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from r1kit.pipeline import (
    Context,
    Display,
    External,
    Kind,
    Progress,
    Recipe,
    Stage,
    Stopped,
    check_ready,
    execute,
    plan,
)
from r1kit.pipeline.fingerprint import Hashes, identity
from r1kit.pipeline.plan import PlanRow
from r1kit.settings import Settings, unhashed
from r1kit.stages.report import REPORT
from r1kit.store import StoreError


class Part(Settings):
    weight: float = 1.0
    note: str = unhashed("")


class Toy(Settings):
    factor: int = 2
    seed: int = 0
    part: Part = Part()
    parts: tuple[Part, ...] = (Part(),)
    device: str = unhashed("cpu")


def multiply(context: Context) -> Mapping[str, Any]:
    numbers = [int(path.read_text()) for path in context.inputs().values()]
    result = sum(numbers) * context.settings.factor
    (context.folder / "result").write_text(str(result))
    return {"result": result}


def fail(context: Context) -> Mapping[str, Any]:
    raise ValueError("the data is bad")


TOY = Kind(name="toy", run=multiply, settings=Toy)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.txt"
    path.write_text("5")
    return path


def toy_recipe(data: Path, first: Toy | None = None, second: Toy | None = None, kind: Kind = TOY) -> Recipe:
    one = Stage("one", kind, first or Toy(), {"data": External(data)})
    two = Stage("two", kind, second or Toy(factor=3), {"x": one / "result", "y": External(data)})
    return Recipe("toys", (one, two))


def state(rows: list[PlanRow]) -> list[tuple[str, str, str]]:
    return [(row.stage.name, row.status, row.why) for row in rows]


def prints(recipe: Recipe, runs: Path) -> list[str]:
    return [row.fingerprint for row in plan(recipe, runs)]


@pytest.mark.parametrize("value", [None, 3, ["loss"]])
def test_a_stage_that_returns_no_metrics_is_named(value: Any, tmp_path: Path, data: Path) -> None:
    kind = Kind(name="longest", run=lambda context: value, settings=Toy)
    message = f"run of kind 'longest' returned {value}, expected a mapping of metrics"
    with pytest.raises(ValueError, match=re.escape(message)):
        execute(toy_recipe(data, kind=kind), tmp_path / "runs")


def test_stages_run_in_order_and_a_second_run_does_nothing(tmp_path: Path, data: Path) -> None:
    runs = tmp_path / "runs"
    assert state(plan(toy_recipe(data), runs)) == [("one", "run", "never run"), ("two", "run", "never run")]
    assert not runs.exists()
    folder = execute(toy_recipe(data), runs)
    assert (folder / "result").read_text() == str((5 * 2 + 5) * 3)
    assert re.fullmatch(r"two-[0-9a-f]{8}", folder.name)
    assert folder.parent == runs / "toys"
    before = {path: path.stat().st_mtime_ns for path in (runs / "toys").rglob("*")}
    assert execute(toy_recipe(data), runs) == folder
    assert {path: path.stat().st_mtime_ns for path in (runs / "toys").rglob("*")} == before
    assert state(plan(toy_recipe(data), runs)) == [("one", "done", "finished"), ("two", "done", "finished")]


def test_the_manifest_says_what_was_run_with_what(tmp_path: Path, data: Path) -> None:
    folder = execute(toy_recipe(data, second=Toy(seed=7, device="gpu")), tmp_path / "runs")
    manifest = json.loads((folder / "manifest.json").read_text())
    promised = "stage kind fingerprint settings inputs versions host seed started seconds metrics git"
    assert set(promised.split()) <= manifest.keys()
    assert manifest["settings"]["device"] == "gpu"
    assert manifest["seed"] == 7
    assert manifest["metrics"] == {"result": 30}
    assert manifest["versions"]["python"].startswith("3.")
    result = folder / manifest["inputs"]["x"]["path"]
    assert result.read_text() == "10"
    assert os.path.samefile(folder / manifest["inputs"]["y"]["path"], data)


def test_until_runs_what_the_named_stages_need_and_a_wrong_name_gets_a_hint(tmp_path: Path, data: Path) -> None:
    folder = execute(toy_recipe(data), tmp_path / "runs", until="one")
    assert (folder / "result").read_text() == "10"
    assert [row.status for row in plan(toy_recipe(data), tmp_path / "runs")] == ["done", "run"]
    with pytest.raises(ValueError, match="no stage 'onne': did you mean one"):
        execute(toy_recipe(data), tmp_path / "runs", until="onne")
    one, two = toy_recipe(data).stages
    beside, last = Stage("beside", TOY, Toy(), {"x": one / "result"}), Stage("last", TOY, Toy(), {"x": two / "result"})
    recipe = Recipe("toys", (one, two, beside, last))
    for until, names in (("beside", "one beside"), ("last, beside", "one two beside last"), ("two", "one two")):
        assert [row.stage.name for row in plan(recipe, tmp_path / "runs", until)] == names.split()


def test_fingerprints_are_the_same_in_another_process_and_another_place(tmp_path: Path, data: Path) -> None:
    # a constant: a change of how fingerprints are made would orphan everybody's finished runs
    kind = Kind(name="toy", run=REPORT.run, settings=Toy)  # a `run` of r1kit's, so that this file's code does not count
    assert prints(toy_recipe(data, kind=kind), tmp_path)[1].startswith("6b11f73ae86142ae")
    moved = tmp_path / "elsewhere.txt"
    moved.write_text("5")
    assert prints(toy_recipe(moved), tmp_path) == prints(toy_recipe(data), tmp_path)


@pytest.mark.parametrize(
    "changed",
    [Toy(factor=4), Toy(seed=1), Toy(part=Part(weight=2)), Toy(parts=(Part(), Part())), Toy(parts=(Part(weight=2),))],
)
def test_each_setting_that_counts_changes_the_stage_and_those_after_it(
    tmp_path: Path, data: Path, changed: Toy
) -> None:
    before, after = prints(toy_recipe(data), tmp_path), prints(toy_recipe(data, first=changed), tmp_path)
    assert all(old != new for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "changed", [Toy(device="gpu"), Toy(part=Part(note="x")), Toy(parts=(Part(note="x"),)), Toy(part=Part(weight=1))]
)
def test_settings_that_do_not_affect_results_change_no_fingerprint(tmp_path: Path, data: Path, changed: Toy) -> None:
    assert prints(toy_recipe(data), tmp_path) == prints(toy_recipe(data, first=changed), tmp_path)


def test_a_later_setting_leaves_the_stages_before_it_alone(tmp_path: Path, data: Path) -> None:
    before = prints(toy_recipe(data), tmp_path)
    after = prints(toy_recipe(data, second=Toy(factor=9)), tmp_path)
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_the_plan_says_which_setting_which_input_and_which_version_changed(tmp_path: Path, data: Path) -> None:
    runs = tmp_path / "runs"
    execute(toy_recipe(data), runs)
    rows = plan(toy_recipe(data, first=Toy(factor=4, part=Part(weight=3))), runs)
    assert [row.why for row in rows] == ["factor 2 -> 4; part.weight 1.0 -> 3.0", "input x changed (one)"]
    assert plan(toy_recipe(data, first=Toy(parts=(Part(weight=3),))), runs)[0].why == "parts.0.weight 1.0 -> 3.0"
    newer = Kind(name="toy", run=multiply, settings=Toy, version=2)
    assert plan(toy_recipe(data, kind=newer), runs)[0].why == "code version 1 -> 2"
    data.write_text("66")
    assert plan(toy_recipe(data), runs)[0].why == f"input data changed ({data})"


def test_an_edit_of_the_code_of_a_kind_outside_r1kit_redoes_the_stage(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "stage_of_my_own.py"
    code.write_text("def run(context):\n    (context.folder / 'result').write_text('1')\n    return {}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = Kind(name="longest", run=importlib.import_module("stage_of_my_own").run, settings=Toy)
    execute(toy_recipe(data, kind=kind), tmp_path / "runs")
    assert [row.status for row in plan(toy_recipe(data, kind=kind), tmp_path / "runs")] == ["done", "done"]
    code.write_text(code.read_text() + "# edited\n")
    row = plan(toy_recipe(data, kind=kind), tmp_path / "runs")[0]
    assert (row.status, row.why) == ("run", "code of kind longest changed")


def test_the_code_of_built_in_kinds_does_not_count(data: Path) -> None:
    own, built_in = (Stage("one", kind, kind.settings()) for kind in (TOY, REPORT))
    hashes = Hashes(data.parent)
    assert "code" in identity(own, hashes, {}) and "code" not in identity(built_in, hashes, {})


def test_a_changed_text_takes_one_line_of_the_plan(tmp_path: Path, data: Path) -> None:
    class Asking(Toy):
        system: str = ""

    kind = Kind(name="toy", run=multiply, settings=Asking, version=1)
    runs = tmp_path / "runs"
    execute(toy_recipe(data, first=Asking(), second=Asking(factor=3), kind=kind), runs)
    changed = Asking(system="One line.\n" * 50)
    why = plan(toy_recipe(data, first=changed, second=Asking(factor=3), kind=kind), runs)[0].why
    assert why.startswith("system '' -> 'One line.\\n") and len(why) < 100 and "\n" not in why


def test_the_content_of_a_folder_counts_and_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("1")
    stage = Stage("one", TOY, Toy(), {"data": External(model / "weights"), "all": External(model)})
    (tmp_path / "runs").mkdir()
    before = prints(Recipe("r", (stage,)), tmp_path / "runs")
    monkeypatch.setattr("r1kit.pipeline.fingerprint.sha256", fail)
    assert prints(Recipe("r", (stage,)), tmp_path / "runs") == before
    monkeypatch.undo()
    (model / "config").write_text("{}")
    assert prints(Recipe("r", (stage,)), tmp_path / "runs") != before


def test_a_missing_or_empty_input_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"input 'data' of stage one: there is no file or folder .*nothing"):
        plan(toy_recipe(tmp_path / "nothing"), tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no files"):
        plan(toy_recipe(tmp_path / "empty"), tmp_path)


def test_recipes_refuse_cycles_double_names_and_a_result_that_is_not_last(data: Path) -> None:
    one = Stage("one", TOY, Toy(), {"data": External(data)})
    two = Stage("two", TOY, Toy(), {"x": one / "result"})
    with pytest.raises(ValueError, match="two different stages are named 'one'"):
        Recipe("r", (one, Stage("one", TOY, Toy(factor=5))))
    with pytest.raises(ValueError, match="put the result last"):
        Recipe("r", (two, one))
    assert [stage.name for stage in Recipe("r", (two,)).stages] == ["one", "two"]
    assert isinstance(one.inputs, dict)
    one.inputs["back"] = two / "result"
    with pytest.raises(ValueError, match="stages form a cycle: two -> one -> two"):
        Recipe("r", (two,))


def test_stages_refuse_bad_names_wrong_settings_and_outputs_outside_their_folder() -> None:
    with pytest.raises(ValueError, match="stage name 'a/b'"):
        Stage("a/b", TOY, Toy())
    with pytest.raises(ValueError, match="settings are Part, expected Toy"):
        Stage("one", TOY, Part())
    with pytest.raises(ValueError, match="give a path inside the stage's folder"):
        Stage("one", TOY, Toy()) / "../two"


def test_an_unknown_input_gets_a_hint_and_prefixes_select(tmp_path: Path) -> None:
    paths = {"eval/base": tmp_path / "a", "eval/rl": tmp_path / "b", "model": tmp_path}
    context = Context(stage="s", settings=Toy(seed=3), folder=tmp_path, paths=paths)
    assert context.input("model") == tmp_path
    assert list(context.inputs("eval/")) == ["base", "rl"]
    with pytest.raises(ValueError, match="no input 'modell': did you mean model"):
        context.input("modell")


def test_bad_input_is_refused_before_any_stage_works_and_leaves_no_folder(tmp_path: Path, data: Path) -> None:
    one = Stage("one", TOY, Toy(), {"data": External(data)})
    picky = Stage("picky", Kind(name="picky", run=fail, settings=Toy, check=_refuse), Toy(), {"data": External(data)})
    with pytest.raises(ValueError, match="refused") as error:
        execute(Recipe("r", (one, picky)), tmp_path / "runs")
    assert "in stage picky" in error.value.__notes__[0]
    assert not (tmp_path / "runs").exists()


def test_a_stage_whose_input_is_made_in_this_run_is_checked_before_its_own_work(tmp_path: Path, data: Path) -> None:
    one = Stage("one", TOY, Toy(), {"data": External(data)})
    picky = Stage("picky", Kind(name="picky", run=fail, settings=Toy, check=_refuse), Toy(), {"data": one / "result"})
    with pytest.raises(ValueError, match="refused"):
        execute(Recipe("r", (one, picky)), tmp_path / "runs")
    assert [row.status for row in plan(Recipe("r", (one, picky)), tmp_path / "runs")] == ["done", "run"]


def test_a_plan_can_be_checked_as_a_run_would_be(tmp_path: Path, data: Path) -> None:
    picky = Kind(name="picky", run=fail, settings=Toy, check=_refuse)
    with pytest.raises(ValueError, match="refused") as error:
        check_ready(plan(Recipe("r", (Stage("picky", picky, Toy(), {"data": External(data)}),)), tmp_path / "runs"))
    assert "in stage picky" in error.value.__notes__[0]
    later = External(Path("far"), fetch=lambda: data)
    assert not check_ready(plan(Recipe("r", (Stage("picky", picky, Toy(), {"data": later}),)), tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_what_is_not_here_yet_is_shown_by_a_plan_and_fetched_once_by_a_run(tmp_path: Path, data: Path) -> None:
    fetched: list[str] = []

    def recipe() -> Recipe:
        far = External(Path("owner/far"), fetch=lambda: fetched.append("far") or data)  # type: ignore[func-returns-value]
        one = Stage("one", TOY, Toy(), {"data": far})
        return Recipe("toys", (one, Stage("two", TOY, Toy(factor=3), {"x": one / "result", "y": far})))

    first, second = plan(recipe(), tmp_path / "runs")
    assert (first.status, first.why) == ("run", "owner/far is to be fetched")
    assert second.why == "one is to be run; owner/far is to be fetched"
    assert first.folder.name == "one-????????" and not fetched
    late = {str(n): External(Path(f"far/{n}"), fetch=lambda: data) for n in range(5)}
    (row,) = plan(Recipe("toys", (Stage("late", TOY, Toy(), late),)), tmp_path / "other")
    assert row.why == "far/0 is to be fetched; far/1 is to be fetched; and 3 others"
    folder = execute(recipe(), tmp_path / "runs")
    assert (folder / "result").read_text() == "45" and fetched == ["far"]
    assert [row.status for row in plan(toy_recipe(data), tmp_path / "runs")] == ["done", "done"]


def _refuse(context: Context) -> None:
    raise ValueError("refused")


def test_a_failed_stage_is_named_and_shown_as_stopped_midway(tmp_path: Path, data: Path) -> None:
    stage = Stage("bad", Kind(name="bad", run=fail, settings=Toy), Toy(), {"data": External(data)})
    with pytest.raises(ValueError, match="the data is bad") as error:
        execute(Recipe("r", (stage,)), tmp_path / "runs")
    assert error.value.__notes__[0].startswith("in stage bad (")
    assert state(plan(Recipe("r", (stage,)), tmp_path / "runs")) == [("bad", "resume", "stopped midway")]


def test_an_output_that_has_gone_is_a_clear_error(tmp_path: Path, data: Path) -> None:
    folder = execute(toy_recipe(data), tmp_path / "runs", until="one")
    (folder / "result").unlink()
    with pytest.raises(StoreError, match=r"one-\w+/result is damaged: missing"):
        execute(toy_recipe(data), tmp_path / "runs")


# A stage that counts to 5, a row a step, and goes on from its rows; `trouble` happens after step 3 of a first attempt.
COUNTER = """
import os, signal, sys
from pathlib import Path
from r1kit.pipeline import Context, Kind, Recipe, Stage, execute
from r1kit.settings import Settings
from r1kit.data.jsonl import RowWriter, read_rows

def count(context: Context):
    path = context.folder / "rows.jsonl"
    done = len(list(read_rows(path))) if path.exists() else 0
    with RowWriter(path) as rows:
        for step in range(done, 5):
            rows.append({"step": step, "total": sum(range(step + 1))})
            if step == 2 and done == 0:
                TROUBLE
    return {"from": done}

stage = Stage("count", Kind(name="count", run=count, settings=Settings), Settings())
"""
GO = "\nexecute(Recipe('r', (stage,)), Path(sys.argv[1]))\n"


def run_counter(trouble: str, runs: Path) -> subprocess.CompletedProcess[str]:
    code = COUNTER.replace("TROUBLE", trouble) + GO
    return subprocess.run([sys.executable, "-c", code, str(runs)], capture_output=True, text=True)


def test_killed_in_the_middle_of_a_stage_a_run_goes_on_to_the_same_result(tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert run_counter("pass", straight).returncode == 0
    assert run_counter("os.kill(os.getpid(), signal.SIGKILL)", killed).returncode == -signal.SIGKILL
    assert not list(killed.glob("r/*/manifest.json"))
    again = run_counter("pass", killed)
    assert again.returncode == 0, again.stderr
    assert "stopped midway" in again.stderr
    (folder,) = killed.glob("r/count-*")
    assert (folder / "rows.jsonl").read_text() == (straight / "r" / folder.name / "rows.jsonl").read_text()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["metrics"] == {"from": 3}
    assert manifest["attempts"] == 2


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_cleanly_in_the_stage(tmp_path: Path, name: str) -> None:
    done = run_counter(f"os.kill(os.getpid(), signal.{name})", tmp_path)
    assert f"Stopped: stopped by {name}" in done.stderr
    assert "in stage count" in done.stderr
    assert run_counter("pass", tmp_path).returncode == 0


def test_two_processes_cannot_run_one_stage(tmp_path: Path) -> None:
    trouble = "print('ready', flush=True); sys.stdin.readline()"
    code = COUNTER.replace("TROUBLE", trouble) + GO
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdout.readline()
        second = run_counter("pass", tmp_path)
        assert f"process {first.pid} on {socket.gethostname()} is working in" in second.stderr
        first.communicate(b"\n")
    assert first.returncode == 0
    assert len(list(tmp_path.glob("r/count-*/manifest.json"))) == 1


def test_no_room_for_the_manifest_means_not_done_and_the_stage_can_go_on(tmp_path: Path) -> None:
    trouble = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))"
    done = run_counter(trouble, tmp_path)
    assert "StoreError: cannot write" in done.stderr
    assert "manifest.json" in done.stderr
    assert not list(tmp_path.glob("r/count-*/manifest.json"))
    assert run_counter("pass", tmp_path).returncode == 0


def test_signal_handlers_are_as_before_once_a_run_has_ended(tmp_path: Path, data: Path) -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    execute(toy_recipe(data), tmp_path / "runs")
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before
    assert issubclass(Stopped, KeyboardInterrupt)


def test_without_a_terminal_progress_is_one_plain_line_a_step_with_the_time_left() -> None:
    out, times = io.StringIO(), iter([0.0, 0.1, 10.0, 20.0, 40.0])
    with Display(out) as display:
        progress = Progress("[1/2] rl", display, clock=lambda: next(times))
        progress.say("starts")
        for done in range(5):
            progress.step(done, 4, {"reward/mean": done / 3, "phase": "train"})
    expected = """\
        [1/2] rl: starts
        [1/2] rl: 0/4             reward/mean 0  phase train
        [1/2] rl: 2/4  0:10 left  reward/mean 0.6667  phase train
        [1/2] rl: 3/4  0:07 left  reward/mean 1  phase train
        [1/2] rl: 4/4             reward/mean 1.333  phase train
    """
    assert out.getvalue() == textwrap.dedent(expected)


def test_on_a_terminal_there_is_a_bar_and_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = Terminal()
    with Display(out) as display:
        progress = Progress("rl", display)
        progress.step(1, 4, {"loss": 0.5})
        progress.say("[a] line")
        progress.step(4, 4, {"loss": 0.25})
    text = out.getvalue()
    assert "4/4" in text
    assert "loss 0.25" in text
    assert "rl: [a] line" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", text)
