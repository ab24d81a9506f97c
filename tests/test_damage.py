"""Damaged files that no manifest records: each is refused, or repaired, with a message that names it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from r1kit import store
from r1kit.chat import ChatFormat
from r1kit.collect.rating import useless_helpers
from r1kit.curate.curation import curate
from r1kit.curate.mixing import MixSettings, mix
from r1kit.data.errors import DataError
from r1kit.data.journal import Journal
from r1kit.data.jsonl import RowWriter, keep_steps, read_rows
from r1kit.evaluate.measurement import measure
from r1kit.pipeline import Kind, Recipe, Stage, execute
from r1kit.report.folders import StageFolder
from r1kit.report.health import checks
from r1kit.report.live.health_reader import HealthReader
from r1kit.settings import Settings
from r1kit.store import StoreError, write_json
from r1kit.tracking import tracked
from r1kit.train import checkpoints
from r1kit.types import Completion, Problem, SamplingParams


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "row lost", "state", "empty state"])
def test_a_journal_whose_rows_are_not_those_that_were_written_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "samples.jsonl"
    with Journal(path) as journal:
        journal.append([{"text": "a" * 40}, {"text": "b" * 40}], {"asked": 2})
    if damage == "flip":
        flip(path)
    elif damage == "row lost":  # and another one added, so that the size is the same
        path.write_text(path.read_text().replace("a", "b"))
    else:
        state = "{}" if damage == "empty state" else '{"batches": "x", "counts": 3}'
        (tmp_path / "samples.jsonl.state.json").write_text(state)
    with pytest.raises(StoreError, match=r"samples.jsonl.*(restore it, or delete its folder)"):
        Journal(path)


def test_a_journal_of_an_older_version_goes_on_and_has_a_hash_from_then_on(tmp_path: Path) -> None:
    path, state = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.state.json"
    with Journal(path) as journal:
        journal.append([{"n": 1}], {})
    content = json.loads(state.read_text())
    write_json(state, {name: content[name] for name in content if name != "sha256"})
    with Journal(path) as journal:
        journal.append([{"n": 2}], {})
    assert [row["n"] for row in read_rows(path)] == [1, 2]
    assert json.loads(state.read_text())["sha256"] == store.sha256(path)


def sample(number: int) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": f"{number}+{number}?"},
        {"role": "assistant", "content": f"It is {2 * number}."},
    ]
    return {"id": f"s{number}", "messages": turns}


def test_curated_and_mixed_rows_that_are_not_as_they_were_written_are_refused(tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "mix" / "mixed.jsonl"
    with RowWriter(rows) as file:
        for number in range(20):
            file.append(sample(number))
    curate([rows], tmp_path / "curated")
    mix({"a": [rows]}, out, MixSettings(ratios={"a": 1.0}))
    curate([rows], tmp_path / "curated")
    mix({"a": [rows]}, out, MixSettings(ratios={"a": 1.0}))
    written = [tmp_path / "curated" / f"{name}.jsonl" for name in ("kept", "dropped")]
    largest = max(written, key=lambda path: path.stat().st_size)
    largest.write_text("".join(largest.read_text().splitlines(keepends=True)[1:]))
    flip(out)
    with pytest.raises(StoreError, match=r"(kept|dropped).jsonl is damaged: .* delete .*curation.json"):
        curate([rows], tmp_path / "curated")
    with pytest.raises(StoreError, match=r"mixed.jsonl is damaged: .*delete it, and it is mixed again"):
        mix({"a": [rows]}, out, MixSettings(ratios={"a": 1.0}))


class Answers:
    """An engine that answers with the sample's number."""

    def generate(self, prompts: Any, params: SamplingParams, report: Any = None) -> list[list[Completion]]:
        answers = [Completion(token_ids=(1,), text=f"{n}", logprobs=(), finish_reason="stop") for n in range(params.n)]
        return [answers for _ in prompts]


