"""R1-Zero on the tiny world for thousands of small steps: do memory, handles, disk and the time of a step grow?

Prints the slope of each per 1,000 steps over the second half of the run, with a 95 % interval from 20 blocks of steps.
The exit status is 1 if memory or handles grow beyond noise: by more than 1 % of their size, and more than the interval.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from r1kit.chat import saved
from r1kit.models.known import resolve
from r1kit.models.load import load
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.stages.rl import RL, RLSettings
from r1kit.tasks import TaskSpec

BLOCKS = 20
T_95 = 2.093  # Student's t of 19 degrees of freedom


class Samples:
    """Figures of this process after a step, at most once a second; called with the stage's folder."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def __call__(self, folder: Path) -> None:
        metrics = folder / "metrics.jsonl"
        if not metrics.is_file():
            return
        status = Path("/proc/self/status").read_text()
        self.rows.append(
            {
                "step": sum(1 for _ in metrics.open("rb")),
                "rss_mb": int(status.partition("VmRSS:")[2].split()[0]) / 2**10,
                "handles": len(os.listdir("/proc/self/fd")),
                "threads": int(status.partition("Threads:")[2].split()[0]),
                "disk_mb": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20,
                "cpu_s": time.process_time(),
            }
        )


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """The slope per 1,000 steps and the half width of its 95 % interval, from the slopes between block means."""
    size = max(1, len(points) // BLOCKS)
    blocks = [points[start : start + size] for start in range(0, size * BLOCKS, size) if points[start : start + size]]
    means = [(statistics.fmean(x for x, _ in block), statistics.fmean(y for _, y in block)) for block in blocks]
    if len(means) < 3:
        return 0.0, float("inf")
    line = statistics.linear_regression([x for x, _ in means], [y for _, y in means])
    rest = [y - line.slope * x - line.intercept for x, y in means]
    spread = sum((x - statistics.fmean(x for x, _ in means)) ** 2 for x, _ in means)
    error = (sum(value**2 for value in rest) / (len(means) - 2) / spread) ** 0.5
    return 1000 * line.slope, 1000 * T_95 * error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chat = saved.choose(None, resolve("tiny"), load("tiny", device="cpu").tokenizer)[0]
    settings = RLSettings(
        tasks=[TaskSpec(name="tiny/sums")],  # type: ignore[arg-type]
        rewards=["accuracy", "format"],  # type: ignore[arg-type]
        chat=chat,
        steps=options.steps,
        prompts_per_step=2,
        group_size=4,
        max_tokens=32,
    )
    samples = Samples()
    with tempfile.TemporaryDirectory() as runs:
        stage = Stage("rl", RL, settings, {"model": External(resolve("tiny"))})
        folder = execute(Recipe("soak", (stage,)), Path(runs), on_step=samples)
        times = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in samples.rows if row["step"] >= options.steps / 2]
    seconds = [(row["step"], row["time/step_s"]) for row in times if row["step"] >= options.steps / 2]
    series = {name: [(row["step"], row[name]) for row in rows] for name in ("rss_mb", "handles", "threads", "disk_mb")}
    facts, grows = {}, False
    for name, points in {**series, "step_s": seconds}.items():
        per_1000, width = slope(points)
        mean = statistics.fmean(value for _, value in points)
        facts[name] = {"mean": round(mean, 4), "per_1000_steps": round(per_1000, 4), "plus_minus": round(width, 4)}
        grows |= name in ("rss_mb", "handles", "threads") and per_1000 > max(width, 0.01 * mean)
    print(json.dumps({"steps": options.steps, "samples": len(rows), "slopes": facts}, indent=2))
    raise SystemExit(grows)


if __name__ == "__main__":
    main()
