"""The live page's server: a small real run read while it grows, afterwards, and after somebody has changed a row."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the live page needs its extra: pip install 'r1kit[web]'")

from starlette.testclient import TestClient

import watched_run
from r1kit import cli
from r1kit.commands.status_command import status, status_text
from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.net.server import StoppableServer
from r1kit.pipeline import Kind, Recipe, Stage, execute
from r1kit.pipeline.guards import locked
from r1kit.report.live.changes import Changes
from r1kit.report.live.curve_points import thinned
from r1kit.report.live.growing import GrowingMetrics
from r1kit.report.live.stage_state import States
from r1kit.settings import Settings
from r1kit.web.watch.app import make_app

TAMPERED = "tampered"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watch") / "runs"
    watched_run.make(folder)
    return folder


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs, tmp_path / "runs"))


class Page:
    """A client of the page's server."""

    def __init__(self, root: Path) -> None:
        self.client = TestClient(make_app(root), base_url="http://127.0.0.1")

    def get(self, path: str, status: int = 200, **query: Any) -> Any:
        answer = self.client.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    def stages(self, run: str = "small") -> dict[str, Any]:
        return {stage["name"]: stage for stage in self.get(f"/api/runs/{run}")["stages"]}

    def lineage(self, stage: str, file: str, row: int) -> list[Any]:
        place = {"stage": stage, "file": file, "row": row}
        links: list[Any] = self.get("/api/runs/small/lineage", **place)["links"]
        return links


@pytest.fixture
def page(runs: Path) -> Page:
    return Page(runs)


