"""What a verifier's errors do: to the accuracy that is reported, and to what is learned.

    python benchmarks/verifier_error.py coverage [--trials 500]
    python benchmarks/verifier_error.py tolerance [--points 34] [--seed 0] [--runs runs/verifier_error]

`coverage` samples real completions of the tiny base once, flips verdicts at planted rates, and prints how often the
corrected accuracy's interval holds the true one, and how often the interval of the flipped verdicts does. `tolerance`
trains R1-Zero on the tiny world under planted errors, with and without correction of the rewards, and measures it with
the true verifier. It writes each point to results/verifier_tolerance.json at once, and goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import controls

import r1kit
from r1kit.commands.eval_command import evaluate
from r1kit.data.jsonl import read_rows
from r1kit.evaluate.gain import strict
from r1kit.evaluate.intervals import share_interval
from r1kit.evaluate.statistics import difference
from r1kit.evaluate.table import align, show_difference
from r1kit.evaluate.verifier_error import ErrorRates, corrected
from r1kit.report.folders import StageFolder, find_stages, inputs_of
from r1kit.store import read_json, write_text
from r1kit.types import SamplingParams

NEGATIVES, POSITIVES = (0.05, 0.1, 0.2, 0.3), (0.01, 0.05, 0.1)
POOL, SAMPLES, PROBLEMS, LABELLED = 300, 4, 100, 100
RESULT = Path(__file__).with_name("results") / "verifier_tolerance.json"
MISSED, ACCEPTED = (0.0, 0.05, 0.15, 0.3), (0.0, 0.01, 0.05, 0.1)  # false negatives and positives of training
# those that say most come first: the worst corner of both axes with and without correction, their ends, and errors at
# which a verdict says little (40 % and 40 %: a right answer is judged right in 60 %, a wrong one in 40 %)
FIRST = ((0.0, 0.0, False), (0.3, 0.1, False), (0.3, 0.1, True), (0.3, 0.0, False), (0.0, 0.1, False))
FIRST += ((0.4, 0.4, False), (0.3, 0.3, False), (0.4, 0.4, True), (0.15, 0.05, False), (0.15, 0.05, True))

Point = tuple[float, float, bool]  # false negatives, false positives, whether rewards are corrected
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


def grid() -> list[Point]:
    """All points in the order in which they are run."""
    points = [(fn, fp, corrects) for corrects in (False, True) for fn in MISSED for fp in ACCEPTED]
    return [*FIRST, *(point for point in points if point not in FIRST and point != (0.0, 0.0, True))]


def trained(point: Point, model: str, seed: int, runs: Path) -> dict[str, list[float]]:
    """pass@1 of each problem, of the base and of the policy that was trained under the point's errors."""
    fn, fp, corrects = point
    options = {"false_positives": fp, "false_negatives": fn, "corrects": corrects}
    rewards: list[dict[str, Any]] = [
        {"name": "_planted:planted_reward", "options": options},
        {"name": "format", "weight": 0.2},
        {"name": "accuracy", "weight": 0.0},
    ]
    sizes = controls.SIZES | {"rl.rewards": rewards, "rl.algorithm": "dr_grpo"}
    folder = r1kit.run("r1-zero", scale="tiny", model=model, overrides=sizes, seed=seed, runs=runs)
    stages = {name: folder.parent / own for name, own in inputs_of(StageFolder("report", folder)).items()}
    columns = {stage.name: strict(stage.completions) for stage in find_stages(stages)}
    return {name: [columns[name][problem] for problem in sorted(columns["base"])] for name in ("base", "zero")}


def tolerance(points: int, seed: int, runs: Path) -> None:
    """Train the clean base of `controls.py` under each pair of rates."""
    model = str(controls.base_of("clean", runs.parent / "controls"))
    result: dict[str, Any] = read_json(RESULT) if RESULT.exists() else {"sizes": controls.SIZES, "points": []}
    if result["sizes"] != controls.SIZES:
        raise SystemExit(f"{RESULT} has points of other sizes: move it away")
    known = {(*each["errors"], each["seed"]): each for each in result["points"]}
    for point in grid()[:points]:
        if (*point, seed) not in known:
            started = time.process_time()
            values = trained(point, model, seed, runs)
            seconds = round(time.process_time() - started, 1)
            known[(*point, seed)] = {"errors": point, "seed": seed, "processor_seconds": seconds, **values}
            result["points"] = list(known.values())
            lines = ",\n".join(json.dumps(each) for each in result["points"])  # a point a line
            write_text(RESULT, f'{{"sizes": {json.dumps(result["sizes"])}, "points": [\n{lines}\n]}}\n')
        print_row(known[(*point, seed)], known.get((0.0, 0.0, False, seed)))


def print_row(measured: dict[str, Any], exact: dict[str, Any] | None) -> None:
    """A row of the guide's table: accuracy with its interval, and the difference to the exact verifier's."""
    fn, fp, corrects = measured["errors"]
    own: list[float] = measured["zero"]
    (low, high), change = share_interval(own, len(own) * controls.SIZES["eval.samples"]), ""
    if exact is not None and exact is not measured:
        changes = [after - before for before, after in zip(exact["zero"], own, strict=True)]
        change = show_difference(difference("pass@1", changes), "pass@1")
    accuracy = f"{100 * fmean(own):.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    print(f"| {fn:.0%} | {fp:.0%} | {'yes' if corrects else 'no'} | {accuracy} | {change} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("coverage", "tolerance"))
    parser.add_argument("--trials", type=int, default=500, help="per pair of rates (500)")
    parser.add_argument("--points", type=int, default=len(grid()), help="pairs of rates, the most telling first (all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--completions", type=Path, help="completions.jsonl of an evaluation, in place of sampling")
    parser.add_argument("--runs", type=Path, default=Path("runs/verifier_error"))
    options = parser.parse_args()
    if options.part == "coverage":
        coverage(options.trials, options.completions, options.runs)
    else:
        tolerance(options.points, options.seed, options.runs)


if __name__ == "__main__":
    main()
