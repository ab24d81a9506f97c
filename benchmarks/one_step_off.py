"""Does R1-Zero on the tiny world learn as much one step off as in step, and how long does it take?

    python benchmarks/one_step_off.py [--seeds 3] [--more 4] [--runs runs/one-step-off]

Both arms train the same base with the same seeds, and are measured on the same held-out problems; the difference is
paired by problem, with all seeds of a problem in one value. A stopped benchmark continues.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import fmean

from r1kit.data.jsonl import read_rows
from r1kit.evaluate.gain import paired, strict
from r1kit.evaluate.intervals import share_interval
from r1kit.evaluate.table import show_difference
from r1kit.pipeline import execute
from r1kit.recipes.r1_zero import r1_zero
from r1kit.recipes.scales.tiny import TINY
from r1kit.report.folders import find_stages

SAMPLES = TINY.eval["samples"]  # of a problem, with each seed
ARMS = {"in step": 0, "one step off": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=36, help="of RL (36: the recipe's)")
    parser.add_argument("--more", type=int, default=0, help="further steps of the arm one step off")
    parser.add_argument("--runs", type=Path, default=Path("runs/one-step-off"))
    options = parser.parse_args()
    values: dict[str, dict[str, list[float]]] = {arm: defaultdict(list) for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in range(options.seeds):
        for arm, staleness in ARMS.items():
            overrides = {"rl.staleness": staleness, "rl.steps": options.steps + staleness * options.more}
            recipe = r1_zero(seed=seed, scale="tiny", overrides=overrides)
            folder = execute(recipe, options.runs / f"{staleness}-{seed}", "eval-zero")
            stages = {stage.name: stage for stage in find_stages(folder.parent)}
            by_problem = strict(stages["eval-zero"].completions)
            rows = [row for row in read_rows(stages["rl"].folder / "metrics.jsonl") if row["step"]]
            own = {name: [row[name] for row in rows if name in row] for name in ROWS}
            seconds[arm] += own["time/step_s"]
            for problem, value in by_problem.items():
                values[arm][problem].append(value)
            shown = ", ".join(f"{label} {fmean(own[name]):.3g}" for name, label in ROWS.items() if own[name])
            print(f"seed {seed} {arm}: {100 * fmean(by_problem.values()):.1f} %; {shown}", flush=True)
    means = {arm: {problem: fmean(each) for problem, each in own.items()} for arm, own in values.items()}
    for arm, each in means.items():
        low, high = share_interval([*each.values()], SAMPLES * options.seeds * len(each))
        print(f"{arm}: {100 * fmean(each.values()):.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    change = paired(means["in step"], means["one step off"])
    print(f"one step off - in step: {show_difference(change, 'pass@1')} points, p = {change.p_value:.2g}")
    ratio = fmean(seconds["one step off"]) / fmean(seconds["in step"])
    print(f"seconds of a step, one step off / in step: {ratio:.2f}")


ROWS = {
    "time/step_s": "seconds of a step",
    "time/rollout_s": "of which it waits for completions",
    "sampler/logprob_gap_mean": "gap to the sampler",
    "sampler/importance_capped": "capped weights",
    "sampler/staleness": "updates behind",
}


if __name__ == "__main__":
    main()
