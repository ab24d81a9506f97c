"""How r1kit's time grows with its work: exponents fitted to GRPO steps of fixed lengths.

    python benchmarks/scaling.py                        # random small models, minutes
    python benchmarks/scaling.py --model smollm2-135m   # a real one; without the axis "model size"
    python benchmarks/scaling.py --smoke                # a minute: two points per axis

Each axis is doubled a few times while all else stays; least squares on logarithms give time = c * size ** exponent for
rollout, training and the whole step. Prints exponents with R^2; writes benchmarks/results/scaling-<model>.json.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _compare import host, parser, prepare, write
from _r1kit_side import grpo
from _workload import Job

from r1kit.chat import ChatFormat
from r1kit.models.known import resolve
from r1kit.types import Problem

GOAL = 1.05  # for the group size
PHASES = ("rollout", "train", "step")
PLAIN = ChatFormat(template="plain", system="", plain="{question}", prefill="")
WIDTHS = ((2, 64), (4, 64), (4, 128), (8, 128), (8, 256))  # layers and width of the random models
BASE = {"prompts": 2, "group": 16, "prompt": 64, "max_tokens": 32}


@dataclass(frozen=True)
class Axis:
    """A quantity, the jobs of its points, and the size of each."""

    name: str
    points: list[tuple[float, Job]]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__, steps=2, reps=3)
    options.set_defaults(model="random")
    options.add_argument("--points", type=int, default=5, help="sizes per axis, each twice the one before")
    return options.parse_args(argv)


def random_model(folder: Path, layers: int, width: int) -> tuple[str, int]:
    """The folder and the number of weights in the layers of a model with the tiny world's tokenizer."""
    from r1kit.models.load import Policy, fresh_llama
    from r1kit.tiny.tokenizer import make

    tokenizer = make()
    model = fresh_llama(tokenizer, layers=layers, width=width, heads=width // 32, context=4096, seed=0)
    path = folder / f"{layers}x{width}"
    Policy(model, tokenizer, (tokenizer.eos_token_id,)).save(path)
    return str(path), sum(p.numel() for p in model.model.layers.parameters())


def problems(tokenizer: Any, count: int, tokens: int) -> list[Problem]:
    """Questions of about `tokens` tokens: digits in random order, which every tokenizer splits into few tokens."""
    rows = []
    for index in range(count):
        rng, text = random.Random(f"scaling/{index}"), ""
        while len(tokenizer.encode(text, add_special_tokens=False)) < tokens:
            text += f"{rng.randrange(100)} "
        rows.append(Problem(id=f"scaling/{index}", prompt=text, answer="0"))
    return rows


def job(options: argparse.Namespace, folder: str, **changes: int) -> Job:
    from transformers import AutoTokenizer

    sizes = BASE | changes
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    count = sizes["prompts"] * (options.warmup + options.steps)
    return Job(
        model=folder,
        chat=PLAIN.model_dump(mode="json"),
        problems=problems(tokenizer, count, sizes["prompt"]),
        prompts=sizes["prompts"],
        group=sizes["group"],
        max_tokens=sizes["max_tokens"],
        warmup=options.warmup,
        steps=options.steps,
        seed=options.seed,
        threads=options.threads,
        compute_dtype=options.compute_dtype,
        tokens_per_batch=options.tokens_per_batch or 4096,
        max_rows=options.max_rows or 4096,  # all rows at once: slots are no part of this measurement
    )


def axes(options: argparse.Namespace, folder: Path) -> list[Axis]:
    doublings = [2**power for power in range(options.points)]
    at_random = options.model == "random"
    base, _ = random_model(folder, *WIDTHS[2]) if at_random else (str(resolve(options.model)), 0)
    rows = [
        Axis(name, [(start * factor, job(options, base, **{name: start * factor})) for factor in doublings])
        for name, start in (("group", 8), ("prompts", 1), ("prompt", 32), ("max_tokens", 16))
    ]
    if at_random:
        models = [random_model(folder, layers, width) for layers, width in WIDTHS[: options.points]]
        rows.append(Axis("model size", [(size, job(options, path)) for path, size in models]))
    return rows


def fit(sizes: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """The exponent of seconds = c * size ** exponent by least squares on logarithms, R^2, and that of the last sizes.

    A constant share of the time flattens the fit over all sizes; the last two sizes show what a larger one would cost.
    """
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    slope, _ = statistics.linear_regression(x, y)
    return {"exponent": slope, "r2": statistics.correlation(x, y) ** 2, "last": (y[-1] - y[-2]) / (x[-1] - x[-2])}


def measure_axis(axis: Axis, rounds: int) -> dict[str, Any]:
    """The fastest step of each point over rounds that take the points in turn, and the exponents."""
    best = [dict.fromkeys(PHASES, math.inf) for _ in axis.points]
    for index in range(rounds):
        for row, (_, work) in zip(best, axis.points, strict=True):
            for step in grpo(replace(work, seed=work.seed + index)).steps:
                for phase in PHASES:
                    row[phase] = min(row[phase], step.seconds[phase])
    sizes = [size for size, _ in axis.points]
    fits = {phase: fit(sizes, [row[phase] for row in best]) for phase in PHASES}
    return {"sizes": sizes, "seconds": {phase: [row[phase] for row in best] for phase in PHASES}, "fits": fits}


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    if options.smoke:
        options.points, options.reps, options.steps, options.threads = 2, 1, 1, 1
    prepare(options.threads)
    name = Path(options.model).name
    results: dict[str, Any] = {"benchmark": "scaling", "model": name, "host": host(options.threads), "axes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for axis in axes(options, Path(folder)):
            row = measure_axis(axis, options.reps)
            results["axes"][axis.name] = row
            fits = ", ".join(
                f"{phase} {line['exponent']:.2f} (R^2 {line['r2']:.3f}, last {line['last']:.2f})"
                for phase, line in row["fits"].items()
            )
            print(f"{axis.name:12} {row['sizes'][0]:g} to {row['sizes'][-1]:g}: {fits}", flush=True)
    by_rows = [results["axes"][axis]["fits"]["step"] for axis in ("group", "prompts")]
    steepest = max(line[key] for line in by_rows for key in ("exponent", "last"))
    print(f"steepest in rows: {steepest:.2f}, goal at most {GOAL}" + (" (missed)" if steepest > GOAL else ""))
    write(options.out / f"scaling-{name}.json", results)


if __name__ == "__main__":
    main()
