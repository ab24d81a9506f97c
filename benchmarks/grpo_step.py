"""One GRPO step of r1kit and of TRL on one machine, in turn, and the distance of each from the physical bound.

    python benchmarks/grpo_step.py --model smollm2-135m     # or tiny, or a folder; R1KIT_DATA: real GSM8K prompts
    python benchmarks/grpo_step.py --smoke                  # seconds, on a tiny model with random weights

Prints the gate, each run and the ratios; writes benchmarks/results/grpo_step-<model>-<sizes>.json. README.md says what
is measured and how TRL is set.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from _bound import Roofs, Shapes, Speeds, bound, measure
from _compare import Comparison, Side, host, parser, prepare, run_all, smoke_model, trl_sides, write
from _process import run_side
from _workload import TINY as TINY_VOCABULARY
from _workload import Job, Step, problems_for

from r1kit.models.known import resolve
from r1kit.recipes.scales import SMOLLM2, TINY

# by whether the model is tiny; sizes that do not divide the rows of a step are skipped
VARIANTS = {True: "t1@32,t1@64,t1@128,t2@64,t4@64", False: "t1@16,t1m@16,t2@8,t2@16,t2@32,t3@16,t4@16"}
SIZES = {True: (16, 16, 160), False: (4, 8, 128)}  # prompts, group, tokens


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__, steps=1)
    options.add_argument("--regimes", default="fixed,natural", help="completions of one length, of their own length")
    options.add_argument("--variants", help="TRL configurations (t1, t1m, t2 .. t5) @ rows per pass")
    options.add_argument("--prompts", type=int, help="prompts per step")
    options.add_argument("--group", type=int, help="completions per prompt")
    options.add_argument("--max-tokens", type=int, help="completion tokens")
    options.add_argument("--ladder", action="store_true", help="also time r1kit technique by technique")
    return options.parse_args(argv)


def make_job(options: argparse.Namespace) -> Job:
    """The job of all processes; missing settings are those of the model's scale."""
    from transformers import AutoTokenizer

    folder = str(resolve(options.model))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tiny = len(tokenizer) < TINY_VOCABULARY
    sizes = (TINY if tiny else SMOLLM2).zero
    chat = sizes["chat"] if tiny or tokenizer.chat_template else sizes["chat"].replace(template="plain")
    prompts, group, max_tokens = (
        option or default
        for option, default in zip((options.prompts, options.group, options.max_tokens), SIZES[tiny], strict=True)
    )
    return Job(
        model=folder,
        chat=chat.model_dump(mode="json"),
        problems=problems_for(tokenizer, chat, prompts * (options.warmup + options.steps)),
        prompts=prompts,
        group=group,
        max_tokens=max_tokens,
        warmup=options.warmup,
        steps=options.steps,
        seed=options.seed,
        threads=options.threads,
        compute_dtype=options.compute_dtype,
        tokens_per_batch=options.tokens_per_batch or sizes["tokens_per_batch"],
        max_rows=options.max_rows or sizes["max_rows"],
    )


def speeds_for(job: Job, shapes: Shapes, *, quick: bool) -> Speeds:
    """The products' speeds at the row counts used here: decoding rows, prompt tokens of a step, tokens of a pass."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.model, trust_remote_code=False)
    prompts = [len(job.format.render(problem, tokenizer).token_ids) for problem in job.problems[: job.prompts]]
    most = 64 if quick else 4096
    return measure(
        shapes,
        decode_rows=min(job.max_rows, job.prompts * job.group),
        prefill_rows=min(most, sum(prompts)),
        train_rows=min(most, job.tokens_per_batch),
        quick=quick,
    )


def describe(job: Job) -> dict[str, Any]:
    """The settings that reproduce the run, without the model's path on this machine."""
    names = ("prompts", "group", "max_tokens", "warmup", "steps", "seed", "threads")
    settings = {name: getattr(job, name) for name in (*names, "compute_dtype", "tokens_per_batch", "max_rows")}
    problems = sorted({problem.source or problem.id.split("/")[0] for problem in job.problems})
    return settings | {"chat": job.chat, "problems": problems}


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        if options.smoke:
            options.model, options.ladder = smoke_model(Path(folder)), True
            options.variants = options.variants or "t1@4"
            options.prompts, options.group, options.max_tokens, options.reps, options.threads = 2, 4, 8, 1, 1
        measure_all(options)


def measure_all(options: argparse.Namespace) -> None:
    from _gate import grpo_gate
    from _trl_side import VARIANTS as KNOWN

    prepare(options.threads)
    name, job = Path(options.model).name, make_job(options)
    results: dict[str, Any] = {
        "benchmark": "grpo_step",
        "model": name,
        "host": host(options.threads),
        "settings": describe(job),
        "gate": grpo_gate(job),
    }
    variants = options.variants or VARIANTS[name.startswith("tiny")]
    shapes = Shapes.of(job.model)
    slots = min(job.max_rows, job.prompts * job.group)

    def least(step: Step, roofs: Roofs) -> dict[str, float]:
        return bound(step.groups, shapes, roofs, slots)

    comparisons = []
    for regime in options.regimes.split(","):
        turn = replace(job, fixed=regime == "fixed")
        label = f"{job.prompts} x {job.group} x {job.max_tokens}, {regime} lengths"
        peers = trl_sides(variants, KNOWN, "_trl_side:grpo", turn, job.prompts * job.group, lambda _: "TRL")
        sides = Side("_r1kit_side:grpo", turn), peers
        comparisons.append(Comparison(label, "step", *sides, options.precision, least if shapes else None))
    measure_speeds = partial(speeds_for, job, shapes, quick=options.smoke) if shapes else None
    results |= run_all(comparisons, options.reps, measure_speeds)
    if options.ladder:
        results["ladder_s"] = run_side("_ladder:ladder", job).facts
        print("\n".join(f"  {label:70} {value:.3g} s" for label, value in results["ladder_s"].items()))
    write(options.out / f"grpo_step-{name}-{job.prompts}x{job.group}x{job.max_tokens}.json", results)


if __name__ == "__main__":
    main()
