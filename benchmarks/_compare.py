"""Compare r1kit with its peers: rounds in turn in fresh processes, ratios, and one form of results for all scripts."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from _bound import Roofs, Speeds, describe, highest
from _process import HERE, run_side
from _workload import Result, Step, Work

from r1kit.cores import cpu_count
from r1kit.models.known import KNOWN
from r1kit.types import ComputeDtype

PACKAGES = ("torch", "transformers", "trl", "accelerate", "llama-cpp-python")
OURS = "r1kit"
Spread = dict[str, float]
Bound = Callable[[Step, Roofs], dict[str, float]]  # the least seconds of each phase of a step


@dataclass(frozen=True)
class Side:
    """A function that does the work (`module:function`), and the work. Only the fastest of a family is compared."""

    function: str
    work: Work
    family: str = ""


def trl_sides(
    names: str, known: Collection[str], function: str, work: Work, rows: int, family: Callable[[str], str]
) -> dict[str, Side]:
    """TRL's configurations, such as `t1@8`; row counts that do not divide the `rows` of a step are skipped."""
    sides = {}
    for name in names.split(","):
        variant, _, batch = name.partition("@")
        if variant not in known:
            raise SystemExit(f"there is no TRL configuration {variant!r}: give some of {', '.join(known)}")
        if rows % int(batch or 1) == 0:
            own = replace(work, variant=variant, batch=int(batch or work.batch))
            sides[f"TRL {name}"] = Side(function, own, family(variant))
    if not sides:
        raise SystemExit(f"no row count of {names} divides the {rows} rows of a step")
    return sides


@dataclass
class Comparison:
    """r1kit and its peers on the same work. The seconds of the phase `main` decide which peer is the fastest."""

    label: str
    main: str
    ours: Side
    peers: dict[str, Side]
    precision: str = "any"  # of the roofs
    bound: Bound | None = None
    runs: dict[str, list[Result]] = field(default_factory=dict)
    trials: dict[str, Result] = field(default_factory=dict)  # of families of several peers
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, rounds: int) -> None:
        """A trial of each peer that has a family; then rounds of r1kit and the fastest peers, in turn."""
        print(f"\n{self.label}", flush=True)
        families: dict[str, list[str]] = {}
        for name, side in self.peers.items():
            families.setdefault(side.family, []).append(name)
        for name in [name for names in families.values() if len(names) > 1 for name in names]:
            if result := self._measure(name, self.peers[name], "trial  "):
                self.trials[name] = result
        chosen = []
        for names in families.values():
            ran = [name for name in names if name in self.trials]
            chosen += [min(ran, key=lambda name: per_token(self.trials[name], self.main))] if ran else names[:1]
        chosen = [name for name in chosen if name not in self.failed]
        for index in range(rounds):
            for name in (OURS, *chosen):
                side = self.ours if name == OURS else self.peers[name]
                turn = replace(side, work=replace(side.work, seed=side.work.seed + index))
                if name not in self.failed and (result := self._measure(name, turn, f"round {index + 1}")):
                    self.runs.setdefault(name, []).append(result)
        if OURS in self.failed or not self.compared:
            raise SystemExit(f"{self.label}: nothing to compare: {self.failed}")

    @property
    def compared(self) -> list[str]:
        """The peers that ran beside r1kit in every round."""
        return [name for name in self.runs if name != OURS and name not in self.failed]

    def _measure(self, name: str, side: Side, when: str) -> Result | None:
        try:
            result = run_side(side.function, side.work)
        except RuntimeError as error:
            self.failed[name] = str(error).splitlines()[-1]
            print(f"  {when}  {name:18} failed: {self.failed[name]}", flush=True)
            return None
        phases = ", ".join(f"{phase} {_seconds([result], phase)['median']:.3g} s" for phase in result.steps[0].seconds)
        tokens = statistics.fmean(step.tokens for step in result.steps)
        facts = "".join(f", {value}" for value in result.facts.values())
        print(f"  {when}  {name:18} {phases}  ({tokens:.0f} tokens, {result.peak_mb:.0f} MB{facts})", flush=True)
        return result

    def summary(self, speeds: Speeds | None) -> dict[str, Any]:
        """Rates, memory, ratios to r1kit and to the bound, each as median and quartiles of the rounds."""
        ours, bound = self.runs[OURS], None
        if speeds and self.bound:
            bound = partial(self.bound, roofs=Roofs.of(speeds, self.precision))
        phases = list(ours[0].steps[0].seconds)
        ratio = {
            name: {
                phase: spread(
                    [
                        per_token(theirs, phase) / per_token(own, phase)
                        for theirs, own in zip(self.runs[name], ours, strict=True)
                    ]
                )
                for phase in phases
            }
            for name in self.compared
        }
        slower = [f"{p} against {name}" for name, row in ratio.items() for p in phases if row[p]["median"] < 1]
        return {
            "main": self.main,
            "precision": self.precision,
            "ratio": ratio,
            "slower": slower,
            "sides": {name: _side(self.runs[name], bound) for name in (OURS, *self.compared)},
            "trials": {name: {phase: per_token(r, phase) for phase in phases} for name, r in self.trials.items()},
            "failed": self.failed,
        }


