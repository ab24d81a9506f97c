"""Whether steps of RL can be made again bit for bit, and whether planted faults are found where they are.

    python benchmarks/replayed_steps.py [--steps 100] [--out results]

Three runs on the tiny base model (GRPO; the paper's with a moving reference; LoRA with DAPO) are replayed at random
steps with `r1kit replay`. Then each fault of `tests/planted_steps.py` is planted in a run of its own, from a random
step on, and `r1kit bisect` compares it with the sound run. Prints both counts; about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from planted_steps import FAULTS, planted, train
from r1kit.commands.bisect_command import bisect
from r1kit.commands.replay_command import replay
from r1kit.data.jsonl import read_rows

LENGTH = 34  # steps of each run
KEPT = {"steps": LENGTH, "checkpoint_every": 3, "keep_checkpoints": 20, "rollouts_every": 5}
RUNS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "paper": {"algorithm": {"kl_coef": 0.05, "reference_refresh": 8, "dynamic_sampling": 1}, "epochs": 2},
    "lora-dapo": {"algorithm": "dapo", "lora_rank": 4, "truncated": "skip", "top_p": 0.95},
}


def replays(runs: Path, count: int, chance: random.Random) -> dict[str, Any]:
    """Random steps of the three runs, each made again from the nearest checkpoint."""
    folders = {name: train(runs, KEPT | settings, name) for name, settings in RUNS.items()}
    places = chance.sample([(name, step) for name in folders for step in range(1, LENGTH + 1)], count)
    different = list[str]()
    for number, (name, step) in enumerate(places, 1):
        result = replay(folders[name], step, say=lambda line: None)
        if not result["ok"]:
            different.append(f"{name} {result['text']}")
        print(f"{number}/{count}: {name}, step {step}: {'the same' if result['ok'] else 'DIFFERS'}", flush=True)
    return {"replayed": count, "identical": count - len(different), "different": different}


def bisections(runs: Path, chance: random.Random) -> dict[str, Any]:
    """Each fault in a run of its own, laid beside the sound run."""
    sound, rows = train(runs / "sound"), list[dict[str, Any]]()
    # a step whose rewards are all equal has no gradient, so most faults change nothing in it
    learning = [step for step in range(2, 6) if any(row["advantage"] for row in rollouts(sound, step))]
    for number, fault in enumerate(FAULTS):
        first = chance.choice(learning)
        with planted(fault, first):
            faulty = train(runs / f"fault-{number}")
        found = bisect(sound, faulty)["parting"] or {}
        named = (found.get("stage"), found.get("step"), found.get("tensor"))
        rows.append({"fault": fault.title, "expected": ["rl", first, fault.tensor], "named": named})
        print(f"{fault.title}: planted at step {first} in {fault.tensor}, named {named}", flush=True)
    right = sum(list(row["named"]) == row["expected"] for row in rows)
    return {"planted": len(rows), "named": right, "faults": rows}


def rollouts(run: Path, step: int) -> list[dict[str, Any]]:
    (file,) = run.glob(f"rl-*/rollouts/step-{step:06d}.jsonl")
    return list(read_rows(file))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps to replay (100)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    chance, started = random.Random(options.seed), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="r1kit-steps-") as runs:
        result = replays(Path(runs), options.steps, chance) if options.steps else {"replayed": 0, "identical": 0}
        result |= bisections(Path(runs), chance)
    result["seconds"] = round(time.perf_counter() - started)
    print(f"{result['identical']} of {result['replayed']} steps bit-identical")
    print(f"{result['named']} of {result['planted']} faults named at the right stage, step and tensor")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "replayed_steps.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
