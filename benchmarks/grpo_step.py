"""One GRPO step of r1kit and of TRL on one machine, in turn, and the distance of each from the physical bound.

    python benchmarks/grpo_step.py --model smollm2-135m     # or tiny, or a folder; R1KIT_DATA: real GSM8K prompts
    python benchmarks/grpo_step.py --smoke                  # seconds, on a tiny model with random weights

Prints the gate, each run and the ratios; writes benchmarks/results/grpo_step-<model>.json. README.md says what is
measured and how TRL is set.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _workload import HERE, Job, Result, problems_for, run_side

from r1kit.models.known import KNOWN, resolve
from r1kit.recipes.scales import SMOLLM2, TINY

PHASES = ("rollout", "train", "step")
VARIANTS = "t1@8,t1@16,t1@32,t1@64"  # sizes that do not divide the rows of a step are skipped
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SIZES = {True: (16, 16, 160), False: (4, 8, 128)}  # whether tiny -> prompts, group, tokens


@dataclass
class Regime:
    """All runs of one length regime: r1kit's and TRL's (all configurations in round 0, then the fastest)."""

    fixed: bool
    r1kit: list[Result] = field(default_factory=list)
    trl: dict[str, list[Result]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> str:
        """TRL's configuration with the lowest time per completion token in round 0."""
        return min(self.trl, key=lambda name: per_token(self.trl[name][0], "step"))


def per_token(result: Result, phase: str) -> float:
    """Seconds per completion token: longer rollouts do not count against a side."""
    return float(statistics.median(getattr(step, f"{phase}_s") / step.tokens for step in result.steps))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else list(values) * 3
    return {"median": middle, "q1": low, "q3": high}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help=f"{', '.join(KNOWN)}, or a folder")
    parser.add_argument("--regimes", default="fixed,natural", help="completions of one length, of their own length")
    parser.add_argument("--variants", default=VARIANTS, help="TRL configurations (t1, t1m, t2 .. t5) @ rows per pass")
    parser.add_argument("--prompts", type=int, help="prompts per step")
    parser.add_argument("--group", type=int, help="completions per prompt")
    parser.add_argument("--max-tokens", type=int, help="completion tokens")
    parser.add_argument("--reps", type=int, default=5, help="rounds, each with a fresh process per side")
    parser.add_argument("--warmup", type=int, default=1, help="steps in each process that are not counted")
    parser.add_argument("--steps", type=int, default=1, help="steps in each process that are")
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens-per-batch", type=int, help="of r1kit: packed tokens per pass")
    parser.add_argument("--max-rows", type=int, help="of r1kit: completions that grow at once")
    parser.add_argument("--ladder", action="store_true", help="also time r1kit without single techniques")
    parser.add_argument("--smoke", action="store_true", help="a random tiny model, a handful of tokens, one round")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args(argv)


def smoke(options: argparse.Namespace, folder: Path) -> None:
    """Small enough for a test: everything runs once, and no figure is meaningful."""
    from r1kit.models.load import Policy, fresh_llama
    from r1kit.tiny.tokenizer import make

    tokenizer = make()
    model = fresh_llama(tokenizer, layers=2, width=64, heads=2, context=512, seed=0)
    Policy(model, tokenizer, (tokenizer.eos_token_id,)).save(folder / "smoke")
    options.model, options.ladder = str(folder / "smoke"), True
    options.variants = "t1@4" if options.variants == VARIANTS else options.variants
    options.prompts, options.group, options.max_tokens, options.reps, options.threads = 2, 4, 8, 1, 1


def make_job(options: argparse.Namespace) -> Job:
    """The job of all processes; missing settings are those of the model's scale."""
    from transformers import AutoTokenizer

    folder = str(resolve(options.model))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tiny = len(tokenizer) < 1000
    sizes = (TINY if tiny else SMOLLM2).zero
    chat = sizes["chat"] if tiny or tokenizer.chat_template else sizes["chat"].replace(template="plain")
    prompts, group, max_tokens = (
        option or default
        for option, default in zip((options.prompts, options.group, options.max_tokens), SIZES[tiny], strict=True)
    )
    problems = problems_for(options.model, tokenizer, chat, prompts * (options.warmup + options.steps))
    return Job(
        model=folder,
        chat=chat.model_dump(mode="json"),
        problems=[asdict(problem) for problem in problems],
        prompts=prompts,
        group=group,
        max_tokens=max_tokens,
        fixed=True,
        warmup=options.warmup,
        steps=options.steps,
        seed=options.seed,
        threads=options.threads,
        tokens_per_batch=options.tokens_per_batch or sizes["tokens_per_batch"],
        max_rows=options.max_rows or sizes["max_rows"],
    )


