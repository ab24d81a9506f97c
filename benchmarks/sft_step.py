"""Updates of SFT with r1kit and with TRL's SFTTrainer on the same documents, in turn: tokens per second and memory.

    python benchmarks/sft_step.py --model smollm2-135m      # or tiny, or a folder; R1KIT_DATA: GSM8K's solutions
    python benchmarks/sft_step.py --smoke                   # seconds, on a tiny model with random weights

Prints the gates, each run and the ratios; writes benchmarks/results/sft_step-<model>.json. README.md says what is
measured and how TRL is set.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _bound import Roofs, Shapes, Speeds, measure, training_bound
from _compare import Comparison, Side, host, parser, prepare, run_all, smoke_model, trl_sides, write
from _workload import TINY as TINY_VOCABULARY
from _workload import Step, Training, documents_for

from r1kit.models.known import resolve
from r1kit.recipes.scales import SMOLLM2, TINY

VARIANTS = "padded@8,padded-bf16@8,padded-sorted-bf16@8,padded-sorted-bf16@16,packed,packed-bf16"
ROWS = {True: 128, False: 16}  # documents per update, whether tiny


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__, steps=1)
    options.add_argument("--variants", default=VARIANTS, help="TRL configurations, padded ones @ rows per pass")
    options.add_argument("--rows", type=int, help="documents per update")
    return options.parse_args(argv)


def make_work(options: argparse.Namespace) -> Training:
    """The work of all processes; missing settings are those of the model's scale."""
    from transformers import AutoTokenizer

    folder = str(resolve(options.model))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tiny = len(tokenizer) < TINY_VOCABULARY
    sizes = TINY if tiny else SMOLLM2
    chat = sizes.zero["chat"].replace(exemplars=())
    return Training(
        model=folder,
        documents=documents_for(tokenizer, chat, options.rows or ROWS[tiny]),
        warmup=options.warmup,
        steps=options.steps,
        seed=options.seed,
        threads=options.threads,
        compute_dtype=options.compute_dtype,
        tokens_per_batch=options.tokens_per_batch or sizes.zero["tokens_per_batch"],
    )


def family(variant: str) -> str:
    """TRL padded or TRL packed."""
    return f"TRL {variant.partition('-')[0]}"


def describe(work: Training) -> dict[str, Any]:
    names = ("warmup", "steps", "seed", "threads", "compute_dtype", "tokens_per_batch")
    trained = sum(len(d.token_ids) - d.prompt for d in work.documents) / work.tokens
    lengths = sorted(len(d.token_ids) for d in work.documents)
    return {name: getattr(work, name) for name in names} | {"lengths": lengths, "trained_share": trained}


def speeds_for(work: Training, shapes: Shapes, *, quick: bool) -> Speeds:
    rows = min(64 if quick else 4096, work.tokens_per_batch)
    return measure(shapes, train_rows=rows, quick=quick)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        if options.smoke:
            options.model, options.rows, options.reps, options.threads = smoke_model(Path(folder)), 8, 1, 1
            options.variants = "padded@4,packed"
        measure_all(options)


def measure_all(options: argparse.Namespace) -> None:
    from _gate import sft_gate
    from _trl_sft import VARIANTS as KNOWN

    prepare(options.threads)
    name, work = Path(options.model).name, make_work(options)
    results: dict[str, Any] = {
        "benchmark": "sft_step",
        "model": name,
        "host": host(options.threads),
        "settings": describe(work),
        "gate": sft_gate(work, ("padded", "packed")),
    }
    shapes = Shapes.of(work.model)
    sizes = [(len(d.token_ids), len(d.token_ids) - d.prompt) for d in work.documents]

    def least(_: Step, roofs: Roofs) -> dict[str, float]:
        return {"step": training_bound(sizes, shapes, roofs)}

    label = f"{len(sizes)} documents, {work.tokens} tokens"
    peers = trl_sides(options.variants, KNOWN, "_trl_sft:sft", work, len(work.documents), family)
    sides = Side("_r1kit_sft:sft", work), peers
    comparison = Comparison(label, "step", *sides, options.precision, least if shapes else None)
    measure_speeds = partial(speeds_for, work, shapes, quick=options.smoke) if shapes else None
    results |= run_all([comparison], options.reps, measure_speeds)
    write(options.out / f"sft_step-{name}.json", results)


if __name__ == "__main__":
    main()
