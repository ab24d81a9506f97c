"""Small RL runs on the tiny world, one healthy and others each with a real fault: does the verdict name it?

python benchmarks/five_runs.py                      # the five runs with 3 seeds each, and others at other settings
python benchmarks/five_runs.py --seeds 1 --only healthy hacking collapsed starved mismatched --runs runs --blind
python benchmarks/five_runs.py --judge              # judge the runs of an earlier call again

A run takes one to two minutes of one core, and a stopped call continues. Its folder is RUNS/NAME-SEED; with `--blind`
it is RUNS/run-1, run-2 ... in an order drawn by chance, which is printed at the end (and kept in RUNS/order.json): can
you tell them apart with `r1kit watch`?
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from r1kit.data.jsonl import read_rows
from r1kit.engines.local import LocalEngine
from r1kit.evaluate.table import align
from r1kit.models.load import Policy, frozen_copy
from r1kit.pipeline import Context, Recipe, execute
from r1kit.recipes.builder import Builder
from r1kit.recipes.r1_zero import zero_stage
from r1kit.recipes.scales.tiny import TINY
from r1kit.report.folders import StageFolder
from r1kit.report.health import Verdict, verdict
from r1kit.report.metrics import Metrics
from r1kit.stages.rl import RL
from r1kit.store import write_json

SMALL = {
    "steps": 24,
    "prompts_per_step": 16,
    "max_tokens": 128,
    "rollouts_every": 1,
    "checkpoint_every": 0,
    "probe.tasks": [{"name": "tiny/reasoning", "split": "train", "seed": 9, "limit": 100}],
    "probe.max_tokens": 128,
    "probe_every": 3,
    "preflight": "off",  # it would stop some of these before their first step
    "alarm": "off",
}
FIVE = ("healthy", "hacking", "collapsed", "starved", "mismatched")
Open = Callable[[Any, Policy], LocalEngine]  # as `open_policy_engine`: from the stage's settings and its policy


@dataclass(frozen=True)
class Case:
    """A run of R1-Zero: the verdict that it should get, and how it differs from the healthy one."""

    expected: str
    description: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    engine: Open | None = None


def mentions(completions: Sequence[str], answer: Sequence[str], **columns: Any) -> list[float]:
    """A verifier with a hole: right if the answer occurs anywhere in the response."""
    return [float(right in re.findall(r"\d+", text)) for text, right in zip(completions, answer, strict=True)]


class StaleEngine(LocalEngine):
    """Samples with the weights of the start for ever."""

    def load_weights(self, named_tensors: object, version: int) -> None:
        self.version = version


def stale(settings: Any, policy: Policy) -> LocalEngine:
    return StaleEngine(replace(policy, model=frozen_copy(policy.model)), max_rows=settings.max_rows)


class LateEngine(LocalEngine):
    """Samples with the weights of the step before."""

    newest: Mapping[str, Any] = {}

    def load_weights(self, named_tensors: Iterable[tuple[str, Any]], version: int) -> None:
        previous, self.newest = self.newest, {name: tensor.detach().clone() for name, tensor in named_tensors}
        super().load_weights(previous.items(), version)


def late(settings: Any, policy: Policy) -> LocalEngine:
    return LateEngine(replace(policy, model=frozen_copy(policy.model)), max_rows=settings.max_rows)


def other_end(settings: Any, policy: Policy) -> LocalEngine:
    """Waits for the padding token, which the model never writes, and not for the one that ends its answers."""
    ends = (policy.tokenizer.pad_token_id,)
    return LocalEngine(replace(policy, end_ids=ends, end_texts=()), max_rows=settings.max_rows)


CASES = {
    "healthy": Case("healthy", "R1-Zero on the tiny world"),
    "hacking": Case(
        "hacking", "the verifier accepts the answer anywhere in the text", {"rewards": [{"name": "five_runs:mentions"}]}
    ),
    "collapsed": Case(
        "collapsed", "learning rate 1e-2, 50 times too high", {"optimizer.learning_rate": 1e-2, "steps": 12}
    ),
    "starved": Case("starved", "sums of five-digit numbers, far too hard", {"tasks": "hard.jsonl"}),
    "mismatched": Case("mismatched", "updates do not reach the sampler", engine=stale),
    "collapsed-2e-3": Case("collapsed", "learning rate 2e-3, 10 times too high", {"optimizer.learning_rate": 2e-3}),
    "mismatched-end": Case("mismatched", "the sampler waits for another end token", engine=other_end),
    "late": Case("healthy", "each update reaches the sampler one step late", engine=late),
    "dr-grpo": Case("healthy", "algorithm=dr_grpo", {"algorithm": "dr_grpo"}),
    "dapo": Case("healthy", "algorithm=dapo", {"algorithm": "dapo"}),
    "paper": Case("healthy", "algorithm=paper, 4 minibatches", {"algorithm": "paper", "minibatches": 4}),
    "slow": Case("healthy", "learning rate 5e-5", {"optimizer.learning_rate": 5e-5}),
}


def hard_sums(file: Path) -> Path:
    """Sums of four numbers with five digits: the model writes digits of its own, and none of its answers is right."""
    rng = random.Random("hard sums")
    numbers = [[rng.randint(10_000, 99_999) for _ in range(4)] for _ in range(2000)]
    rows = [{"question": f"find {'+'.join(map(str, row))}.", "answer": str(sum(row))} for row in numbers]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def train(name: str, case: Case, seed: int, runs: Path) -> Path:
    """Train, or go on; returns the stage's folder."""
    changes = {f"rl.{path}": value for path, value in {**SMALL, **case.changes}.items()}
    if case.changes.get("tasks") == "hard.jsonl":
        changes["rl.tasks"] = [{"name": str(hard_sums(runs / "hard.jsonl"))}]
    build = Builder("Five runs", TINY, {}, changes, seed)
    stage = zero_stage(build, "rl", build.base, TINY.zero)
    if case.engine:
        stage = replace(stage, kind=replace(RL, run=with_engine(case.engine)))
    return execute(Recipe(name, (stage,)), runs)


