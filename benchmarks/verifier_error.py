"""What a verifier's errors do: to the accuracy that is reported, and to what is learned.

    python benchmarks/verifier_error.py coverage [--trials 500]
    python benchmarks/verifier_error.py tolerance [--runs runs/verifier_error]

`coverage` samples real completions of the tiny base once, flips verdicts at planted rates, and prints how often the
corrected accuracy's interval holds the true one, and how often the interval of the flipped verdicts does. `tolerance`
trains R1-Zero on the tiny world under planted errors. Stopped runs continue.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import controls

import r1kit
from r1kit.commands.eval_command import evaluate
from r1kit.data.jsonl import read_rows
from r1kit.evaluate.intervals import share_interval
from r1kit.evaluate.table import align
from r1kit.evaluate.verifier_error import ErrorRates, corrected
from r1kit.store import read_json
from r1kit.types import SamplingParams

NEGATIVES, POSITIVES = (0.05, 0.1, 0.2, 0.3), (0.01, 0.05, 0.1)
POOL, SAMPLES, PROBLEMS, LABELLED = 300, 4, 100, 100
# (false positives, false negatives, whether rewards are corrected)
TRAINED = (
    (0.0, 0.0, False),
    (0.0, 0.3, False),
    (0.1, 0.0, False),
    (0.3, 0.0, False),
    (0.1, 0.3, False),
    (0.1, 0.3, True),
)

Pool = list[list[bool]]  # by problem, whether each completion is right


def real_verdicts(completions: Path | None, runs: Path) -> Pool:
    """Verdicts of a model's completions (without any, of the tiny base's) by the tiny world's exact verifier."""
    if completions is None:
        sampling = SamplingParams(n=SAMPLES, temperature=1.0, max_tokens=96)
        evaluate("tiny", task="tiny/reasoning", limit=POOL, sampling=sampling, out=runs)
    groups: dict[str, list[bool]] = {}
    for row in read_rows(completions or runs / "completions.jsonl"):
        groups.setdefault(row["problem_id"], []).append(row["correct"])
    return list(groups.values())


def flipped(rng: random.Random, right: Sequence[bool], fp: float, fn: float) -> list[bool]:
    return [rng.random() >= fn if value else rng.random() < fp for value in right]


def trial(rng: random.Random, pool: Pool, fp: float, fn: float) -> tuple[bool, bool, float]:
    """Whether the corrected and the plain interval hold the pool's accuracy, and the corrected one's width."""
    truth = fmean(value for group in pool for value in group)
    drawn = rng.choices(pool, k=PROBLEMS)
    values, draws = [fmean(flipped(rng, group, fp, fn)) for group in drawn], sum(map(len, drawn))
    labelled = {kind: [value for group in pool for value in group if value is kind] for kind in (True, False)}
    seen = {kind: flipped(rng, rng.choices(answers, k=LABELLED), fp, fn) for kind, answers in labelled.items()}
    rates = ErrorRates(
        false_positives=sum(seen[False]), wrong=LABELLED, false_negatives=LABELLED - sum(seen[True]), right=LABELLED
    )
    estimate, (low, high) = corrected(values, draws, rates), share_interval(values, draws)
    assert estimate.low is not None and estimate.high is not None
    return estimate.low <= truth <= estimate.high, low <= truth <= high, estimate.high - estimate.low


def coverage(trials: int, completions: Path | None, runs: Path) -> None:
    pool, total = real_verdicts(completions, runs / "pool"), list[bool]()
    lines = [["false negatives", "false positives", "corrected holds", "plain holds", "width"]]
    for fn in NEGATIVES:
        for fp in POSITIVES:
            rng = random.Random(f"coverage/{fn}/{fp}")
            results = [trial(rng, pool, fp, fn) for _ in range(trials)]
            total += [held for held, _, _ in results]
            shares = [fmean(result[column] for result in results) for column in range(3)]
            lines.append([f"{fn:.0%}", f"{fp:.0%}", *(f"{100 * share:.1f} %" for share in shares)])
    print(align(lines))
    accuracy = 100 * fmean(value for group in pool for value in group)
    print(f"accuracy {accuracy:.1f} %: in the corrected interval in {100 * fmean(total):.1f} % of {len(total)} trials")


def tolerance(runs: Path) -> None:
    """Train the clean base of `controls.py` under each pair of rates."""
    model = str(controls.base_of("clean", runs.parent / "controls"))
    print("false positives, false negatives, corrected: accuracy before and after")
    for fp, fn, corrects in TRAINED:
        rates = {"false_positives": fp, "false_negatives": fn, "corrects": corrects}
        rewards: list[dict[str, Any]] = [
            {"name": "_planted:planted_reward", "options": rates},
            {"name": "format", "weight": 0.2},
            {"name": "accuracy", "weight": 0.0},
        ]
        sizes = controls.SIZES | {"rl.rewards": rewards, "rl.algorithm": "dr_grpo"}
        folder = r1kit.run("r1-zero", scale="tiny", model=model, overrides=sizes, runs=runs)
        columns = read_json(folder / "summary.json")["tables"][0]["columns"]
        figures = [columns[name]["overall"]["pass@1"] for name in ("base", "zero")]
        shown = [f"{100 * x['mean']:.1f} [{100 * x['low']:.1f}, {100 * x['high']:.1f}]" for x in figures]
        print(f"{fp:.0%} {fn:.0%} {corrects}: {' -> '.join(shown)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("coverage", "tolerance"))
    parser.add_argument("--trials", type=int, default=500, help="per pair of rates (500)")
    parser.add_argument("--completions", type=Path, help="completions.jsonl of an evaluation, in place of sampling")
    parser.add_argument("--runs", type=Path, default=Path("runs/verifier_error"))
    options = parser.parse_args()
    if options.part == "coverage":
        coverage(options.trials, options.completions, options.runs)
    else:
        tolerance(options.runs)


if __name__ == "__main__":
    main()