def variants(names: str, rows: int) -> dict[str, tuple[str, int]]:
    """`t1@8` as configuration and rows per pass; sizes that do not divide the rows of a step are skipped."""
    from _trl_side import VARIANTS

    pairs = {name: (kind, int(batch or 8)) for name in names.split(",") for kind, _, batch in [name.partition("@")]}
    for kind, _ in pairs.values():
        if kind not in VARIANTS:
            raise SystemExit(f"there is no TRL configuration {kind!r}: give some of {', '.join(VARIANTS)}")
    fitting = {name: pair for name, pair in pairs.items() if rows % pair[1] == 0}
    if not fitting:
        raise SystemExit(f"no row count of {names} divides the step's {rows} completions")
    return fitting


def compare(job: Job, configurations: dict[str, tuple[str, int]], reps: int) -> Regime:
    """Rounds of r1kit and TRL in turn, each in a fresh process."""
    regime = Regime(fixed=job.fixed)
    for rep in range(reps):
        turn = replace(job, seed=job.seed + rep)
        regime.r1kit.append(show("r1kit", rep, run_side("_r1kit_side.py", turn)))
        for name in list(configurations) if rep == 0 else [regime.best]:
            variant, batch = configurations[name]
            try:
                result = run_side("_trl_side.py", replace(turn, variant=variant, batch=batch))
            except RuntimeError as error:
                regime.failed[name] = str(error).splitlines()[-1]
                print(f"  TRL {name:8} failed: {regime.failed[name]}", flush=True)
                continue
            regime.trl.setdefault(name, []).append(show(f"TRL {name}", rep, result))
        if not regime.trl:
            raise SystemExit("no configuration of TRL ran: there is nothing to compare with")
    return regime


def show(name: str, rep: int, result: Result) -> Result:
    times = ", ".join(f"{phase} {seconds([result], phase)['median']:.3g} s" for phase in PHASES)
    tokens = statistics.fmean(step.tokens for step in result.steps)
    print(f"  round {rep + 1}  {name:12} {times}  ({tokens:.0f} tokens, {result.peak_mb:.0f} MB)", flush=True)
    return result


def summarise(regime: Regime, job: Job, shapes: Any, roofs: Any) -> dict[str, Any]:
    """Rates, ratios TRL / r1kit of neighbouring runs, and measured / bound, each as median and quartiles."""
    sides = {"r1kit": regime.r1kit, "trl": regime.trl[regime.best]}
    summary: dict[str, Any] = {"trl_best": regime.best, "trl_all": {}, "trl_failed": regime.failed}
    for name, results in regime.trl.items():
        summary["trl_all"][name] = {f"{phase}_s": seconds(results, phase) for phase in PHASES}
    pairs = list(zip(sides["trl"], sides["r1kit"], strict=False))
    summary["ratio"] = {p: spread([per_token(trl, p) / per_token(ours, p) for trl, ours in pairs]) for p in PHASES}
    for side, results in sides.items():
        steps = [step for result in results for step in result.steps]
        row: dict[str, Any] = {f"{phase}_s": seconds(results, phase) for phase in PHASES}
        row |= {f"{p}_tokens_per_s": spread([1 / per_token(r, p) for r in results]) for p in PHASES[:2]}
        row["peak_mb"] = spread([result.peak_mb for result in results])
        row["zero_variance_share"] = statistics.fmean(not g.trained for step in steps for g in step.groups)
        row["completion_tokens"] = spread([step.tokens for step in steps])
        if shapes is not None:
            row |= to_bound(steps, job, shapes, roofs)
        summary[side] = row
    return summary


def seconds(results: Sequence[Result], phase: str) -> dict[str, float]:
    return spread([getattr(step, f"{phase}_s") for result in results for step in result.steps])


def to_bound(steps: Sequence[Any], job: Job, shapes: Any, roofs: Any) -> dict[str, Any]:
    from _bound import bound

    slots = min(job.max_rows, job.prompts * job.group)
    bounds = [bound(step.groups, shapes, roofs, slots) for step in steps]
    return {
        "bound": {f"{p}_s": spread([b[f"{p}_s"] for b in bounds]) for p in PHASES},
        "times_bound": {
            p: spread([getattr(s, f"{p}_s") / b[f"{p}_s"] for s, b in zip(steps, bounds, strict=True)]) for p in PHASES
        },
    }