def with_engine(engine: Open) -> Callable[[Context], Mapping[str, Any]]:
    """The stage `rl` with another engine for its rollouts; its probe keeps the usual one."""

    def run(context: Context) -> Mapping[str, Any]:
        with patch("r1kit.stages.shared.sampling_loop.open_policy_engine", engine):
            return RL.run(context)

    return run


def prefixes(folder: Path) -> Iterator[tuple[int, Verdict]]:
    """The verdict after each step, as someone would have seen it who watched the run."""
    whole, rows = StageFolder("rl", folder), [*read_rows(folder / "metrics.jsonl")]
    for step in range(1, int(whole.metrics.steps[-1]) + 1):
        stage = StageFolder("rl", folder)
        vars(stage)["metrics"] = Metrics(row for row in rows if row["step"] <= step)
        vars(stage)["rollouts"] = [path for path in whole.rollouts if int(path.stem.removeprefix("step-")) <= step]
        yield step, verdict(stage)


def judge(case: Case, folder: Path) -> dict[str, Any]:
    """The last verdict; the step from which on it stays right; and faults named on the way that are not the run's."""
    course = list(prefixes(folder))
    wrong = [step for step, result in course if result.name != case.expected]
    false = sorted({result.name for _, result in course if result.is_fault and result.name != case.expected})
    return {**asdict(course[-1][1]), "from_step": max(wrong, default=0) + 1, "falsely": false, "steps": course[-1][0]}


def drawn(names: list[str], file: Path) -> list[str]:
    """The names in an order drawn by chance, which a call that goes on finds in the file."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, random.SystemRandom().sample(names, len(names)))
    order: list[str] = json.loads(file.read_text())
    if sorted(order) != sorted(names):
        raise SystemExit(f"{file} is the order of other runs: give another --runs")
    return order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--blind", action="store_true", help="run folders do not tell which run is which")
    parser.add_argument("--judge", action="store_true", help="train nothing: judge the runs that are there")
    parser.add_argument("--json", action="store_true", help="also print the verdicts as JSON")
    options = parser.parse_args()
    seeds = {name: options.seeds if name in FIVE else 1 for name in options.only}
    names = [f"{name}-{seed}" for name, count in seeds.items() for seed in range(count)]
    order = drawn(names, options.runs / "order.json") if options.blind else names
    results = []
    for number, name in enumerate(order, 1):
        case, seed = CASES[name.rpartition("-")[0]], int(name.rpartition("-")[2])
        run = f"run-{number}" if options.blind else name
        if not options.judge:
            folder = train(run, case, seed, options.runs)
        elif not (folder := next((options.runs / run).glob("rl-*"), Path())).name:
            continue
        results.append({"run": run, "case": name, "expected": case.expected, "description": case.description})
        results[-1] |= judge(case, folder)
    columns = ("run", "case", "expected", "name", "from_step", "falsely")
    rows = [[", ".join(row[key]) if key == "falsely" else str(row[key]) for key in columns] for row in results]
    print(align([["run", "case", "planted", "verdict", "right from step", "other faults named before"], *rows]))
    right = sum(row["name"] == row["expected"] for row in results)
    print(f"{right} of {len(results)} verdicts are right")
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    sys.modules["five_runs"] = sys.modules["__main__"]  # where the stage looks for `mentions`
    main()
