"""The benchmarks run from end to end and write what they promise; their times are not looked at."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


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


@pytest.mark.usefixtures("on_path")
def test_the_rate_of_verdicts_is_measured_by_kind(tmp_path: Path) -> None:
    import verdicts

    verdicts.main(["--count", "40", "--out", str(tmp_path)])
    kinds = json.loads((tmp_path / "verdicts.json").read_text())["kinds"]
    assert set(kinds) == {"typical", "fractions", "symbolic", "different algebra", "approximated"}
    assert all(row["unknown"] == 0 and row["right"] > 0 and row["wrong"] > 0 for row in kinds.values())


@pytest.mark.slow
@pytest.mark.usefixtures("on_path")
def test_the_table_of_templates_has_a_full_round_of_each_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import templates

    from shapes import SHAPES

    names = ("deepseek-r1", "qwen-3-silent", "glm-4", "vicuna", "chatml-base")
    folders = [str(SHAPES[name].save(tmp_path / name)) for name in names]
    (tmp_path / "empty").mkdir()
    arguments = ["--out", str(tmp_path / "table.md"), *folders, str(tmp_path / "empty")]
    monkeypatch.setattr(sys, "argv", ["templates.py", *arguments])
    templates.main()
    *rows, refused = (tmp_path / "table.md").read_text().splitlines()[-len(names) - 1 :]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in names]
    assert all(row.endswith(" | yes |") for row in rows), rows
    assert "refused: empty has no config.json" in refused


@pytest.mark.slow
@pytest.mark.usefixtures("on_path")
def test_the_checks_of_a_gpu_run_in_miniature_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu_check

    arguments = ["--device", "cpu", "--shapes", "tiny", "--out", str(tmp_path / "checks.json")]
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *arguments])
    assert gpu_check.main() == 0
    assert "all numbers agree" in capsys.readouterr().out
    checks = json.loads((tmp_path / "checks.json").read_text())["checks"]
    assert checks["parity in fp32"]["logprob_gap_max"] == 0.0, "the CPU against itself"
    assert checks["gap tiny"]["gap_mean"] < 1e-5
    assert checks["recorded tiny"]["tokens_equal"] == 1.0
    assert all(checks[name]["tokens_per_s"] > 0 for name in ("train tiny", "memory tiny", "decode tiny"))
    assert set(checks["run r1-zero tiny"]) >= {"base", "zero", "s"}


@pytest.mark.usefixtures("on_path")
def test_the_check_of_a_gpu_says_when_there_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu_check
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py"])
    assert gpu_check.main() == 2
    assert "torch finds no GPU on this machine, so nothing was checked" in capsys.readouterr().err


@pytest.mark.usefixtures("on_path")
def test_a_check_of_a_gpu_that_decides_and_is_left_out_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import gpu_check
    import torch

    def out_of_memory() -> None:
        raise torch.cuda.OutOfMemoryError

    for name, status in (("parity in fp32", 1), ("train tiny", 0)):
        monkeypatch.setattr(gpu_check, "checks", lambda check, name=name: [(name, out_of_memory)])
        monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--device", "cpu", "--shapes", "tiny"])
        assert gpu_check.main() == status
        printed = capsys.readouterr().out
        assert f"{name}: left_out out of memory" in printed and ("NOT CHECKED: parity" in printed) == bool(status)


@pytest.mark.usefixtures("on_path")
def test_the_page_of_architectures_says_what_the_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    import architectures
    import transformers

    page = architectures.PAGE.read_text(encoding="utf-8")
    [version] = re.findall(r"with transformers ([\d.]+\d):", page)
    monkeypatch.setattr(transformers, "__version__", version)
    assert architectures.page(json.loads(architectures.RESULTS.read_text())) == page


@pytest.mark.slow
@pytest.mark.usefixtures("on_path")
def test_the_sweep_of_architectures_trains_a_class_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import architectures

    from r1kit.models import load

    for kind, outcome in (("llama", "packed"), ("bloom", "plain")):
        facts = architectures.measure(kind)
        assert (facts["outcome"], facts["steps"]) == (outcome, 2) and facts["gap"] < architectures.TOLERANCE
    assert architectures.measure("musicgen")["outcome"] == "not built"
    monkeypatch.setattr(load, "load", lambda *_, **__: 1 / 0)
    assert architectures.measure("llama") == {"outcome": "failed", "reason": "ZeroDivisionError: division by zero"}


@pytest.mark.usefixtures("on_path")
def test_the_cost_of_passes_is_the_formula_on_numbers_that_can_be_worked_out_by_hand() -> None:
    from _gpu_models import Cost, Groups

    cost, groups = Cost(trunk=100, head=10, attention=2, kv=3), Groups(prompts=2, group=3, prompt=4, completion=5)
    assert groups.tokens == 2 * (4 + 15)
    # trunk on all tokens, head on completions, pairs of prompt and completions; backward costs twice the forward pass
    pairs = 2 * (4**2 / 2 + 3 * (5 * 4 + 5**2 / 2))
    assert cost.training(groups) == 3 * (200 * 38 + 20 * 30 + 2 * pairs)
    # four steps read all weights, and six rows their prompts and what they wrote
    assert cost.decoding(groups, width=2) == 2 * (4 * 110 + 3 * 6 * (4 * 4 + 4**2 / 2))


@pytest.fixture
def in_this_process(on_path: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sides run in the test's own process, which has loaded torch already."""
    import _compare
    import _process
    import generate
    import torch

    def run_side(side: str, work: Any) -> Any:
        module, function = side.split(":")
        result = replace(getattr(importlib.import_module(module), function)(work), peak_mb=_process.peak_mb())
        assert not result.steps or not work.objection(result)
        return result

    for module in (_compare, generate):
        monkeypatch.setattr(module, "run_side", run_side)
    precision = torch.get_float32_matmul_precision()  # a side may set it
    yield
    torch.set_float32_matmul_precision(precision)


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_a_step_is_compared_with_trl_and_with_the_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The ladder runs in a process of its own, as all sides do outside of tests."""
    pytest.importorskip("trl", reason="the comparison needs TRL")
    import grpo_step

    grpo_step.main(["--smoke", "--regimes", "fixed", "--out", str(tmp_path)])
    assert capsys.readouterr().out.startswith("gate")
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


@pytest.mark.usefixtures("in_this_process")
def test_updates_of_sft_are_compared_with_trl(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the comparison needs TRL")
    import sft_step

    sft_step.main(["--smoke", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "sft_step-smoke.json").read_text())
    assert set(results["gate"]) == {"padded", "packed"}
    assert all(gate["relative_error"] < 1e-4 for gate in results["gate"].values())
    (summary,) = results["comparisons"].values()
    assert set(summary["ratio"]) == {"TRL padded@4", "TRL packed"}
    tokens = sum(results["settings"]["lengths"])
    assert all(side["tokens"]["median"] == tokens for side in summary["sides"].values())


@pytest.mark.usefixtures("in_this_process")
def test_completions_are_compared_with_those_of_transformers(tmp_path: Path) -> None:
    import generate

    generate.main(["--smoke", "--peers", "generate", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "generate-smoke-4x8.json").read_text())
    assert results["gate"]["transformers"] < 1e-5
    fixed, natural = results["comparisons"].values()
    assert set(fixed["ratio"]) == set(natural["ratio"]) == {"generate"}
    assert all(side["tokens"]["median"] == 4 * 8 for side in fixed["sides"].values())


@pytest.mark.usefixtures("on_path")
def test_exponents_are_fitted_to_steps_of_growing_size(tmp_path: Path) -> None:
    import scaling

    scaling.main(["--smoke", "--out", str(tmp_path)])
    axes = json.loads((tmp_path / "scaling-random.json").read_text())["axes"]
    assert set(axes) == {"group", "prompts", "prompt", "max_tokens", "model size"}
    assert all(set(row["fits"]) == {"rollout", "train", "step"} for row in axes.values())


@pytest.mark.usefixtures("on_path")
def test_the_exponent_of_a_power_law_is_recovered() -> None:
    from scaling import fit

    sizes = [1, 2, 4, 8]
    line = fit(sizes, [0.5 * size**1.25 for size in sizes])
    assert line == pytest.approx({"exponent": 1.25, "r2": 1, "last": 1.25})
    assert fit(sizes, [1 + size**2 for size in sizes])["last"] > fit(sizes, [1 + size**2 for size in sizes])["exponent"]


def test_the_table_of_the_docs_is_that_of_the_results() -> None:
    run("table.py", "--check")


@pytest.mark.usefixtures("on_path")
def test_only_the_fastest_of_a_family_is_compared_and_slower_phases_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import _compare
    from _workload import Result, Step, Work

    seconds = {"ours": 2.0, "slow": 9.0, "fast": 3.0, "other": 1.0}

    def run_side(function: str, work: Work) -> Result:
        if function == "broken":
            raise RuntimeError("broken failed:\nno reason")
        return Result(steps=[Step(seconds={"step": seconds[function]}, tokens=1)], peak_mb=1.0)

    monkeypatch.setattr(_compare, "run_side", run_side)
    work = Work(model="", warmup=0, steps=1, seed=0, threads=1)
    peers = {name: _compare.Side(name, work, "first") for name in ("slow", "fast", "broken")}
    peers["other"] = _compare.Side("other", work, "second")
    comparison = _compare.Comparison("work", "step", _compare.Side("ours", work), peers)
    comparison.run(rounds=2)
    summary = comparison.summary(None)
    assert {name: row["step"]["median"] for name, row in summary["ratio"].items()} == {"fast": 1.5, "other": 0.5}
    assert summary["slower"] == ["step against other"]
    assert summary["failed"] == {"broken": "no reason"}
    assert len(summary["sides"]["r1kit"]["runs"]) == 2


def test_an_audit_that_could_look_up_nothing_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    judged = importlib.import_module("audit").judged
    safe = {"name": "a", "version": "1", "vulns": []}
    found = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
    skipped = {"name": "c", "skip_reason": "not found"}
    assert judged([safe]) == (True, ["no known vulnerability in 1 versions, all of which were looked up"])
    assert judged([safe, found]) == (False, ["b 2 has CVE-1: fixed in 3"])
    for packages in ([], [skipped], [safe, skipped]):
        is_ok, (line,) = judged(packages)
        assert not is_ok and "nothing is known about the others" in line


def test_the_signal_of_rl_counts_long_completions_by_token_and_all_alike_by_completion(tmp_path: Path) -> None:
    def row(problem_id: str, question: str, completion: str, score: float | None, advantage: float, tokens: int) -> str:
        parts = {"accuracy": None, "helpfulness": score}
        named = {"problem_id": problem_id, "question": question, "completion": completion, "parts": parts}
        return json.dumps(named | {"advantage": advantage, "tokens": tokens})

    rows = [
        row("tiny/general/practice/1", "last of 1 1 9?", "9.", 0.5, 0.1, 3),
        row("tiny/general/practice/1", "last of 1 1 9?", "1.", -0.5, -0.1, 3),
        row("tiny/sums/7", "3+4?", "<think> 3+4=7 </think>", None, 0.1, 57),
        row("tiny/sums/7", "3+4?", "<think> 3+4=8 </think>", None, -0.1, 57),
    ]
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "step-000001.jsonl").write_text("\n".join(rows) + "\n")
    printed = run("rl_signal.py", str(tmp_path))
    assert "| last | 1 | 50% | 100% | 100% | 0.10 | 5.0% | 50.0% |" in printed
    assert "| problems | 1 |  |  |  | 0.10 | 95.0% | 50.0% |" in printed