def report(name: str, summary: dict[str, Any]) -> None:
    """Print the table; the JSON has more."""

    def cell(value: dict[str, float], digits: str = ".3g") -> str:
        return f"{value['median']:{digits}} [{value['q1']:{digits}}, {value['q3']:{digits}}]"

    print(f"\n{name} lengths, median [quartiles]; TRL's best configuration here is {summary['trl_best']}")
    for label, key in (
        ("rollout tokens/s", "rollout_tokens_per_s"),
        ("train tokens/s", "train_tokens_per_s"),
        ("step, s", "step_s"),
        ("peak memory, MB", "peak_mb"),
    ):
        print(f"  {label:18} r1kit {cell(summary['r1kit'][key]):28} TRL {cell(summary['trl'][key])}")
    for phase in PHASES:
        line = f"  {phase:8} TRL / r1kit {cell(summary['ratio'][phase]):24}"
        if "bound" in summary["r1kit"]:
            ours, theirs = (summary[side]["times_bound"][phase]["median"] for side in ("r1kit", "trl"))
            seconds = summary["r1kit"]["bound"][f"{phase}_s"]["median"]
            line += f" measured / bound: r1kit {ours:.3g}, TRL {theirs:.3g} (r1kit's bound {seconds:.3g} s)"
        print(line)


def gate(job: Job) -> dict[str, float]:
    """Print the agreement of the gradients; exit if they differ."""
    from _gate import check

    agreement = check(job)
    gc.collect()  # a trainer refers to itself: without this, two models would stay in memory during the runs
    print(
        f"gate: loss {agreement.loss_r1kit:.7f} and {agreement.loss_trl:.7f}, gradients' cosine "
        f"{agreement.cosine:.9f}, relative error {agreement.relative_error:.2e}",
        flush=True,
    )
    if not agreement.holds:
        raise SystemExit("the gradients differ: a comparison of speed would mean nothing")
    return agreement.as_dict()


def roofs_for(job: Job, shapes: Any, *, quick: bool) -> Any:
    """The roofs at the row counts used here: decoding rows, prompt tokens of a step, packed tokens of a pass."""
    from _bound import measure
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.model, trust_remote_code=False)
    prompts = [len(job.format.render(problem, tokenizer).token_ids) for problem in job.task.problems[: job.prompts]]
    most = 64 if quick else 4096
    return measure(
        shapes,
        decode_rows=min(job.max_rows, job.prompts * job.group),
        prefill_rows=min(most, sum(prompts)),
        train_rows=min(most, job.tokens_per_batch),
        megabytes=32 if quick else 512,
    )


def describe(job: Job) -> dict[str, Any]:
    """The settings that reproduce the run, without the model's path on this machine."""
    left_out = ("model", "problems", "variant", "batch", "fixed")
    rows = {key: value for key, value in asdict(job).items() if key not in left_out}
    return rows | {"problems": sorted({row["source"] or row["id"].split("/")[0] for row in job.problems})}


def host(threads: int) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "accelerate")}
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads, "python": platform.python_version(), **versions}


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        if options.smoke:
            smoke(options, Path(folder))
        measure_all(options)


def measure_all(options: argparse.Namespace) -> None:
    import torch
    from _bound import Shapes
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    name, job = Path(options.model).name, make_job(options)
    configurations = variants(options.variants, job.prompts * job.group)
    shapes = Shapes.of(job.model)
    results: dict[str, Any] = {
        "model": name,
        "settings": describe(job),
        "host": host(options.threads),
        "gate": gate(job),
        "regimes": {},
    }
    roofs = roofs_for(job, shapes, quick=options.smoke) if shapes else None
    regimes = {}
    for regime in options.regimes.split(","):
        print(f"{regime} lengths", flush=True)
        regimes[regime] = compare(replace(job, fixed=regime == "fixed"), configurations, options.reps)
    if options.ladder:
        results["ladder_s"] = run_side("_r1kit_side.py", replace(job, variant="ladder")).extra
    if shapes and roofs:  # measured again after the runs: the higher value is the roof
        roofs = roofs.best(roofs_for(job, shapes, quick=options.smoke))
        results["roofs"] = asdict(roofs)
        print("roofs: " + ", ".join(f"{key} {value / 1e9:.4g} G/s" for key, value in results["roofs"].items()))
    for regime, runs in regimes.items():
        summary = summarise(runs, job, shapes, roofs)
        results["regimes"][regime] = summary | {"runs": asdict(runs)}
        report(regime, summary)
    for label, value in results.get("ladder_s", {}).items():
        print(f"  {label:52} {value:.3g} s")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"grpo_step-{name}.json"
    file.write_text(json.dumps(results, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
