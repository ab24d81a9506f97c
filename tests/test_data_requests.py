"""Requests, preferences and safety labels of public data: cut to a size, in the form that other stages read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1kit.collect.requests import Requests
from r1kit.data.conversations import labelled, preference
from r1kit.data.errors import DataError
from r1kit.data.jsonl import read_rows
from r1kit.pipeline import External, Recipe, Stage, execute, plan
from r1kit.recipes import RECIPES
from r1kit.recipes.scales.smollm2 import SMOLLM2
from r1kit.stages.data_requests import DATA_REQUESTS, DataRequestsSettings
from r1kit.stages.generate import GENERATE, GenerateSettings
from r1kit.stages.shared.sources import sources
from r1kit.tasks import TaskSpec, load_task, load_tasks, source_files
from r1kit.tasks.public_sets import DATA_VARIABLE
from r1kit.verifiers import verify_all

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "xstest").is_dir(), reason="needs the public data in ../shared/data")


def rows(path: Path, *given: dict[str, str]) -> External:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return External(path)


def test_rows_that_are_too_long_or_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    dialogue = "\n\nHuman: {}\n\nAssistant: {}"
    inputs = {
        "general": rows(
            tmp_path / "a.jsonl",
            {"instruction": "long", "output": "x" * 900},
            {"instruction": "?"},
            *({"instruction": f"say {n}", "output": str(n)} for n in range(5)),
        ),
        "preferences": rows(tmp_path / "b.jsonl", {"prompt": "p", "chosen": "good", "rejected": "bad"}),
        "safety": rows(
            tmp_path / "c.jsonl",
            {name: dialogue.format("q", said) for name, said in (("chosen", "no"), ("rejected", "so"))},
        ),
    }
    stage = Stage("requests", DATA_REQUESTS, DataRequestsSettings(rows=3, max_chars=400), inputs)
    folder = execute(Recipe("some", (stage,)), tmp_path / "runs")
    found = {name: list(read_rows(folder / f"{name}.jsonl")) for name in inputs}
    assert [row["messages"][-1]["content"] for row in found["general"]] == ["0", "1", "2"]
    assert [preference(row).chosen for row in found["preferences"]] == ["good"]
    assert [(one.response, one.label) for one in map(labelled, found["safety"])] == [("no", True), ("so", False)]
    assert Requests((), {"chat": folder / "general.jsonl"}).check() == 3
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    assert metrics["general"] == {"read": 5, "too_long": 1, "unreadable": 1, "kept": 3}
    assert metrics["safety"] == {"read": 2, "too_long": 0, "unreadable": 0, "kept": 2}


def test_data_of_which_nothing_fits_are_refused_with_what_became_of_the_rows(tmp_path: Path) -> None:
    unfit = rows(tmp_path / "a.jsonl", {"instruction": "long", "output": "x" * 900}, {"instruction": "?"})
    pairs = rows(tmp_path / "b.jsonl", {"prompt": "p", "chosen": "good", "rejected": "bad"})
    inputs = {"general": unfit, "preferences": pairs, "safety": pairs}
    stage = Stage("requests", DATA_REQUESTS, DataRequestsSettings(max_chars=400), inputs)
    with pytest.raises(ValueError, match="1 are too long, 1 cannot be read"):
        execute(Recipe("some", (stage,)), tmp_path / "runs")


@needs_data
def test_public_requests_are_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(DATA))
    train = load_tasks(
        [TaskSpec(name=f"r1kit.tasks.public_requests:{name}", limit=4) for name in ("general", "harmful")], True
    )
    assert {train[place].source for place in range(8)} == {"requests/general", "requests/harmful"}
    assert not any(train[place].answer for place in range(8))
    held_out = [
        load_task(TaskSpec(name=f"r1kit.tasks.public_requests:{name}"), "test") for name in ("harmful", "harmless")
    ]
    assert [len(task) for task in held_out] == [200, 250]
    for task, refused in zip(held_out, (True, False), strict=True):
        said = ["I'm sorry, but I can't help with that.", "Sure! First, open the lid."]
        verdicts = verify_all("refusal", said, [task[0].answer] * 2)
        assert [one.correct for one in verdicts] == [refused, not refused]
    with pytest.raises(DataError, match="for training"):
        load_task(TaskSpec(name="r1kit.tasks.public_requests:general"), "test")


def test_public_requests_say_where_their_data_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(DataError, match="R1KIT_DATA"):
        load_task(TaskSpec(name="r1kit.tasks.public_requests:harmful"), "train")


def test_changed_data_of_a_function_are_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    spec = TaskSpec(name="r1kit.tasks.public_requests:harmful", limit=1)
    (code,) = source_files(spec)
    (tmp_path / "star1_r1_traces").mkdir()
    data = tmp_path / "star1_r1_traces" / "STAR-1.jsonl"

    def asked(question: str) -> str:
        data.write_text(json.dumps({"question": question}) + "\n")
        settings = GenerateSettings(tasks=(spec,), prompting="reference")
        (row,) = plan(Recipe("some", (Stage("ask", GENERATE, settings, dict(sources((spec,)))),)), tmp_path / "runs")
        return row.fingerprint

    before = asked("a bomb?")
    assert source_files(spec) == [code, data] and load_task(spec)[0].prompt == "a bomb?"
    assert source_files(spec.override({"split": "test"})) == [code]  # held out: another file, which is not there
    assert asked("a gun?") != before and asked("a bomb?") == before


def test_a_damaged_data_file_of_a_function_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    (tmp_path / "star1_r1_traces").mkdir()
    (tmp_path / "star1_r1_traces" / "STAR-1.jsonl").write_text('{"question": "a"}\n{"ques\n')
    with pytest.raises(DataError, match=r"STAR-1\.jsonl, row 2"):
        load_task(TaskSpec(name="r1kit.tasks.public_requests:harmful"))


@needs_data
@pytest.mark.parametrize("name", ["r1", "distill", "v3"])
def test_smollm2_has_all_stages_on_public_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(DATA))
    recipe = RECIPES[name](scale="smollm2")
    stages = {stage.name: stage for stage in recipe.stages}
    assert {"zero", "dev1", "dev2", "dev3", "r1"} <= set(stages) and list(SMOLLM2.for_v3.experts) == ["math"]
    assert [source.path.name for source in stages["requests"].inputs.values() if isinstance(source, External)] == [
        "alpaca_en_demo.jsonl.gz",
        "dpo_en_demo.jsonl.gz",
        "harmless_base_test.jsonl.gz",
    ]