def every_file(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_finished_run_with_its_stages_in_the_order_of_the_plan(page: Page, runs: Path) -> None:
    before = every_file(runs)
    (run,) = page.get("/api/runs")["runs"]
    assert (run["id"], run["state"], run["stages_done"]) == ("small", "finished", run["stages_total"])
    whole = page.get("/api/runs/small")
    assert whole["title"] == "A small run" and whole["says"] == "7 of 7 stages done" and not whole["earlier"]
    assert [stage["name"] for stage in whole["stages"]] == [
        *("zero", "rejection", "review", "mix", "sft", "r1", "eval-r1")
    ]
    stages = page.stages()
    assert stages["zero"]["done"] == stages["zero"]["total"] == 3
    assert stages["r1"]["reads"] == [stages["sft"]["id"]] and stages["eval-r1"]["measures"]
    assert stages["rejection"]["has"]["rows"] == ["samples.jsonl", "kept.jsonl", "dropped.jsonl"]
    assert "pass@1" in stages["eval-r1"]["metrics"]
    page.get("/api/runs/small/health")
    assert every_file(runs) == before, "the page writes nothing"


def test_curves_are_the_reports_plots_and_go_on_from_a_step(page: Page, runs: Path) -> None:
    zero = page.stages()["zero"]["id"]
    curves = page.get("/api/runs/small/curves", stage=zero)
    assert (curves["first"], curves["last"], curves["total"]) == (1, 3, 3)
    plots = {plot["title"]: plot for plot in curves["plots"]}
    assert {"Reward", "Reward parts", "Entropy", "Gradient norm", "Completion length"} <= set(plots)
    logged = [row["reward/mean"] for row in read_rows(runs / "small" / zero / "metrics.jsonl")]
    (reward,) = plots["Reward"]["series"]
    assert (reward["steps"], reward["values"], reward["ends"]) == ([1, 2, 3], logged, [logged[0], logged[-1]])
    later = page.get("/api/runs/small/curves", stage=zero, since=2)
    assert all(series["steps"] == [3] for plot in later["plots"] for series in plot["series"])


def test_health_gives_the_verdict_with_its_evidence(page: Page) -> None:
    health = page.get("/api/runs/small/health")
    assert {row["name"] for row in health["stages"]} == {"zero", "sft", "r1"}
    zero = next(row for row in health["stages"] if row["name"] == "zero")
    assert zero["verdict"] == "too early to tell" and zero["evidence"][0] == "steps: 3, and 8 are needed"
    assert zero["checks"]
    assert health["verdict"]["stage"] in {row["stage"] for row in health["stages"]}  # two may start in one second


def test_a_group_side_by_side_with_its_tokens(page: Page) -> None:
    zero = page.stages()["zero"]["id"]
    assert page.get("/api/runs/small/rollouts", stage=zero)["steps"] == [1, 2, 3]
    step = page.get(f"/api/runs/small/rollouts/{zero}/2")
    assert (step["previous"], step["next"], step["counts"]["all"], len(step["groups"])) == (1, 3, 16, 4)
    group = page.get(f"/api/runs/small/rollouts/{zero}/2/1", tokens=1)
    assert group["question"] == step["groups"][1]["question"] and len(group["completions"]) == 4
    for completion in group["completions"]:
        assert "".join(text for text, _ in completion["pieces"]) == completion["completion"]
        assert all(logprob <= 0 for _, logprob in completion["pieces"])
        assert set(completion["parts"]) == {"accuracy", "format"} and completion["why"]
    advantages = [completion["advantage"] for completion in group["completions"]]
    assert abs(sum(advantages)) < 1e-6


def test_thinking_is_marked_by_its_place(page: Page) -> None:
    zero = page.stages()["zero"]["id"]
    groups = [page.get(f"/api/runs/small/rollouts/{zero}/3/{number}") for number in range(4)]
    marked = [each for group in groups for each in group["completions"] if each["thinking"]]
    assert marked, "the tiny base thinks in most of its answers"
    for each in marked:
        start, end = each["thinking"]
        assert each["completion"][:start].strip() in ("<think>", "")
        assert each["completion"][end:].lstrip().startswith("</think>") or end == len(each["completion"])


def test_filters_and_search_find_completions(page: Page) -> None:
    zero = page.stages()["zero"]["id"]
    whole = page.get(f"/api/runs/small/rollouts/{zero}/1")
    assert whole["counts"]["not_judged"] == 0
    for name in ("right", "wrong", "truncated", "mixed", "wrong_formatted"):
        step = page.get(f"/api/runs/small/rollouts/{zero}/1", filter=name)
        shown = [row for group in step["groups"] for row in group["completions"] if row["matches"]]
        assert step["matches"] == len(shown) == whole["counts"][name]
        assert all(row["verdict"] == name if name in ("right", "wrong") else row[name] for row in shown)
    advantages = [row["advantage"] for group in whole["groups"] for row in group["completions"]]
    for name, value in (("highest", max(advantages)), ("lowest", min(advantages))):
        step = page.get(f"/api/runs/small/rollouts/{zero}/1", filter=name, sort="advantage")
        assert {row["advantage"] for group in step["groups"] for row in group["completions"] if row["matches"]} == {
            value
        }
    for sort, choose in (("reward", max), ("-reward", min)):  # by the best completion, and by the worst
        step = page.get(f"/api/runs/small/rollouts/{zero}/1", sort=sort)
        order = [choose(row["reward"] for row in group["completions"]) for group in step["groups"]]
        assert order == sorted(order, reverse=choose is max)
    hits = page.get("/api/runs/small/search", stage=zero, text="</THINK>", limit=200)
    rows = [row for step in (1, 2, 3) for row in rollout_rows(page, zero, step)]
    assert len(hits["hits"]) == sum("</think>" in row["completion"] for row in rows) and hits["next"] is None
    assert hits["searched"] == [1, 3] and hits["hits"][0]["step"] == 3


def rollout_rows(page: Page, stage: str, step: int) -> list[Any]:
    count = len(page.get(f"/api/runs/small/rollouts/{stage}/{step}")["groups"])
    groups = [page.get(f"/api/runs/small/rollouts/{stage}/{step}/{number}") for number in range(count)]
    return [row for group in groups for row in group["completions"]]


def test_rows_come_page_by_page(page: Page, runs: Path) -> None:
    rejection = page.stages()["rejection"]["id"]
    total = sum(1 for _ in read_rows(runs / "small" / rejection / "samples.jsonl"))
    seen, place = [], ""
    while place is not None:
        part = page.get(
            "/api/runs/small/rows", stage=rejection, file="samples.jsonl", limit=5, **({"from": place} if place else {})
        )
        seen += [row["at"]["row"] for row in part["rows"]]
        place = part["next"]
    assert seen == list(range(1, total + 1))
    wrong = page.get("/api/runs/small/rows", stage=rejection, file="dropped.jsonl", filter="wrong")["rows"]
    assert wrong and all(any(name == "dropped" for name, _ in row["facts"]) for row in wrong)


def trained_answer(page: Page, runs: Path) -> tuple[str, int]:
    """The evaluation's stage, and the number of an answer to a problem that the SFT stage was trained on."""
    stages = page.stages()
    mixed = read_rows(runs / "small" / stages["mix"]["id"] / "mixed.jsonl")
    trained = {row["metadata"]["problem_id"] for row in mixed}
    answers = read_rows(runs / "small" / stages["eval-r1"]["id"] / "completions.jsonl")
    return stages["eval-r1"]["id"], next(n for n, row in enumerate(answers, 1) if row["problem_id"] in trained)


def test_an_answer_of_r1_leads_to_its_training_row_its_rejected_siblings_and_the_prompt(page: Page, runs: Path) -> None:
    stage, row = trained_answer(page, runs)
    links = page.lineage(stage, "completions.jsonl", row)
    assert [link["kind"] for link in links] == [
        *("answer", "model", "model", "training row", "mixed row", "review", "kept row", "sample", "model", "prompt")
    ]
    assert [link["check"] for link in links] == ["same"] * len(links)
    by_kind = {link["kind"]: link for link in links}
    assert "tokens, decoded" in by_kind["mixed row"]["how"] and "SHA-256" in by_kind["kept row"]["how"]
    assert ["decision of auto-accept", "accept"] in [[name, text[:6]] for name, text in by_kind["review"]["facts"]]
    siblings = by_kind["sample"]["siblings"]
    assert len(siblings) == 3 and all(sibling["reason"] for sibling in siblings)
    assert by_kind["prompt"]["text"] and by_kind["sample"]["text"].count("<") >= 1


def test_a_rollout_leads_to_its_group_and_the_models_behind_it(page: Page) -> None:
    links = page.lineage(page.stages()["zero"]["id"], "rollouts/step-000002.jsonl", 6)
    assert [link["kind"] for link in links] == ["rollout", "prompt"] and len(links[0]["siblings"]) == 3
    assert {sibling["at"]["row"] for sibling in links[0]["siblings"]} == {5, 7, 8}


def test_a_row_that_somebody_changed_is_named(copied: Path) -> None:
    page = Page(copied)
    stage, row = trained_answer(page, copied)
    kept = next(link["at"] for link in page.lineage(stage, "completions.jsonl", row) if link["kind"] == "kept row")
    file = copied / "small" / kept["stage"] / "kept.jsonl"
    rows = list(read_rows(file))
    rows[kept["row"] - 1]["messages"][-1]["content"] += f" {TAMPERED}"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    links = {link["kind"]: link for link in page.lineage(stage, "completions.jsonl", row)}
    assert links["kept row"]["check"] == "differs" and links["kept row"]["why"] == "these columns differ: messages"
    assert links["sample"]["check"] == "differs" and links["mixed row"]["check"] == "same"

    settings = copied / "small" / page.stages()["sft"]["id"] / "stage.json"
    settings.write_text(settings.read_text().replace('"epochs": 1', '"epochs": 2'))
    models = [link for link in page.lineage(stage, "completions.jsonl", row) if link["kind"] == "model"]
    assert [link["check"] for link in models[:2]] == ["same", "differs"] and "was changed" in models[1]["why"]


def test_tokens_that_are_not_those_of_the_row_are_named(copied: Path) -> None:
    page = Page(copied)
    mix = page.stages()["mix"]["id"]
    file = copied / "small" / mix / "mixed.jsonl"
    rows = list(read_rows(file))
    rows[0]["messages"][-1]["content"] = "<think> 1+1=3 </think> <answer> 3 </answer>"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    links = page.lineage(page.stages()["sft"]["id"], "tokens/train/rows.jsonl", 1)
    assert [link["check"] for link in links[:3]] == ["same", "differs", "differs"]


# ---- a run that is being written


class Waiting(Settings):
    """Settings of a stage for tests."""


def test_a_running_stage_says_how_far_it_is_and_a_later_one_waits(tmp_path: Path) -> None:
    seen: list[Any] = []

    def work(context: Any) -> dict[str, Any]:
        context.progress.step(0, 4)
        context.progress.step(4, 4, {"phase": "last"})
        seen.append(Page(tmp_path).get("/api/runs/toy"))
        return {}

    first = Stage("first", Kind(name="toy", run=work, settings=Waiting), Waiting())
    second = Stage("second", Kind(name="toy", run=lambda context: {}, settings=Waiting), Waiting(), {"x": first / "."})
    execute(Recipe("toy", (first, second)), tmp_path)
    (run,) = seen
    assert run["state"] == "running" and run["says"] == "first running, step 4 of 4; 0 of 2 stages done"
    running, waiting = run["stages"]
    assert (running["state"], running["done"], running["note"]) == ("running", 4, "phase last")
    assert (waiting["state"], waiting["reads"]) == ("waiting", [running["id"]])
    assert Page(tmp_path).get("/api/runs/toy")["state"] == "finished"


@pytest.mark.parametrize(
    ("error", "state", "says"),
    [
        (ValueError("no data"), "failed", "ValueError: no data"),
        (KeyboardInterrupt("stopped by SIGINT"), "stopped", "stopped by SIGINT"),
    ],
)
def test_a_stage_that_ended_badly_says_why(tmp_path: Path, error: BaseException, state: str, says: str) -> None:
    def work(context: Any) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        execute(Recipe("toy", (Stage("only", Kind(name="toy", run=work, settings=Waiting), Waiting()),)), tmp_path)
    run = Page(tmp_path).get("/api/runs/toy")
    (stage,) = run["stages"]
    assert (stage["state"], stage["error"]) == (state, says)
    once = "only failed: ValueError: no data" if state == "failed" else "only stopped by SIGINT"
    assert run["says"] == f"{once}; 0 of 1 stages done"


LOCKING = """
import sys
from pathlib import Path
from r1kit.pipeline.guards import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_is_told_from_one_at_work_and_its_lock_stays_its_own(copied: Path) -> None:
    page = Page(copied)
    folder = copied / "small" / page.stages()["zero"]["id"]
    (folder / "manifest.json").unlink()
    progress = json.loads((folder / "progress.json").read_text()) | {"state": "running", "process": 0}
    (folder / "progress.json").write_text(json.dumps(progress))
    assert page.stages()["zero"]["state"] == "died"
    with subprocess.Popen(
        [sys.executable, "-c", LOCKING, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        assert page.stages()["zero"]["state"] == "running"
        with open(folder / ".lock", "a") as file, pytest.raises(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the other process still holds it
        process.kill()
    assert page.stages()["zero"]["state"] == "died"
    with locked(folder):
        pass


def test_a_run_that_grows_between_two_looks(copied: Path) -> None:
    page, states = Page(copied), States()
    changes = Changes(copied, "small", states)
    assert changes.look() == [] and changes.look() == []
    zero = page.stages()["zero"]["id"]
    folder = copied / "small" / zero
    (folder / "manifest.json").unlink()
    changes.look()
    row = list(read_rows(folder / "metrics.jsonl"))[-1] | {"step": 4, "reward/mean": 7.0}
    with RowWriter(folder / "metrics.jsonl") as file:
        file.append(row)
    shutil.copy(folder / "rollouts" / "step-000003.jsonl", folder / "rollouts" / "step-000004.jsonl")
    events = dict(changes.look())
    place = {"run": "small", "stage": zero}
    assert events["step"] == place | {"step": 4} and events["rollouts"] == place | {"step": 4}
    later = page.get("/api/runs/small/curves", stage=zero, since=3)
    assert {plot["title"]: plot["series"][0]["values"] for plot in later["plots"]}["Reward"] == [7.0]
    assert page.get("/api/runs/small/rollouts", stage=zero)["steps"] == [1, 2, 3, 4]

    with open(folder / "metrics.jsonl", "ab") as half:
        half.write(b'{"step": 5, "rew')  # what a writer has not finished
    assert page.get("/api/runs/small/curves", stage=zero, since=4)["plots"] == []
    shutil.rmtree(folder)
    assert page.get("/api/runs/small/curves", 404, stage=zero)["error"].startswith("run small has no stage folder")
    assert page.stages()["zero"]["state"] == "waiting"


def test_tokens_that_are_no_texts_are_not_shown_and_the_others_are(copied: Path) -> None:
    (stage,) = (copied / "small").glob("zero-*")
    file = stage / "logprobs" / "step-000001.jsonl"
    rows = list(read_rows(file))
    rows[0]["texts"][0] = None
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    group = Page(copied).get(f"/api/runs/small/rollouts/{stage.name}/1/0", tokens="1")
    assert [completion["pieces"] is None for completion in group["completions"]] == [True, False, False, False]


def test_metrics_that_a_resumed_run_wrote_again_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    growing = GrowingMetrics(file)
    assert not growing.metrics()
    file.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n')
    assert growing.metrics().series("a") == [(1, 1), (2, 2)]
    file.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 3}\n{"step": 3, "a": 4}\n')
    assert growing.metrics().series("a") == [(1, 1), (2, 3), (3, 4)]
    file.unlink()
    assert not growing.metrics()


def test_a_thinned_curve_keeps_its_ends_and_its_spikes() -> None:
    course = [(float(step), 100.0 if step == 1234 else 0.1 * (step % 7)) for step in range(3000)]
    kept = thinned(course, 600)
    assert len(kept) <= 600 and kept[0] == 0 and kept[-1] == 2999 and 1234 in kept
    assert thinned(course[:5], 600) == [0, 1, 2, 3, 4]


@pytest.fixture
def served(copied: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """The command itself, its address and its runs."""
    command = [sys.executable, "-m", "r1kit", "watch", str(copied), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("watch at http://127.0.0.1:")
        yield process, line.split()[-1], copied
        process.kill()


def test_a_new_step_arrives_as_an_event_and_ctrl_c_ends_the_page(
    served: tuple[subprocess.Popen[str], str, Path],
) -> None:
    process, address, runs = served
    (folder,) = (runs / "small").glob("zero-*")
    (folder / "manifest.json").unlink()
    row = list(read_rows(folder / "metrics.jsonl"))[-1]
    with urllib.request.urlopen(f"{address}api/events?run=small", timeout=60) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream") and stream.readline() == b"retry: 2000\n"
        with RowWriter(folder / "metrics.jsonl") as file:
            file.append(row | {"step": 4})
        lines = iter(stream.readline, b"")
        assert next(line for line in lines if line == b"event: step\n")
        data = json.loads(next(lines).removeprefix(b"data: "))
        assert data == {"run": "small", "stage": folder.name, "step": 4}
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
    assert process.stderr is not None and "Traceback" not in process.stderr.read()


# ---- bad input


@pytest.mark.parametrize(
    ("path", "query", "status", "says"),
    [
        ("/api/runs/none", {}, 404, "there is no run 'none'"),
        ("/api/runs/..", {}, 404, "there is no page"),
        ("/api/runs/%2e%2e", {}, 404, "there is no"),
        ("/api/runs/small/curves", {"stage": "../x"}, 404, "no stage folder"),
        ("/api/runs/small/curves", {"stage": "ZERO", "points": "many"}, 400, "points is 'many'"),
        ("/api/runs/small/rollouts/ZERO/99", {}, 404, "has no rollouts of step 99"),
        ("/api/runs/small/rollouts/ZERO/1/77", {}, 404, "has 4 groups, no group 77"),
        ("/api/runs/small/rollouts/ZERO/1", {"filter": "odd"}, 400, "there is no filter 'odd'"),
        ("/api/runs/small/rollouts/ZERO/1", {"sort": "odd"}, 400, "cannot sort by 'odd'"),
        ("/api/runs/small/rows", {"stage": "ZERO", "file": "../../../secret.jsonl"}, 404, "has no file"),
        ("/api/runs/small/rows", {"stage": "ZERO", "file": "/etc/passwd"}, 404, "has no file"),
        ("/api/runs/small/rows", {"stage": "ZERO", "file": "metrics.jsonl", "from": "x"}, 400, "from is 'x'"),
        ("/api/runs/small/lineage", {"stage": "ZERO", "file": "metrics.jsonl", "row": 99}, 404, "has no row 99"),
    ],
)
def test_what_does_not_exist_is_one_sentence(
    page: Page, path: str, query: dict[str, str], status: int, says: str
) -> None:
    zero = page.stages()["zero"]["id"]
    query = {name: zero if value == "ZERO" else value for name, value in query.items()}
    error = page.get(path.replace("ZERO", zero), status, **query)
    assert says in error["error"] and error["status"] == status


def test_links_that_lead_out_are_not_followed(copied: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    for name in ("manifest.json", "rows.jsonl"):
        (secret / name).write_text('{"kind": "secret"}\n')
    page = Page(copied)
    folder = copied / "small" / page.stages()["zero"]["id"]
    (folder / "kept.jsonl").symlink_to(secret / "rows.jsonl")
    (copied / "small" / "out-0a1b2c3d").symlink_to(secret)
    (copied / "elsewhere").symlink_to(secret.parent)
    assert [run["id"] for run in page.get("/api/runs")["runs"]] == ["small"]
    assert "out" not in {stage["name"] for stage in page.get("/api/runs/small")["earlier"]}
    says = page.get("/api/runs/small/rows", 404, stage=folder.name, file="kept.jsonl")["error"]
    assert "leads out of its folder" in says
    assert page.get("/api/runs/small/curves", 404, stage="out-0a1b2c3d")


@pytest.mark.parametrize("content", ["{", "[]", "7", '{"stage": 3}', ""])
def test_a_damaged_file_is_the_trouble_of_one_stage(copied: Path, content: str) -> None:
    page = Page(copied)
    stages = page.stages()
    folder = copied / "small" / stages["zero"]["id"]
    (folder / "manifest.json").write_text(content)
    (copied / "small" / stages["sft"]["id"] / "stage.json").write_text(content)
    (copied / "small" / stages["sft"]["id"] / "manifest.json").unlink()
    after = page.stages()
    assert after["r1"]["state"] == "done"
    assert {after[name]["state"] for name in ("zero", "sft")} <= {"damaged", "done", "died"}
    if content in ("{", "[]", "7", ""):
        assert after["zero"]["state"] == "damaged" and "manifest.json" in after["zero"]["error"]
    (copied / "small" / "plan.json").write_text(content)
    page.get("/api/runs/small")
    (folder / "rollouts" / "step-000002.jsonl").write_text('{"step": 2}\n{"step": oops}\n')
    says = page.get(f"/api/runs/small/rollouts/{folder.name}/2", 422)["error"]
    assert "step-000002.jsonl" in says and "Traceback" not in says
    page.get(f"/api/runs/small/rollouts/{folder.name}/1")


def test_other_sites_and_other_methods_are_refused(page: Page) -> None:
    assert page.client.get("/api/runs", headers={"host": "evil.example"}).status_code == 421
    assert page.client.post("/api/runs").status_code in (403, 405, 415)
    assert page.client.delete("/api/runs").status_code == 405
    assert "default-src 'none'" in page.client.get("/api/runs").headers["content-security-policy"]


def test_without_the_extra_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["watch", str(tmp_path), "--no-browser"]) == 1
    assert "the live page needs uvicorn: pip install 'r1kit[web]'" in capsys.readouterr().err


def test_a_file_is_refused_and_a_folder_that_is_not_there_yet_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert cli.main(["watch", str(tmp_path / "file"), "--no-browser"]) == 1
    assert "file is a file: name a folder of runs, or one run's folder" in capsys.readouterr().err
    monkeypatch.setattr(StoppableServer, "run_until_stopped", lambda self, opened: None)
    assert cli.main(["watch", str(tmp_path / "nothere"), "--port", "0", "--no-browser"]) == 0
    assert "nothere does not exist yet: the page shows runs when they begin there" in capsys.readouterr().err


def test_a_folder_without_runs_is_an_empty_list_until_a_run_begins(tmp_path: Path) -> None:
    page = Page(tmp_path / "runs")
    assert page.get("/api/runs")["runs"] == []
    only = Stage("only", Kind(name="toy", run=lambda context: {}, settings=Waiting), Waiting())
    execute(Recipe("toy", (only,)), tmp_path / "runs")
    assert [run["id"] for run in page.get("/api/runs")["runs"]] == ["toy"]
    assert Page(tmp_path / "runs" / "toy").get("/api/runs/toy")["state"] == "finished"


ODD_PLANS = (
    '{"stages": [{"stage": [], "kind": 1, "folder": [], "reads": 5}]}',
    '{"stages": [{"stage": "a", "kind": "rl", "folder": {}, "reads": []}]}',
    '{"stages": [{"stage": "a", "kind": "rl", "folder": "x", "reads": [[]]}]}',
    "[" * 100_000,
)
ODD_VALUES = '{"done": "x", "total": [], "seconds_left": "y", "changed": "z", "state": "running"}'
ODD_SETTINGS = '{"settings": [], "seconds": "x", "metrics": [1], "inputs": null}'


def test_values_of_unexpected_types_in_one_run_hide_no_other_run(tmp_path: Path) -> None:
    for number, plan in enumerate(ODD_PLANS):
        (tmp_path / f"plan-{number}").mkdir()
        (tmp_path / f"plan-{number}" / "plan.json").write_text(plan)
    for name, text in (("progress.json", ODD_VALUES), ("manifest.json", ODD_SETTINGS), ("stage.json", ODD_SETTINGS)):
        stage = tmp_path / name.partition(".")[0] / "rl-1a2b3c4d"
        stage.mkdir(parents=True)
        (stage / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
        (stage / name).write_text(text)
    with TestClient(make_app(tmp_path), base_url="http://127.0.0.1") as client:
        assert len(client.get("/api/runs").json()["runs"]) == len(ODD_PLANS) + 3
    assert len(status_text(status(tmp_path)).splitlines()) >= len(ODD_PLANS) + 3
