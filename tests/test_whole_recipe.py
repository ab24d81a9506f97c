"""The recipe r1 from the shipped base to its students, at the smallest sizes: every stage runs, and nothing is left."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from r1kit.cli import main
from r1kit.recipes import build_recipe

STEPS = {"steps": "1", "prompts_per_step": "2", "group_size": "2", "max_tokens": "60"}
SAMPLED = {"tasks": '[{"name": "tiny/reasoning", "limit": 20, "seed": 1}]', "samples": "4", "max_tokens": "60"}
JUDGES = {"batch_size": "40", "validation_share": "0.1"}
SOURCES = ("few-shot", "reflect", "cold-start", "rejection")
TRAINED = ("zero", "dev2", "rules", "r1", "student-rl")
SMALLEST = {
    **{f"{stage}.{name}": value for stage in TRAINED for name, value in STEPS.items()},
    **{f"{stage}.{name}": value for stage in SOURCES for name, value in SAMPLED.items()},
    **{f"{stage}.{name}": value for stage in ("helpfulness", "safety") for name, value in JUDGES.items()},
    **{f"student-on-policy.{name}": value for name, value in STEPS.items() if name != "group_size"},
    "requests.rows": "40",
    "replies.tasks": '[{"name": "tiny/general", "split": "practice", "limit": 24}]',
    "mix.size": "8",
    "eval.tasks": '[{"name": "tiny/sums", "limit": 2}]',
    "eval.samples": "1",
    "eval.max_tokens": "30",
    "everyday.tasks": '[{"name": "tiny/general", "limit": 2}, {"name": "tiny/harmful", "limit": 2}]',
    "everyday.samples": "1",
    "everyday.max_tokens": "10",
}
STUDENTS = ["student", "student-rl", "student-sft", "student-logits", "student-on-policy"]
COLUMNS = ["base", "zero", "dev1", "dev2", "dev3", "r1", *STUDENTS]


def test_every_stage_runs_and_the_report_has_the_table_of_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [part for name, value in SMALLEST.items() for part in ("--set", f"{name}={value}")]
    wanted = ["r1", "--runs", str(tmp_path), *changes]
    assert main(["run", *wanted, "--jobs", "1", "--until", "dev1"]) == 0
    assert main(["run", *wanted, "--jobs", "1"]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    whole = json.loads((folder / "summary.json").read_text())["table_of_stages"]
    assert whole["columns"] == COLUMNS and whole["teacher"] == "r1"
    titles = {row["title"] for row in whole["rows"]}
    assert {
        "accuracy",
        "format kept",
        "language consistency",
        "readable",
        "reasoning tokens",
        "helpfulness",
        "refuses the harmful",
    } <= titles
    page = (folder / "report.html").read_text()
    assert all(f"Data of data/{name}" in page for name in SOURCES) and "<svg class=" in page
    assert all(f">{name}</text>" in page for name in SOURCES)
    assert main(["plan", *wanted, "--json"]) == 0
    assert {row["status"] for row in json.loads(capsys.readouterr().out)} == {"done"}
    changed = [*wanted, "--set", "dev3.batch_size=7", "--json"]
    assert main(["plan", *changed]) == 0
    kept = {row["stage"] for row in json.loads(capsys.readouterr().out) if row["status"] == "done"}
    assert {"zero", *SOURCES, "dev1", "dev2", "mix", "student-rl", "student-sft", "eval-dev2"} <= kept
    assert not kept & {
        "dev3",
        "rules",
        "replies",
        "preferences",
        "helpfulness",
        "safety",
        "r1",
        "student-logits",
        "student-on-policy",
        "eval-dev3",
        "eval-r1",
        "report",
    }


@pytest.mark.parametrize("name", ["r1-zero", "r1", "distill", "v3", "v4", "tiny-base"])
def test_each_stage_of_a_recipe_can_be_sent_to_another_process(name: str) -> None:
    for stage in build_recipe(name, rehearse=name == "r1").stages:
        kind = replace(stage.kind, sources=None, cost=None, on_device=None)  # only plans need these
        sent = pickle.loads(pickle.dumps(replace(stage, kind=kind, inputs={})))
        assert sent.settings == stage.settings and sent.kind.run is stage.kind.run
