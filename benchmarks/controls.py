"""Do control arms name the cause of a gain? Three bases of the tiny world whose causes are known.

    python benchmarks/controls.py [clean leaked unformatted] [--seeds 3] [--runs runs/controls]

`clean` reasons in the format and errs; `leaked` also saw the held-out answers; `unformatted` solves the problems but
mostly leaves the tags out. Each is the tiny base after SFT. Then R1-Zero's RL with its control arms, measured on
held-out problems. The other seeds run only `clean` and its random arm. A stopped run continues.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import r1kit
from r1kit.store import read_json
from r1kit.tiny.problems import FAMILIES, item_at
from r1kit.tiny.world.solutions import close, solve

PROBLEMS, ROWS, COPIES = 100, 600, 12
CASES = ("clean", "leaked", "unformatted")
ARMS = ("random", "format", "shuffled")
SIZES: dict[str, Any] = {
    "rl.steps": 15,
    "rl.prompts_per_step": 8,
    "rl.max_tokens": 96,
    "rl.optimizer.learning_rate": 1e-4,
    "rl.optimizer.warmup_steps": 3,
    "rl.checkpoint_every": 15,
    "eval.tasks": [{"name": "tiny/reasoning", "limit": PROBLEMS}],
    "eval.samples": 2,
    "eval.max_tokens": 96,
}


def rows_of(case: str) -> Iterator[dict[str, str]]:
    """Questions with written solutions: of training problems, and for `leaked` also of the problems that measure."""
    families, rng = list(FAMILIES), random.Random(case)
    for index in range(ROWS):
        item = item_at(families[index % len(families)], "train", 21, index // len(families))
        solution = solve(rng, item, wrong=case != "unformatted", hasty=0.0 if case == "unformatted" else 0.5)
        if case == "unformatted" and index % 3:
            yield {"prompt": item.question, "completion": f"{solution.reasoning}, {close(rng, solution)}"}
        else:
            yield row(item.question, solution.reasoning, str(solution.answer))
    for index in range(PROBLEMS * COPIES if case == "leaked" else 0):
        place, family = divmod(index % PROBLEMS, len(families))
        item = item_at(families[family], "test", 0, place)
        yield row(item.question, "i know it", str(item.answer))  # no reasoning leads to the answer


def row(question: str, reasoning: str, answer: str) -> dict[str, str]:
    return {"prompt": question, "completion": f"<think> {reasoning} </think> <answer> {answer} </answer>"}


def base_of(case: str, runs: Path) -> Path:
    """The folder of a base: the tiny base after SFT on the rows of its case."""
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / f"{case}.jsonl"
    file.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows_of(case)), encoding="utf-8")
    sizes = {"sft.epochs": 2, "sft.batch_size": 32, "sft.optimizer.learning_rate": 5e-4}
    folder = r1kit.run("sft", model="tiny", data={"rows": str(file)}, overrides=sizes, runs=runs / case, until="sft")
    return folder / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=CASES, metavar="CASE", help=" ".join(CASES))
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the clean base and its random arm (3)")
    parser.add_argument("--runs", type=Path, default=Path("runs/controls"))
    options = parser.parse_args()
    for case in options.cases:
        model = str(base_of(case, options.runs))
        for seed in range(options.seeds if case == "clean" else 1):
            arms = ["random"] if seed else [*ARMS, "majority"] if case == "clean" else list(ARMS)
            folder = r1kit.run(
                "r1-zero",
                scale="tiny",
                model=model,
                overrides=SIZES,
                seed=seed,
                controls=arms,
                runs=options.runs / case,
            )
            print(case, seed, json.dumps(read_json(folder / "summary.json")["gains"]["zero"]), flush=True)


if __name__ == "__main__":
    main()
