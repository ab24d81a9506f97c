"""A run that is killed: `python tracked_run.py RUNS TRACKER,TRACKER DIES_AT WITH_TRACKERS`.

Its stage writes rows and rollouts as RL does, with a checkpoint after every third of ten steps. It kills its own
process after step DIES_AT (0: never), before that those of its trackers if WITH_TRACKERS is 1.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from r1kit.data.jsonl import RowWriter, keep_steps
from r1kit.pipeline import Context, Kind, Recipe, Stage, execute
from r1kit.settings import Settings, unhashed
from r1kit.tracking import tracked

STEPS, CHECKPOINT_EVERY = 10, 3
COMPLETION = "<think>\x1b[31m一 | **2**\n[/red]</think> \ud800"  # hostile to terminals, tables, markup and UTF-8


class Dying(Settings):
    learning_rate: float = 0.5
    dies_at: int = unhashed(0)
    with_trackers: bool = unhashed(False)


def train(context: Context) -> Mapping[str, Any]:
    metrics, checkpoint = context.folder / "metrics.jsonl", context.folder / "checkpoint"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    keep_steps(metrics, first or -1)
    with RowWriter(metrics) as rows:
        if not first:
            rows.append({"step": 0, "probe/accuracy": 0.25})
        for step in range(first + 1, STEPS + 1):
            if step % 2:
                with RowWriter(context.folder / f"rollouts/step-{step:06d}.jsonl") as rollouts:
                    rollouts.truncate(0)
                    for sample in range(40):
                        rollouts.append(rollout(step, sample))
            rows.append({"step": step, "reward/mean": step / 7, "reward/accuracy": 1 / step, "tokens/train": step})
            if step % CHECKPOINT_EVERY == 0:
                checkpoint.write_text(str(step))
            if step == context.settings.dies_at:
                if context.settings.with_trackers:
                    for process in psutil.Process().children(recursive=True):
                        process.kill()
                os.kill(os.getpid(), signal.SIGKILL)
    return {"steps": STEPS}


def rollout(step: int, sample: int) -> dict[str, Any]:
    return {
        "step": step,
        "question": "1 + 1?",
        "completion": COMPLETION,
        "answer": "2",
        "reward": 0.5,
        "parts": {"accuracy": None if sample else 1.0},
        "advantage": None,
        "notes": {"verdict": "wrong"},
    }


def recipe(**settings: Any) -> Recipe:
    kind = Kind(name="dying", run=train, settings=Dying)
    return Recipe("tracked", (Stage("rl", kind, Dying(**settings)),))


if __name__ == "__main__":
    runs, trackers, dies_at, with_trackers = sys.argv[1:]
    execute(
        recipe(dies_at=int(dies_at), with_trackers=with_trackers == "1"),
        Path(runs),
        companion=partial(tracked, trackers.split(",")),
    )
