"""Several ranks: the same losses as one process, what a second worker adds, and the memory of a row that ranks share.

`python benchmarks/ranks.py equality` trains every kind of stage for 20 updates in one process, in two ranks and in
four, and continues a checkpoint of two ranks in one process and in four. It prints the largest difference of any
metric. With `--row-ranks 2`, pairs of ranks share the tokens of each row; with `--whole`, here and below, ranks keep
the weights whole in place of a shard of them.

`python benchmarks/ranks.py scaling --model smollm2-135m` runs GRPO steps in one worker and, with twice the prompts, in
two, in turns, with one thread each, and then two runs of one worker at the same time, which share nothing but the
machine. It prints the ratios of tokens per second: two workers cannot be faster than two runs apart.

`python benchmarks/ranks.py memory` trains on one row of 4,096 tokens in one process and on two and four ranks that
share it, in four layers of SmolLM2's width. It prints the most that a rank's memory grows during forward and backward
pass. MALLOC_MMAP_THRESHOLD_=100000 in the environment keeps blocks that are free from being counted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; ranks inherit it
os.environ["R1KIT_RANKS_ABOVE_CORES"] = "1"  # four ranks, also on two cores

from _rank_stages import KINDS, RankStagesSettings, largest_difference, metrics, train
from _row_memory import measure

from r1kit.data.jsonl import read_rows
from r1kit.models.known import resolve
from r1kit.pipeline import External, Recipe, Stage, execute
from r1kit.stages.rl import RL, RLSettings


def equality(options: argparse.Namespace, folder: Path) -> None:
    """Print the largest difference of each kind and number of ranks from one process."""
    kinds = tuple(options.kinds.split(","))
    settings = RankStagesSettings(kinds=kinds, steps=options.steps, checkpoint_every=options.steps // 2)
    alone = train(folder, settings, 1)
    settings = settings.replace(sequence_devices=options.row_ranks, shard=not options.whole)
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
        shared = settings.replace(sequence_devices=1 if count == 1 else options.row_ranks)
        runs[name] = train(folder, shared, count, runs=name)
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
    """Print tokens per second of one worker, of two, and of two runs that know nothing of each other."""
    speeds: dict[tuple[str, str], list[float]] = {}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for turn in range(options.turns):
            for name, workers in (("one", 1), ("two", 2)):
                for part, speed in grpo_steps(options, folder / f"{turn}-{name}", workers, turn):
                    speeds.setdefault((name, part), []).append(speed)
            apart = [pool.submit(grpo_steps, options, folder / f"{turn}-apart-{each}", 1, turn) for each in range(2)]
            for (part, ours), (_, theirs) in zip(*(each.result() for each in apart), strict=True):
                speeds.setdefault(("apart", part), []).append(ours + theirs)
    for part in ("rollout", "step"):
        one = speeds["one", part]
        for name, title in (("two", "two workers"), ("apart", "two runs apart")):
            ratios = sorted(theirs / ours for ours, theirs in zip(one, speeds[name, part], strict=True))
            print(
                f"{part:8} one worker {median(one):.1f} tokens/s, {title} {median(speeds[name, part]):.1f}: "
                f"{median(ratios):.2f} times (from {ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} pairs)"
            )


def grpo_steps(options: argparse.Namespace, folder: Path, workers: int, seed: int) -> list[tuple[str, float]]:
    """(part, tokens per second) of all steps but the first one, which warms up."""
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
            "shard": not options.whole,
            "optimizer": {"learning_rate": 1e-6},
            "checkpoint_every": 0,
            "device": "cpu",
            "seed": seed,
        }
    )
    stage = Stage("rl", RL, settings, {"model": External(resolve(options.model))})
    run = execute(Recipe("scaling", (stage,)), folder, devices=workers)
    rows = list(read_rows(run / "metrics.jsonl"))[1:]
    return [(part, row["tokens/rollout"] / row[f"time/{part}_s"]) for row in rows for part in ("rollout", "step")]


def memory(options: argparse.Namespace, folder: Path) -> None:
    """Print what each rank adds for one row that 1, 2 and 4 of them share."""
    for count in (1, 2, 4):
        found = measure(folder, options.tokens, options.layers, count)
        added = ", ".join(f"{each:.0f}" for each in found["added_mb"])
        print(f"{count} ranks: loss {found['loss']:.6f}, MB added by each: {added}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["equality", "scaling", "memory"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kinds", default="sft,rl,reward-model,distill", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=2, help="of each worker")
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--row-ranks", type=int, default=1, help="ranks that share the tokens of each row")
    parser.add_argument("--whole", action="store_true", help="ranks keep the weights whole")
    parser.add_argument("--tokens", type=int, default=4096, help="of the long row")
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"equality": equality, "scaling": scaling, "memory": memory}[options.what](options, Path(folder))


if __name__ == "__main__":
    main()
