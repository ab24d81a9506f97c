"""Is a student that learns on its own samples better than one of traces or logits, at equal compute?

    python benchmarks/on_policy.py [RUN] [--seeds 3] [--steps 30] [--runs runs/on-policy]

RUN is a finished run of `r1` at the scale tiny (runs/r1-tiny, as `make demo` leaves it), whose R1 teaches. The arm
`on-policy` is the recipe's student: SFT on the traces, then steps on its own samples (`--steps`). The arms `traces` and
`logits` train the same base on the same traces for as many epochs as take at least as many processor seconds. All are
measured on the same held-out problems; differences are paired by problem, with all seeds of a problem in one value.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from r1kit.evaluate.gain import paired, strict
from r1kit.evaluate.table import show_difference
from r1kit.pipeline import External, Recipe, execute
from r1kit.pipeline.plan import PLAN
from r1kit.recipes.builder import Builder
from r1kit.recipes.scale import Sizes
from r1kit.recipes.scales.tiny import TINY
from r1kit.report.folders import find_stages
from r1kit.stages.distill import DISTILL
from r1kit.stages.on_policy import ON_POLICY
from r1kit.stages.sft import SFT
from r1kit.store import read_json, write_json

ARMS = ("traces", "logits", "on-policy")


def one_seed(run: Mapping[str, Path], seed: int, epochs: Mapping[str, int], steps: int) -> Recipe:
    """The arms of one seed with their evaluations; arms without a number of epochs are left out."""
    size = TINY.for_r1
    assert size.student_on_policy is not None
    build = Builder("on-policy", TINY, {"eval": size.eval}, {}, seed, size.student)
    teacher = External(run["r1"] / "model")
    data = {"model": build.base, "data": External(run["mix"] / "mixed.jsonl")}
    first = build("first", SFT, data, size.student_sft)
    inputs = {"model": first / "model", "teacher": teacher}
    on_policy = size.student_on_policy | Sizes(steps=steps)
    stages = {"first": first, "on-policy": build("on-policy", ON_POLICY, inputs, on_policy)}
    if "traces" in epochs:
        stages["traces"] = build("traces", SFT, data, size.student_sft | Sizes(epochs=epochs["traces"]))
    if "logits" in epochs:
        sizes = size.student_logits | Sizes(epochs=epochs["logits"])
        stages["logits"] = build("logits", DISTILL, {**data, "teacher": teacher}, sizes)
    measured = build.measure({name: stages[name] / "model" for name in ARMS if name in stages})
    return build.recipe(f"seed-{seed}-steps-{steps}", [*stages.values(), *measured.values()], measured)


def seconds(recipe: Recipe, runs: Path, until: str, known: dict[str, float]) -> float:
    """The processor seconds of the stages up to this one, measured once and kept in `known`."""
    key = f"{recipe.name}/{until}"
    if key not in known:
        started = time.process_time()
        execute(recipe, runs, until)
        known[key] = time.process_time() - started
        write_json(runs / "seconds.json", known)
    return known[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/r1-tiny"), metavar="RUN")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30, help="of the arm on-policy (30, as in the recipe)")
    parser.add_argument("--runs", type=Path, default=Path("runs/on-policy"))
    options = parser.parse_args()
    run = {stage["stage"]: options.run / stage["folder"] for stage in read_json(options.run / PLAN)["stages"]}
    file = options.runs / "seconds.json"
    known: dict[str, float] = read_json(file) if file.exists() else {}

    # one epoch of each, to know how many cost as much as the on-policy arm
    base, one = one_seed(run, 0, {}, options.steps), one_seed(run, 0, {"traces": 1, "logits": 1}, options.steps)
    first, whole = (seconds(base, options.runs, until, known) for until in ("first", "on-policy"))
    costs = {"traces": first / TINY.for_r1.student_sft["epochs"], "logits": 0.0}
    execute(one, options.runs, "traces")
    costs["logits"] = seconds(one, options.runs, "logits", known)
    epochs = {name: math.ceil((first + whole) / cost) for name, cost in costs.items()}
    print(f"on-policy: {first + whole:.0f} processor s, of which SFT {first:.0f}; epochs: {epochs}", flush=True)

    values: dict[str, dict[str, list[float]]] = {arm: defaultdict(list) for arm in ARMS}
    for seed in range(options.seeds):
        recipe = one_seed(run, seed, epochs, options.steps)
        folder = execute(recipe, options.runs)
        columns = {stage.name: stage for stage in find_stages(folder.parent)}  # as in the report
        for arm in ARMS:
            by_problem = strict(columns[arm].completions)
            print(f"seed {seed} {arm}: {100 * fmean(by_problem.values()):.1f} %", flush=True)
            for problem, value in by_problem.items():
                values[arm][problem].append(value)
    means = {arm: {problem: fmean(own) for problem, own in each.items()} for arm, each in values.items()}
    for arm in ("traces", "logits"):
        change = paired(means[arm], means["on-policy"])
        print(f"on-policy - {arm}: {show_difference(change, 'pass@1')} points, p = {change.p_value:.2g}")


if __name__ == "__main__":
    main()