def _side(results: Sequence[Result], bound: Callable[[Step], dict[str, float]] | None) -> dict[str, Any]:
    steps = [step for result in results for step in result.steps]
    phases = list(steps[0].seconds)
    row: dict[str, Any] = {
        "facts": results[0].facts,
        "seconds": {phase: _seconds(results, phase) for phase in phases},
        "tokens_per_s": {phase: spread([1 / per_token(result, phase) for result in results]) for phase in phases},
        "tokens": spread([step.tokens for step in steps]),
        "peak_mb": spread([result.peak_mb for result in results]),
        "runs": [[statistics.median(step.seconds[phase] for step in r.steps) for phase in phases] for r in results],
    }
    if bound is not None:
        least = [bound(step) for step in steps]
        row["bound_s"] = {phase: spread([seconds[phase] for seconds in least]) for phase in phases}
        row["times_bound"] = {
            phase: spread([step.seconds[phase] / seconds[phase] for step, seconds in zip(steps, least, strict=True)])
            for phase in phases
        }
    return row


def run_all(
    comparisons: Sequence[Comparison], rounds: int, measure_speeds: Callable[[], Speeds] | None
) -> dict[str, Any]:
    """Run comparisons between two measurements of the roofs, of which the higher counts; print and return all of it."""
    before = measure_speeds() if measure_speeds else None
    for comparison in comparisons:
        comparison.run(rounds)
    speeds = highest(before, measure_speeds()) if before and measure_speeds else None
    if speeds:
        print("\n" + describe(speeds, comparisons[0].precision))
    results = {comparison.label: comparison.summary(speeds) for comparison in comparisons}
    for label, summary in results.items():
        report(label, summary)
    return {"speeds": speeds, "comparisons": results}


def per_token(result: Result, phase: str) -> float:
    """Seconds per token: longer completions do not count against a side."""
    return float(statistics.median(step.seconds[phase] / step.tokens for step in result.steps))


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return {"median": middle, "q1": low, "q3": high}


def _seconds(results: Iterable[Result], phase: str) -> Spread:
    return spread([step.seconds[phase] for result in results for step in result.steps])


def report(label: str, summary: dict[str, Any]) -> None:
    """Print a summary; the JSON has more."""
    sides, main = summary["sides"], summary["main"]
    print(f"\n{label}: median [quartiles]")
    for name, side in sides.items():
        line = f"  {name:18} {_cell(side['tokens_per_s'][main]):28} tokens/s  {_cell(side['peak_mb'], '.0f'):24} MB"
        if "times_bound" in side:
            times = ", ".join(f"{phase} {value['median']:.3g}" for phase, value in side["times_bound"].items())
            line += f"  times the bound: {times}"
        print(line)
    for name, row in summary["ratio"].items():
        print(f"  {name} / r1kit: " + ", ".join(f"{phase} {_cell(value)}" for phase, value in row.items()))
    if summary["slower"]:
        print("  below 1, so r1kit is slower: " + "; ".join(summary["slower"]))


def _cell(value: Spread, digits: str = ".3g") -> str:
    return f"{value['median']:{digits}} [{value['q1']:{digits}}, {value['q3']:{digits}}]"


def parser(about: str | None, *, steps: int, reps: int = 5) -> argparse.ArgumentParser:
    """The options that all comparisons share."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="smollm2-135m", help=f"{', '.join(KNOWN)}, or a folder")
    options.add_argument("--compute-dtype", default="auto", choices=get_args(ComputeDtype), help="of r1kit")
    options.add_argument("--precision", default="any", choices=("any", "fp32"), help="of the products that are a roof")
    options.add_argument("--reps", type=int, default=reps, help="rounds, each with a fresh process per side")
    options.add_argument("--warmup", type=int, default=1, help="steps in each process that are not counted")
    options.add_argument("--steps", type=int, default=steps, help="steps in each process that are")
    options.add_argument("--threads", type=int, default=cpu_count())
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--tokens-per-batch", type=int, help="of r1kit: packed tokens per pass")
    options.add_argument("--max-rows", type=int, help="of r1kit: completions that grow at once")
    options.add_argument("--smoke", action="store_true", help="a random tiny model and little work: does it run?")
    options.add_argument("--out", type=Path, default=HERE / "results")
    return options


def prepare(threads: int) -> None:
    """Threads for what this process measures, and no progress bars among the figures."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.disable_progress_bar()
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"


def smoke_model(folder: Path) -> str:
    """A random model with the tiny world's tokenizer: everything runs, and no figure means anything."""
    from r1kit.models.load import Policy, fresh_llama
    from r1kit.tiny.tokenizer import make

    prepare(threads=1)
    tokenizer = make()
    model = fresh_llama(tokenizer, layers=2, width=64, heads=2, context=512, seed=0)
    Policy(model, tokenizer, (tokenizer.eos_token_id,)).save(folder / "smoke")
    return str(folder / "smoke")


def host(threads: int) -> dict[str, Any]:
    """The processor, and the versions of the packages that are installed."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    facts = {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            facts[name] = version(name)
    return facts


def write(file: Path, results: dict[str, Any]) -> None:
    """Write results as JSON with four digits, innermost lists and objects on one line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_rounded(results), indent=1)
    # strings in JSON hold no line break, so only the layout changes
    file.write_text(re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda match: re.sub(r"\n\s*", " ", match[0]), text) + "\n")
    print(f"\n{file}")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
