"""The notebook runs from its first cell to its last in a new process, and shows curves while it trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1kit.pipeline.provenance import command
from r1kit.report.folders import StageFolder
from r1kit.report.live_curves import LiveCurves

NOTEBOOK = Path(__file__).parents[1] / "examples" / "r1_zero.ipynb"
SIZES = {"STEPS = 24": "STEPS = 2", "PROMPTS = 16": "PROMPTS = 4", "MEASURED = 100": "MEASURED = 8"}


def code_cells() -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_notebook_runs_in_a_new_process(tmp_path: Path) -> None:
    """Its cells are plain Python. `make notebook` runs it in full in a Jupyter kernel of a fresh environment."""
    program = "\n\n".join(code_cells())
    for size, small in SIZES.items():
        assert size in program
        program = program.replace(size, small)
    (tmp_path / "cells.py").write_text(program, encoding="utf-8")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    environment = {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "cells.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "base" in done.stdout and done.stdout.count("eval-rl") == 0, "two tables"
    assert "what is 12+9-4? ->" in done.stdout
    assert "<svg" in (tmp_path / "curves.svg").read_text(encoding="utf-8")


def test_a_cell_that_is_run_again_with_other_sizes_asks_the_model_of_these_sizes() -> None:
    """Folders of earlier sizes stay beside it, so a pattern of names would find any of them."""
    assert "glob" not in "".join(code_cells())


def test_the_notebook_holds_no_outputs() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5 and all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)


def test_live_curves_show_the_verdict_and_skip_stages_that_do_not_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    curves = LiveCurves()
    curves(StageFolder("eval", tmp_path))
    assert not curves.file.exists()
    rows = [{"step": step, "reward/mean": step / 20, "policy/entropy": 1 - step / 40} for step in range(1, 21)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curves(StageFolder("rl", tmp_path))
    assert curves.file.read_text().startswith("<?xml")


def test_a_run_of_a_notebook_names_no_file_of_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/lib/ipykernel_launcher.py", "-f", "/tmp/kernel.json"])
    assert command() == "a cell of a notebook"
    monkeypatch.setattr(sys, "argv", ["/bin/r1kit", "run", "r1-zero"])
    assert command() == "r1kit run r1-zero"
