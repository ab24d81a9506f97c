"""A reward of your own: a plain function with TRL's signature, found by its dotted path, in two steps of R1-Zero.

Run it: python examples/add_a_reward.py [MODEL]. Without MODEL it trains the tiny base model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from r1kit.chat import parse
from r1kit.data.jsonl import read_rows
from r1kit.pipeline import execute
from r1kit.recipes import RECIPES


def brevity(completions: list[str], answer: list[str], **columns: Any) -> list[float | None]:
    """1 for up to 40 characters of reasoning, falling to 0 at 200; None (does not apply) without reasoning.

    A reward receives the completions and, by name, any column of the task: here the right answers, which it ignores.
    """
    values: list[float | None] = []
    for completion in completions:
        reasoning = parse(completion).reasoning
        values.append(None if reasoning is None else min(1.0, max(0.0, (200 - len(reasoning)) / 160)))
    return values


def main(model: str = "tiny", runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """Train for accuracy, format and brevity; print the mean of each part and return the rows of metrics."""
    recipe = RECIPES["r1-zero"](
        scale="tiny",
        model=model,
        overrides={
            "rl.steps": 2,
            "rl.prompts_per_step": 4,
            "rl.group_size": 4,
            "rl.max_tokens": 64,
            "rl.rewards": [
                {"name": "accuracy"},
                {"name": "format", "weight": 0.2},
                {"name": f"{Path(__file__).stem}:brevity", "weight": 0.1},
            ],
            "eval.tasks": [{"name": "tiny/reasoning", "limit": 4}],
            "eval.max_tokens": 64,
        },
    )
    folder = execute(recipe, runs, until="rl")
    rows = list(read_rows(folder / "metrics.jsonl"))
    for row in rows:
        parts = {name: round(value, 3) for name, value in row.items() if name.startswith("reward/")}
        print(f"step {row['step']}: {parts}")
    return rows


if __name__ == "__main__":
    main(*sys.argv[1:2])
