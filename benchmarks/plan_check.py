"""How right a plan is: memory and hours of three stages as `r1kit plan --measure` says and as they come out.

    python benchmarks/plan_check.py [sft rl reward-model] [--model smollm2-135m] [--set compute_dtype=fp32]

Prints one line of JSON per stage. Each stage runs alone in a fresh process, whose peak memory counts; its time is that
of its steps.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _process import peak_mb

from r1kit.pipeline import External, Kind, Recipe, Stage, execute
from r1kit.recipes.estimate import estimates
from r1kit.recipes.measure import measure
from r1kit.stages.reward_model import REWARD_MODEL
from r1kit.stages.rl import RL
from r1kit.stages.sft import SFT
from r1kit.stages.shared.sources import model_input

TEXT = "the answer is a number that we find step by step because each part of it adds to what came before"
WORDS = TEXT.split()
KINDS: Mapping[str, Kind] = {"sft": SFT, "rl": RL, "reward-model": REWARD_MODEL}
SETTINGS: Mapping[str, dict[str, Any]] = {
    "sft": {"epochs": 1, "batch_size": 8, "tokens_per_batch": 1024},
    "reward-model": {"epochs": 1, "batch_size": 8, "tokens_per_batch": 1024, "validation_share": 0.0},
    "rl": {
        "tasks": [{"name": "tiny/reasoning", "limit": 64}],
        "rewards": ["accuracy"],
        "chat": {"template": "chat", "system": ""},
        "steps": 3,
        "prompts_per_step": 4,
        "group_size": 4,
        "max_tokens": 64,
        "tokens_per_batch": 512,
        "algorithm": {"kl_coef": 0.001},
    },
}


def text(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randrange(60, 240)))


def conversation(rng: random.Random) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text(rng)}, {"role": "assistant", "content": text(rng)}]}


def preference(rng: random.Random) -> dict[str, Any]:
    return {"prompt": text(rng), "chosen": text(rng), "rejected": text(rng)}


ROWS: Mapping[str, Callable[[random.Random], dict[str, Any]]] = {"sft": conversation, "reward-model": preference}


def recipe(name: str, model: str, folder: Path, changes: Mapping[str, str]) -> Recipe:
    """One stage on the model, with rows in `folder`."""
    inputs = {"model": model_input(model)}
    if name in ROWS:
        rng, data = random.Random(0), folder / "rows.jsonl"
        if not data.exists():
            data.write_text("".join(json.dumps(ROWS[name](rng)) + "\n" for _ in range(16)))
        inputs["data"] = External(data)
    settings = KINDS[name].settings.parse(SETTINGS[name]).override(changes)
    return Recipe("plan-check", (Stage(name, KINDS[name], settings, inputs),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="sft, rl or reward-model (default: all three)")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--folder", type=Path, help="run the stage there and print what it took")
    options = parser.parse_args()
    changes = dict(change.split("=", 1) for change in options.changes)
    if options.folder is not None:
        (name,) = options.stages
        execute(recipe(name, options.model, options.folder, changes), options.folder / "runs", None, 1)
        (file,) = options.folder.glob("runs/*/*/metrics.jsonl")
        seconds = sum(json.loads(line).get("time/step_s", 0.0) for line in file.read_text().splitlines())
        print(json.dumps({"peak_gib": peak_mb() / 2**10, "seconds": seconds}))
        return
    for name in options.stages or KINDS:
        with tempfile.TemporaryDirectory() as temporary:
            stage = recipe(name, options.model, Path(temporary), changes)
            planned = estimates(stage, "cpu", 1, measure(stage))[name]
            flags = [flag for change in options.changes for flag in ("--set", change)]
            command = [sys.executable, __file__, name, "--model", options.model, "--folder", temporary, *flags]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        real = json.loads(done.stdout.splitlines()[-1])
        row = {"stage": name, **changes, "plan_gib": planned.memory_gib, "plan_seconds": 3600 * planned.hours, **real}
        ratios = {"memory": row["plan_gib"] / row["peak_gib"], "time": row["plan_seconds"] / row["seconds"]}
        print(json.dumps({**row, "plan/real": ratios, "parts": planned.parts}), flush=True)


if __name__ == "__main__":
    main()
