"""Several ranks: the same losses as one process, and what a second worker adds.

`python benchmarks/ranks.py equality` trains every kind of stage for 20 updates in one process, in two ranks and in
four, and continues a checkpoint of two ranks in one process and in four. It prints the largest difference of any
metric.

`python benchmarks/ranks.py scaling --model smollm2-135m` runs GRPO steps in one worker and, with twice the prompts, in
two, in turns, with one thread each. It prints the ratios of tokens per second.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; ranks inherit it
os.environ["R1KIT_RANKS_ABOVE_CORES"] = "1"  # four ranks, also on two cores

from _rank_stages import KINDS, RankStagesSettings, largest_difference, metrics, train

from r1kit.data.jsonl import read_rows
from r1kit.models.known import resolve
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.stages.rl import RL, RLSettings


def equality(options: argparse.Namespace, folder: Path) -> None:
    """Print the largest difference of each kind and number of ranks from one process."""
    kinds = tuple(options.kinds.split(","))
    settings = RankStagesSettings(kinds=kinds, steps=options.steps, checkpoint_every=options.steps // 2)
    alone = train(folder, settings, 1)
    runs = {f"{count} ranks": train(folder, settings, count) for count in (2, 4)}
    two = runs["2 ranks"]
    for count in (1, 4):
        name = f"2 ranks, then {count}"
        copy = folder / name / "ranks" / two.name
        shutil.copytree(two, copy)
        (copy / "manifest.json").unlink()
        for kind in kinds:
            # as if the two ranks had been stopped after their first checkpoint
            _, *later = sorted((copy / kind / "checkpoints").iterdir())
            for path in (*later, copy / kind / "model"):
                shutil.rmtree(path)
        runs[name] = train(folder, settings, count, runs=name)
    for kind in kinds:
        for name, run in runs.items():
            rows, others = metrics(alone, kind), metrics(run, kind)
            loss = max(
                abs(ours.get("optim/loss", 0.0) - theirs.get("optim/loss", 0.0))
                for ours, theirs in zip(rows, others, strict=True)
            )
            difference, where = largest_difference(rows, others)
            print(f"{kind:12} {name:16} loss {loss:.1e}, any metric {difference:.1e} ({where})", flush=True)


def scaling(options: argparse.Namespace, folder: Path) -> None:
    """Print tokens per second of one and of two workers, and their ratios."""
    speeds: dict[tuple[int, str], list[float]] = {}
    for turn in range(options.turns):
        for workers in (1, 2):
            settings = RLSettings.parse(
                {
                    "tasks": ["tiny/sums"],
                    "rewards": ["_rank_stages:low_ids"],
                    "steps": options.steps,
                    "prompts_per_step": options.prompts * workers,
                    "group_size": options.group,
                    "max_tokens": options.max_tokens,
                    "max_rows": options.prompts * options.group,
                    "compute_dtype": "fp32",  # sharded weights are not rounded on a CPU
                    "optimizer": {"learning_rate": 1e-6},
                    "checkpoint_every": 0,
                    "device": "cpu",
                    "seed": turn,
                }
            )
            stage = Stage("rl", RL, settings, {"model": External(resolve(options.model))})
            run = execute(Recipe("scaling", (stage,)), folder / f"{turn}-{workers}", devices=workers)
            for row in list(read_rows(run / "metrics.jsonl"))[1:]:  # the first step warms up
                for part in ("rollout", "step"):
                    speeds.setdefault((workers, part), []).append(row["tokens/rollout"] / row[f"time/{part}_s"])
    for part in ("rollout", "step"):
        one, two = speeds[1, part], speeds[2, part]
        ratios = sorted(theirs / ours for ours, theirs in zip(one, two, strict=True))
        print(
            f"{part:8} one worker {median(one):.1f} tokens/s, two {median(two):.1f}: {median(ratios):.2f} times "
            f"(from {ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} pairs)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["equality", "scaling"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kinds", default="sft,rl,reward-model,distill", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=2, help="of each worker")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (equality if options.what == "equality" else scaling)(options, Path(folder))


if __name__ == "__main__":
    main()