def evaluated(folder: Path) -> Any:
    problems = [Problem(id=f"p{n}", prompt="?", answer="1", verifier="number") for n in range(3)]
    sampling, engine = SamplingParams(n=2), Answers()
    return measure(engine, problems, ChatFormat(), sampling, folder / "rows.jsonl", lambda *_: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new"), [('"completion": "0"', '"completion": "10"'), ('"sample": 0', '"sample": 1'), ("p2", "p0")]
)
def test_rows_of_an_evaluation_that_are_not_those_that_it_wrote_are_refused(tmp_path: Path, old: str, new: str) -> None:
    evaluated(tmp_path)
    changed = (tmp_path / "rows.jsonl").read_text().replace(old, new, 1)
    (tmp_path / "rows.jsonl").write_text(changed)
    with pytest.raises(StoreError, match=r"rows.jsonl is damaged: .*restore it, or delete its folder to start again"):
        evaluated(tmp_path)
    assert (tmp_path / "rows.jsonl").read_text() == changed


def test_an_evaluation_of_an_older_version_goes_on_without_a_state(tmp_path: Path) -> None:
    before, path = evaluated(tmp_path), tmp_path / "rows.jsonl"
    (tmp_path / "rows.jsonl.state.json").unlink()
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    assert evaluated(tmp_path) == before
    assert sorted(path.read_text().splitlines(keepends=True)) == sorted(lines)


@pytest.mark.parametrize(
    ("line", "message"), [("no json", "row 2"), ('{"loss": 1}', "row 2.*no step"), ("[]", "row 2")]
)
def test_a_metrics_row_that_is_none_is_named_with_file_and_row(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 3}}\n')
    with pytest.raises(DataError, match=f"metrics.jsonl, {message}"):
        keep_steps(path, 3)
    assert path.read_text().count("\n") == 3


def test_a_stage_that_goes_on_without_rows_of_its_logs_says_so_and_its_health_shows_it(tmp_path: Path) -> None:
    metrics, hashes = tmp_path / "metrics.jsonl", tmp_path / "step_hashes.jsonl"
    for file in (metrics, hashes):
        file.write_text("".join(f'{{"step": {step}}}\n' for step in range(1, 9)))
    assert checkpoints.keep_logs(tmp_path, 6, {}) == []
    assert [row["step"] for row in read_rows(metrics)] == [1, 2, 3, 4, 5, 6]
    metrics.write_text('{"step": 1}\n{"step": 2}\n')
    hashes.unlink()
    assert [line[:62] for line in checkpoints.keep_logs(tmp_path, 6, {})] == [
        "metrics.jsonl has lost the rows of 4 of the 6 steps before; th",
        "step_hashes.jsonl has lost the rows of 6 of the 6 steps before",
    ]
    metrics.write_text('{"step": 0}\n{"step": 1}\n{"step": 2}\n{"step": 7}\n')
    stage = StageFolder("rl", tmp_path)
    (lost,) = [check for check in checks(stage, {}) if check.name == "Lost steps"]
    assert lost.status == "attention" and lost.evidence.startswith(
        "4 steps up to 7 have no row in metrics.jsonl, first 3"
    )


def test_a_helper_of_which_no_reply_could_be_read_is_named() -> None:
    counts = Counter({"judge replies": 4, "judge unreadable": 4, "rewriter replies": 5, "rewriter unreadable": 2})
    [line] = useless_helpers(counts)
    assert "none of the 4 replies of the judge could be read" in line


