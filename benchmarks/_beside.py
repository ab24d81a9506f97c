"""What something beside a training run costs it, in pairs of runs with and without it: equal steps have equal work."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from r1kit.data.jsonl import read_rows


@dataclass(frozen=True)
class TimedRun:
    """Seconds of each step but the first, which warms up, and processor seconds of the whole run.

    These count all its processes. They hold on a busy machine too, where seconds of single steps say little.
    """

    steps: list[float]
    processor_s: float


def timed(command: Sequence[str], runs: Path) -> TimedRun:
    """Run a command that trains the stage `rl` below `runs`; raises CalledProcessError if it fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    [file] = runs.glob("*/rl-*/metrics.jsonl")
    steps = [row["time/step_s"] for row in read_rows(file) if row["step"] > 1]
    return TimedRun(steps, usage.ru_utime + usage.ru_stime)


def compared(pairs: Sequence[tuple[TimedRun, TimedRun]]) -> dict[str, object]:
    """Ratios of the second run to the first one of each pair."""
    steps = sorted(
        after / before for alone, other in pairs for before, after in zip(alone.steps, other.steps, strict=True)
    )
    quarter = len(steps) // 4
    return {
        "pairs": len(pairs),
        "seconds of a step": {"median": median(steps), "half": [steps[quarter], steps[-1 - quarter]]},
        "processor seconds": [round(other.processor_s / alone.processor_s, 4) for alone, other in pairs],
        "processor seconds alone": [round(alone.processor_s, 1) for alone, _ in pairs],
    }
