"""Two ranks under FSDP2 (gloo, CPU) compute the gradient of one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

WORKER = Path(__file__).with_name("sharding_worker.py")
SECONDS = 180

# of rounding: on a processor with AVX2 alone, gradients of one process in fp32 are up to 3.6e-6 from those in fp64
LIMITS = {"gradient": 5e-6, "norm": 1e-6, "logprobs": 1e-6, "weights": 1e-5}


def test_two_ranks_compute_the_gradient_of_one_process(tmp_path: Path) -> None:
    """For every kind of loss: gradient, clipping norm, log-probs, and the weights after one update."""
    logs = [tmp_path / f"rank-{rank}.log" for rank in range(2)]
    ranks = []
    for rank, log in enumerate(logs):
        with open(log, "w") as file:  # a file, not a pipe: a full pipe would stop the rank
            command = [sys.executable, str(WORKER), str(rank), str(tmp_path)]
            ranks.append(subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT))
    try:
        for rank, log in zip(ranks, logs, strict=True):
            try:
                assert rank.wait(SECONDS) == 0, f"{log.name}: {log.read_text()[-3000:]}"
            except subprocess.TimeoutExpired:
                pytest.fail(f"{log.name}: no end after {SECONDS} s; its last words: {log.read_text()[-3000:]}")
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    for rank in range(2):
        for case, differences in json.loads((tmp_path / f"rank-{rank}.json").read_text()).items():
            for what, difference in differences.items():
                assert difference < LIMITS[what], f"{case}, {what}: {difference:.1e} of the value"
