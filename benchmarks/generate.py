"""Completions per second of r1kit's engine, transformers' `generate` and continuous batching, and llama.cpp, in turn.

    python benchmarks/generate.py --model smollm2-135m      # or tiny, or a folder; R1KIT_DATA: real GSM8K prompts
    python benchmarks/generate.py --smoke                   # seconds, on a tiny model with random weights

Prints the gate, each run and the ratios; writes benchmarks/results/generate-<model>-<rows>x<tokens>.json. README.md
says what is measured and how to get llama.cpp.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from _bound import Roofs, Shapes, Speeds, bound, measure
from _compare import Comparison, Side, host, parser, prepare, run_all, smoke_model, write
from _process import run_side
from _workload import TINY as TINY_VOCABULARY
from _workload import Generation, Step, problems_for

from r1kit.models.known import resolve
from r1kit.models.load import outline
from r1kit.recipes.scales import SMOLLM2, TINY

TOLERANCE = 1e-2  # of log-probs in fp32: on SmolLM2, llama.cpp differs by 3e-3
TOKENS = {True: 160, False: 96}  # per completion, whether tiny
PRECISIONS = {True: "fp32", False: "fp32,bf16"}
PEERS = {
    "generate": "_transformers_side:static",
    "continuous": "_transformers_side:continuous",
    "llama.cpp": "_llama_cpp_side:generate",
}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__, steps=1)
    options.add_argument("--rows", default="16,64", help="completions at once")
    options.add_argument("--group", type=int, default=8, help="completions per prompt")
    options.add_argument("--max-tokens", type=int, help="tokens per completion")
    options.add_argument("--regimes", default="fixed,natural", help="completions of one length, of their own length")
    options.add_argument("--precisions", help="fp32, bf16: of r1kit and its peers")
    options.add_argument("--peers", default=",".join(PEERS), help="which peers, by name")
    return options.parse_args(argv)


def make_work(options: argparse.Namespace, rows: int) -> Generation:
    folder = str(resolve(options.model))
    policy = outline(folder)
    tiny = len(policy.tokenizer) < TINY_VOCABULARY
    sizes = (TINY if tiny else SMOLLM2).zero
    chat = sizes["chat"] if tiny or policy.tokenizer.chat_template else sizes["chat"].replace(template="plain")
    problems = problems_for(policy.tokenizer, chat, rows // options.group)
    return Generation(
        model=folder,
        prompt_ids=[list(chat.render(problem, policy.tokenizer).token_ids) for problem in problems],
        end_ids=policy.end_ids,
        group=options.group,
        max_tokens=options.max_tokens or TOKENS[tiny],
        warmup=options.warmup,
        steps=options.steps,
        seed=options.seed,
        threads=options.threads,
        max_rows=options.max_rows or rows,
    )


def without_llama_cpp() -> str:
    """Why llama.cpp cannot run here; "" if it can."""
    missing = [name for name in ("llama_cpp", "gguf") if importlib.util.find_spec(name) is None]
    return f"no module {missing[0]}: see benchmarks/README.md" if missing else ""


def gate(work: Generation, names: Sequence[str], folder: str) -> dict[str, float]:
    """In fp32, all sides must give the prompts' last tokens the same log-probs; writes the GGUF file for that.

    Returns the largest difference of each peer, and exits if it is over the tolerance.
    """
    exact = replace(work, compute_dtype="fp32", variant="fp32", target=folder, fixed=False)
    if "llama.cpp" in names:
        run_side("_llama_cpp_side:write_gguf", exact)
    ours = run_side("_r1kit_side:tail_logprobs", exact).facts["logprobs"]
    gaps = {}
    for module in dict.fromkeys(PEERS[name].partition(":")[0] for name in names):
        theirs = run_side(f"{module}:tail_logprobs", exact).facts["logprobs"]
        gaps[module.strip("_").removesuffix("_side")] = max(
            abs(a - b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=True)
        )
    print("gate: " + ", ".join(f"log-probs of {name} differ by at most {gap:.1e}" for name, gap in gaps.items()))
    if any(gap > TOLERANCE for gap in gaps.values()):
        raise SystemExit("the sides do not compute the same model: a comparison of speed would mean nothing")
    return gaps


def sides(work: Generation, names: Sequence[str], precision: str) -> tuple[Side, dict[str, Side]]:
    """r1kit and its peers in one precision; beside bf16 also llama.cpp in int8, for information."""
    ours = Side("_r1kit_side:generate", replace(work, compute_dtype=precision))
    theirs = replace(work, variant=precision)
    peers = {name: Side(PEERS[name], theirs, family=name) for name in names}
    if precision == "bf16" and "llama.cpp" in names:
        peers["llama.cpp Q8_0"] = Side(PEERS["llama.cpp"], replace(work, variant="int8"), family="Q8_0")
    return ours, peers


def speeds_for(work: Generation, shapes: Shapes, *, quick: bool) -> Speeds:
    rows = min(work.max_rows, len(work.prompt_ids) * work.group)
    return measure(
        shapes, decode_rows=rows, prefill_rows=min(64 if quick else 4096, sum(map(len, work.prompt_ids))), quick=quick
    )


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        if options.smoke:
            options.model, options.rows, options.group, options.max_tokens = smoke_model(Path(folder)), "4", 2, 8
            options.reps, options.threads = 1, 1
        prepare(options.threads)
        for rows in map(int, options.rows.split(",")):
            measure_rows(options, rows, folder)


def measure_rows(options: argparse.Namespace, rows: int, folder: str) -> None:
    name, work = Path(options.model).name, replace(make_work(options, rows), target=folder)
    names, failed = options.peers.split(","), {}
    if "llama.cpp" in names and (reason := without_llama_cpp()):
        failed["llama.cpp"] = reason
        print(f"llama.cpp is left out: {reason}")
        names.remove("llama.cpp")
    shapes = Shapes.of(work.model)
    settings = {key: getattr(work, key) for key in ("group", "max_tokens", "warmup", "steps", "seed", "max_rows")}
    lengths = [len(ids) for ids in work.prompt_ids]
    results: dict[str, Any] = {
        "benchmark": "generate",
        "model": name,
        "host": host(options.threads),
        "settings": {"rows": rows, "prompts": lengths} | settings,
        "gate": gate(work, names, folder),
        "left_out": failed,
    }

    def least(step: Step, roofs: Roofs) -> dict[str, float]:
        return {"rollout": bound(step.groups, shapes, roofs, work.max_rows)["rollout"]}

    comparisons = []
    precisions = (options.precisions or PRECISIONS[shapes is None or shapes.head[0] < TINY_VOCABULARY]).split(",")
    if "bf16" in precisions and "llama.cpp" in names:
        for variant in ("bf16", "int8"):
            run_side("_llama_cpp_side:write_gguf", replace(work, variant=variant))
    for regime in options.regimes.split(","):
        for precision in precisions:
            label = f"{rows} x {work.max_tokens}, {regime} lengths, {precision}"
            own = sides(replace(work, fixed=regime == "fixed"), names, precision)
            roof = "fp32" if precision == "fp32" else options.precision
            comparisons.append(Comparison(label, "rollout", *own, roof, least if shapes else None))
    measure_speeds = partial(speeds_for, work, shapes, quick=options.smoke) if shapes else None
    results |= run_all(comparisons, options.reps, measure_speeds)
    write(options.out / f"generate-{name}-{rows}x{work.max_tokens}.json", results)


if __name__ == "__main__":
    main()