def test_the_health_of_a_run_names_the_damaged_stage_and_shows_the_others(tmp_path: Path) -> None:
    for number, name in enumerate(("zero", "sft", "late")):
        folder = tmp_path / f"{name}-0000000{number}"
        facts = {"stage": name, "kind": "sft", "started": float(number), "fingerprint": "0", "inputs": {}}
        write_json(folder / "manifest.json", facts)
        with RowWriter(folder / "metrics.jsonl") as rows:
            for step in range(1, 4):
                rows.append({"step": step, "optim/loss": 1.0})
    (tmp_path / "zero-00000000" / "manifest.json").write_text("{")
    (tmp_path / "late-00000002" / "metrics.jsonl").write_text("no json\n{}\n")
    health = HealthReader().read(tmp_path)
    verdicts = {row["name"]: row for row in health["stages"]}
    assert verdicts.keys() == {"zero", "sft", "late"}
    assert [name for name, row in verdicts.items() if row["verdict"] == "damaged"] == ["zero", "late"]
    assert "manifest.json" in verdicts["zero"]["evidence"][0] and "metrics.jsonl" in verdicts["late"]["evidence"][0]


HOLD = """
import sys
from pathlib import Path
from r1kit.pipeline.guards import locked
with locked(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.readline()
"""


def test_a_second_run_of_a_stage_that_runs_is_refused_before_its_trackers_start(tmp_path: Path) -> None:
    kind = Kind(name="toy", run=lambda context: {}, settings=Settings)
    recipe = Recipe("toys", (Stage("one", kind, Settings()),))
    entered = list[str]()

    def companion(rows: Any, display: Any) -> Any:
        entered.append("tracker")
        return tracked((), rows, display)

    folder = execute(recipe, tmp_path, companion=companion)
    (folder / "manifest.json").unlink()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdout.readline()
        entered.clear()
        with pytest.raises(
            StoreError, match=rf"process {other.pid} on .* is working in {folder}: wait for it or stop it"
        ):
            execute(recipe, tmp_path, companion=companion)
        other.stdin.write("\n")
    assert not entered
    execute(recipe, tmp_path, companion=companion)


class Runs:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/r1kit-was-run",)


def test_pickles_that_could_run_code_and_configurations_that_were_cut_are_refused(
    tmp_path: Path, tiny_policy_folder: Path
) -> None:
    from r1kit.models.known import ModelError
    from r1kit.models.load import load

    folder = tmp_path / "model"
    shutil.copytree(tiny_policy_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(ModelError, match=r"weights of 2 layers, and its config.json has num_hidden_layers 1"):
        load(str(folder))
    for content in ("[1]", '"x"', "3"):
        (folder / "config.json").write_text(content)
        with pytest.raises((ModelError, StoreError), match="config"):
            load(str(folder))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Runs()}))
    with pytest.raises(ModelError, match=r"model has a pickle|could not be loaded"):
        load(str(folder))
    assert not Path("/tmp/r1kit-was-run").exists()


@pytest.mark.parametrize("name", ["meta", "privateuseone", "cuda:99", "hpu", "gpu", "x" * 500])
def test_a_device_that_is_none_is_one_message(name: str) -> None:
    from r1kit.models.devices import device_of
    from r1kit.models.known import ModelError

    with pytest.raises(ModelError, match=r"give auto.* cpu") as error:
        device_of(name)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_the_log_of_the_live_page_is_bounded_and_no_link_out_of_the_folder_is_followed(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    from r1kit.web.watch.app import make_app

    stage = tmp_path / "runs" / "small" / "rl-00000000"
    stage.mkdir(parents=True)
    write_json(stage / "stage.json", {"stage": "rl"})
    client = TestClient(make_app(tmp_path / "runs"), base_url="http://127.0.0.1")
    with open(stage / "log.txt", "wb") as file:
        file.seek(2**33)  # eight gigabytes of nothing
        file.write(b"\nlast line\n")
    answer = client.get("/api/runs/small/log", params={"stage": stage.name})
    assert answer.status_code == 200 and answer.json()["lines"] == ["last line"]
    (tmp_path / "secret").write_text("secret")
    (stage / "log.txt").unlink()
    (stage / "log.txt").symlink_to(tmp_path / "secret")
    answer = client.get("/api/runs/small/log", params={"stage": stage.name})
    assert (
        answer.status_code == 404
        and "leads out of its folder" in answer.text
        and "secret" not in answer.text.replace("secret'", "")
    )
