"""Is one model as good as each expert in its domain? V4's merging beside V3's way and RL on all domains at once.

    python benchmarks/experts.py [--seeds 3] [--runs runs/experts]

Runs the recipe `v4` at the scale tiny with each seed, and compares the models with the expert of each domain on the
held-out problems of that domain: the difference, paired by problem with all seeds of a problem in one value, and the
share of the expert's accuracy that a model keeps. A stopped benchmark continues.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import fmean

from r1kit.evaluate.gain import Row, strict
from r1kit.evaluate.table import align, show_difference
from r1kit.pipeline import execute
from r1kit.recipes.scales.tiny import TINY
from r1kit.recipes.v4 import v4
from r1kit.report.folders import find_stages
from r1kit.report.stage_table import TableRow

MODELS = ("base", "start", "v4", "v4-sft", "v4-rl")
HEADER = ["domain", "model", "accuracy", "minus the expert, points", "kept of the expert's"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/experts"))
    options = parser.parse_args()
    lines = [HEADER]
    runs = [measured(seed, options.runs / str(seed)) for seed in range(options.seeds)]
    for domain, sources in TINY.for_v4.domains.items():
        lines += compare(domain, [of_sources(run, sources) for run in runs])
    print(align(lines))


def measured(seed: int, runs: Path) -> Mapping[str, Sequence[Row]]:
    """The judged completions of each model, by its name."""
    stages = find_stages(execute(v4(seed=seed, scale="tiny"), runs).parent)
    return {stage.name: stage.completions for stage in stages if stage.folder.name.startswith("eval-")}


def of_sources(run: Mapping[str, Sequence[Row]], sources: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """pass@1 by problem of each model, on the problems of these sources."""
    return {
        model: strict([row for row in rows if any(fnmatch(row["source"], pattern) for pattern in sources)])
        for model, rows in run.items()
    }


def compare(domain: str, runs: list[dict[str, dict[str, float]]]) -> list[list[str]]:
    """A line for each model."""
    by_problem: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for model, values in run.items():
            for problem, value in values.items():
                by_problem[model][problem].append(value)
    means = {model: {name: fmean(each) for name, each in own.items()} for model, own in by_problem.items()}
    row, expert = TableRow(title="", metric="pass@1", cells={}, per_problem=means), f"expert-{domain}"
    lines = []
    for model in (expert, *MODELS):
        seeds = ", ".join(f"{100 * fmean(run[model].values()):.1f}" for run in runs)
        accuracy = f"{100 * fmean(means[model].values()):.1f} % ({seeds})"
        change, kept = row.change(expert, model), row.retained(expert, model)
        assert change is not None and kept is not None
        against = [show_difference(change, "pass@1"), "{:.1%} [{:.1%}, {:.1%}]".format(*kept)]
        lines.append([domain, model, accuracy, *(against if model != expert else ["", ""])])
    return lines


if __name__ == "__main__":
    main()
