"""Data for r1_smollm2.toml: lists of true calculations, because SmolLM2's own arithmetic is too weak to learn from.

Run it: python examples/r1_smollm2_calculations.py [FILE]
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

LISTS = 250
LENGTH = 20  # calculations per list: about 220 tokens


def calculation(rng: random.Random) -> tuple[str, int]:
    """Four of five sums and differences have numbers up to 99, the others up to 999. Half of the products and quotients
    have factors up to 12, and the others one up to 99."""
    sign = rng.choices("-+*/", (45, 25, 15, 15))[0]
    if sign in "-+":
        top = 999 if rng.random() < 0.2 else 99
        right, left = sorted((rng.randint(1, top), rng.randint(1, top)))
        return (f"{left} - {right}", left - right) if sign == "-" else (f"{left} + {right}", left + right)
    left, right = rng.randint(2, rng.choice((12, 99))), rng.randint(2, 12)
    return (f"{left} * {right}", left * right) if sign == "*" else (f"{left * right} / {right}", left)


def row(rng: random.Random) -> dict[str, str]:
    """Each request names its last calculation, so that requests differ; the answer is the result of that one."""
    calculations = [calculation(rng) for _ in range(LENGTH)]
    asked, answer = calculations[-1]
    thought = " ".join(f"{left} = {result}." for left, result in calculations)
    return {
        "prompt": f"Write {LENGTH} true calculations. The last one is {asked}.",
        "completion": f"<think>{thought}</think> <answer>{answer}</answer>",
    }


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "calculations.jsonl")
    rng = random.Random(0)
    path.write_text("".join(json.dumps(row(rng)) + "\n" for _ in range(LISTS)), encoding="utf-8")
    print(f"{path}: {LISTS} lists of {LENGTH} calculations")


if __name__ == "__main__":
    main()
