"""The benchmarks run from end to end and write what they promise; their times are not looked at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_step_is_compared_with_trl_and_with_the_bound(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the comparison needs TRL")
    printed = run("grpo_step.py", "--smoke", "--regimes", "fixed", "--out", str(tmp_path))
    assert printed.startswith("gate")
    results = json.loads((tmp_path / "grpo_step-smoke-2x4x8.json").read_text())
    assert results["gate"]["relative_error"] < 1e-4
    fixed = results["comparisons"]["2 x 4 x 8, fixed lengths"]
    assert set(fixed["ratio"]) == {"TRL t1@4"}
    assert set(fixed["ratio"]["TRL t1@4"]) == {"rollout", "train", "step"}
    for side in fixed["sides"].values():
        assert side["times_bound"]["step"]["median"] > 1, "nothing is faster than the bound"
        assert side["tokens"]["median"] == 2 * 4 * 8
    assert len(results["ladder_s"]) == 9
    assert str(Path.home()) not in json.dumps(results) and str(ROOT) not in json.dumps(results)


@pytest.fixture(scope="module")
def on_path() -> None:
    pytest.importorskip("torch")
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))


@pytest.mark.usefixtures("on_path")
def test_the_bound_of_a_step_is_the_formula_on_numbers_that_can_be_worked_out_by_hand() -> None:
    from _bound import Roofs, Shapes, bound
    from _workload import Rollouts

    # 1,000 trunk weights, a head of 10 x 100, no attention to speak of; everything runs at 1 flop/s, memory at no cost
    shapes = Shapes(((100, 10),), (100, 10), layers=0, heads=1, kv_heads=1, head_dim=1, parameters=0)
    roofs = Roofs(decode=1, decode_head=1, prefill=1, train=1, train_head=1, memory=float("inf"))
    group = Rollouts(prompt=7, lengths=[3, 5], trained=True)
    seconds = bound([group], shapes, roofs, slots=2)
    assert seconds["rollout"] == 7 * 2000 + 2000 + (8 - 2) * 4000
    assert seconds["train"] == 3 * ((7 + 8) * 2000 + 8 * 2000)
    assert seconds["step"] == seconds["rollout"] + seconds["train"]


@pytest.mark.usefixtures("on_path")
def test_a_group_without_variance_is_no_work_for_the_bound_of_training() -> None:
    from _bound import Roofs, Shapes, bound
    from _workload import Rollouts

    shapes = Shapes(((100, 10),), (100, 10), layers=2, heads=1, kv_heads=1, head_dim=4, parameters=0)
    roofs = Roofs(decode=1, decode_head=1, prefill=1, train=1, train_head=1, memory=1)
    assert bound([Rollouts(prompt=7, lengths=[3, 5], trained=False)], shapes, roofs, slots=2)["train"] == 0


@pytest.mark.usefixtures("on_path")
def test_a_roof_is_the_best_exact_product_and_int8_is_none() -> None:
    from _bound import Roofs

    row = {"F.linear fp32": 1.0, "packed fp32": 2.0, "F.linear bf16": 4.0, "packed bf16": 3.0, "int8": 9.0}
    speeds = {"memory": {"sum": 5.0}, "decode": row, "train": row}
    best, exact = Roofs.of(speeds, "any"), Roofs.of(speeds, "fp32")
    assert (best.memory, best.decode, best.train, best.width) == (5, 4, 4, 2)
    assert (exact.memory, exact.decode, exact.train, exact.width) == (5, 2, 2, 4)


def test_the_rate_of_verdicts_is_measured_by_kind(tmp_path: Path) -> None:
    run("verdicts.py", "--count", "40", "--out", str(tmp_path))
    kinds = json.loads((tmp_path / "verdicts.json").read_text())["kinds"]
    assert set(kinds) == {"typical", "fractions", "symbolic"}
    assert all(row["unknown"] == 0 and row["right"] > 0 and row["wrong"] > 0 for row in kinds.values())


@pytest.mark.slow
def test_the_table_of_templates_has_a_full_round_of_each_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from shapes import SHAPES

    names = ("deepseek-r1", "qwen-3-silent", "glm-4", "vicuna", "chatml-base")
    folders = [str(SHAPES[name].save(tmp_path / name)) for name in names]
    (tmp_path / "empty").mkdir()
    run("templates.py", "--out", str(tmp_path / "table.md"), *folders, str(tmp_path / "empty"))
    *rows, refused = (tmp_path / "table.md").read_text().splitlines()[-len(names) - 1 :]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in names]
    assert all(row.endswith(" | yes |") for row in rows), rows
    assert "refused: empty has no config.json" in refused
