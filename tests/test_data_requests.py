"""Requests, preferences and safety labels of public data: cut to a size, in the form that other stages read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.recipes import RECIPES
from r1kit.recipes.r1_smollm2 import R1_SMOLLM2
from r1kit.stages.data_requests import DATA_REQUESTS, DataRequestsSettings
from r1kit.stages.requests import Requests
from r1kit.store import read_rows
from r1kit.tasks import TaskError, TaskSpec, load_task, load_tasks
from r1kit.tasks.known import DATA_VARIABLE
from r1kit.train.data import labelled, preference
from r1kit.verifiers import verify_all

DATA = Path(__file__).parents[1].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "xstest").is_dir(), reason="needs the public data in ../shared/data")


def rows(path: Path, *given: dict[str, str]) -> External:
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return External(path)


def test_rows_that_are_too_long_or_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    dialogue = "\n\nHuman: {}\n\nAssistant: {}"
    inputs = {
        "general": rows(tmp_path / "a.jsonl", {"instruction": "long", "output": "x" * 900}, {"instruction": "?"},
                        *({"instruction": f"say {n}", "output": str(n)} for n in range(5))),
        "preferences": rows(tmp_path / "b.jsonl", {"prompt": "p", "chosen": "good", "rejected": "bad"}),
        "safety": rows(tmp_path / "c.jsonl", {name: dialogue.format("q", said)
                                              for name, said in (("chosen", "no"), ("rejected", "so"))}),
    }  # fmt: skip
    stage = Stage("requests", DATA_REQUESTS, DataRequestsSettings(rows=3, max_chars=400), inputs)
    folder = execute(Recipe("some", (stage,)), tmp_path / "runs")
    found = {name: list(read_rows(folder / f"{name}.jsonl")) for name in inputs}
    assert [row["messages"][-1]["content"] for row in found["general"]] == ["0", "1", "2"]
    assert [preference(row).chosen for row in found["preferences"]] == ["good"]
    assert [(one.response, one.label) for one in map(labelled, found["safety"])] == [("no", True), ("so", False)]
    assert Requests((), {"chat": folder / "general.jsonl"}).check() == 3


@needs_data
def test_public_requests_are_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(DATA))
    train = load_tasks(
        [TaskSpec(name=f"r1kit.tasks.requests:{name}", limit=4) for name in ("general", "harmful")], True
    )
    assert {train[place].source for place in range(8)} == {"requests/general", "requests/harmful"}
    assert not any(train[place].answer for place in range(8))
    held_out = [load_task(TaskSpec(name=f"r1kit.tasks.requests:{name}"), "test") for name in ("harmful", "harmless")]
    assert [len(task) for task in held_out] == [200, 250]
    for task, refused in zip(held_out, (True, False), strict=True):
        said = ["I'm sorry, but I can't help with that.", "Sure! First, open the lid."]
        verdicts = verify_all("refusal", said, [task[0].answer] * 2)
        assert [one.correct for one in verdicts] == [refused, not refused]
    with pytest.raises(TaskError, match="for training"):
        load_task(TaskSpec(name="r1kit.tasks.requests:general"), "test")


def test_public_requests_say_where_their_data_belong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(TaskError, match="R1KIT_DATA"):
        load_task(TaskSpec(name="r1kit.tasks.requests:harmful"), "train")


@needs_data
@pytest.mark.parametrize("name", ["r1", "distill", "v3"])
def test_smollm2_has_all_stages_on_public_data(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(DATA))
    recipe = RECIPES[name](scale="smollm2")
    stages = {stage.name: stage for stage in recipe.stages}
    assert {"zero", "dev1", "dev2", "dev3", "r1"} <= set(stages) and R1_SMOLLM2.domains == ("math",)
    assert [source.path.name for source in stages["requests"].inputs.values() if isinstance(source, External)] == [
        "alpaca_en_demo.jsonl.gz", "dpo_en_demo.jsonl.gz", "harmless_base_test.jsonl.gz"
    ]  # fmt: skip
