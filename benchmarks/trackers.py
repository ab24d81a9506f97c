"""Whether each tracker holds a run that was killed: R1-Zero on the tiny world, killed three times and resumed.

Each tracker is then read back through its own interface, without a network, and compared with metrics.jsonl: every
metric of every step must be there once. With `--pairs N`, it instead measures how much slower a step is with each of
them: N times a run without, and one with each tracker alone. Both write results/trackers.json; the exit status is 1 if
anything is wrong.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from _beside import TimedRun, compared, timed  # noqa: E402
from _results import keep  # noqa: E402

from r1kit.data.jsonl import read_rows  # noqa: E402
from r1kit.tracking import TRACKERS  # noqa: E402
from tracker_readers import faults, read_back  # noqa: E402

STEPS = 16
SETTINGS = {
    **{"rl.steps": STEPS, "rl.checkpoint_every": 4, "rl.prompts_per_step": 2, "rl.max_tokens": 48},
    **{"rl.probe.tasks": '[{"name": "tiny/sums", "limit": 4}]', "rl.rollouts_every": 3},
}
LONG_STEPS = ["--set", "rl.prompts_per_step=8", "--set", "rl.rollouts_every=1"]  # of `--pairs`
KILLS = {2: True, 7: False, 11: True}  # after so many rows, with or without the processes of the trackers


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trackers", default=",".join(TRACKERS), help="those to try (all); missing ones are left out")
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="measure the speed with N pairs of runs")
    options = parser.parse_args()
    names = [name for name in options.trackers.split(",") if importlib.util.find_spec(name)]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        os.environ |= {"TRACKIO_DIR": folder, "PYTHONPATH": str(ROOT / "src"), "WANDB_SILENT": "true"}
        if options.pairs:
            speeds(names, options.pairs)
            return 0
        started = time.monotonic()
        for rows, with_trackers in KILLS.items():
            run_until(names, rows, with_trackers)
        subprocess.run(command(names), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        [stage] = Path(folder).glob("runs/*/rl-*")
        results = {name: result(name, stage) for name in names}
    keep("trackers", "whole", {"steps": STEPS, "kills": len(KILLS), "seconds": round(seconds, 1), "trackers": results})
    return int(any(count for name in names for count in results[name]["faults"].values()))


def speeds(names: list[str], count: int) -> None:
    """What each tracker costs a run, in `count` runs with it and without, in turn."""
    pairs: dict[str, list[tuple[TimedRun, TimedRun]]] = {name: [] for name in names}
    for number in range(count):
        alone = timed([*command([], f"{number}-alone"), *LONG_STEPS], Path(f"{number}-alone"))
        for name in names:
            runs = f"{number}-{name}"
            pairs[name].append((alone, timed([*command([name], runs), *LONG_STEPS], Path(runs))))
            keep("trackers", "speed", {name: compared(done) for name, done in pairs.items() if done})


def command(names: list[str], runs: str = "runs") -> list[str]:
    settings = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    run = [sys.executable, "-m", "r1kit", "run", "r1-zero", "--scale", "tiny", "--until", "rl", "--jobs", "1"]
    run += ["--runs", runs]
    measured = ["--set", "eval.samples=1", "--set", 'eval.tasks=[{"name": "tiny/sums", "limit": 4}]']
    return [*run, *measured, *settings, *(["--track", ",".join(names)] if names else [])]


def run_until(names: list[str], rows: int, with_trackers: bool) -> None:
    """Start the run, and kill it when its metrics have so many rows."""
    process = subprocess.Popen(command(names), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        files = [*Path("runs").glob("*/rl-*/metrics.jsonl")]
        if files and files[0].read_bytes().count(b"\n") >= rows:
            break
        time.sleep(0.02)
    for child in psutil.Process(process.pid).children(recursive=True) if with_trackers else []:
        child.kill()
    process.kill()
    process.wait()


def result(name: str, stage: Path) -> dict[str, object]:
    """What the tracker holds, and the numbers of its faults."""
    shown, rows = read_back(name, stage), list(read_rows(stage / "metrics.jsonl"))
    return {
        "version": importlib.metadata.version(name),
        "run": shown.name,
        "settings": len(shown.config),
        "metrics": len({metric for metric, *_ in shown.points}),
        "steps": len({step for _, step, _ in shown.points}),
        "rows of metrics.jsonl": len(rows),
        "points": len(shown.points),
        "tables": {step: len(table) for step, table in sorted(shown.tables.items())},
        "faults": {kind: len(points) for kind, points in faults(name, stage).items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
