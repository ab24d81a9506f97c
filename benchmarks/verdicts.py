"""How many mathematical verdicts a second this machine gives, by kind of answer.

    python benchmarks/verdicts.py [--count 20000]

Writes benchmarks/results/verdicts.json. All pairs of a kind differ, so that the cache of verdicts helps nowhere.
`typical` is the mix that training on GSM8K shows; `symbolic` needs a computer algebra system in worker processes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from r1kit.verifiers import verify_all

Pair = tuple[str, str]  # response, reference
FORM = "<think>There are {n} of them, and {n} + {k} = {total}.</think> <answer>{answer}</answer>"


def typical(rng: random.Random, index: int) -> Pair:
    """Right as written, right in other clothes, wrong, without an answer: as a policy in training writes them."""
    total = 1000 + index
    k, wrong = rng.randint(1, 99), total + rng.randint(1, 9)
    same = (
        f"{total}",
        f"${total:,}",
        f"{total}.0",
        f"{total} apples",
        f"\\boxed{{{total}}}",
        f"The answer is {total}.",
    )
    wordings = (*same, same[0], f"{wrong}", f"${wrong}", "")
    return FORM.format(n=total - k, k=k, total=total, answer=rng.choice(wordings)), str(total)


def fractions(rng: random.Random, index: int) -> Pair:
    top, bottom, factor = 1000 + index, rng.randint(2, 9), rng.randint(1, 5)
    answer = rng.choice(
        (f"\\frac{{{top * factor}}}{{{bottom * factor}}}", f"{top / bottom:.6f}", f"{top}/{bottom + 1}")
    )
    return f"<think>...</think> <answer>{answer}</answer>", f"\\frac{{{top}}}{{{bottom}}}"


def symbolic(rng: random.Random, index: int) -> Pair:
    a, b = 2 + index, rng.randint(2, 99)
    answer = rng.choice((f"{b}+{a}x", f"x^2+{a}x+{b}", f"{a}(x+{b})", f"\\sqrt{{{a * a}}}x+{b}"))
    return f"<think>...</think> <answer>{answer}</answer>", f"{a}x+{b}"


KINDS: dict[str, tuple[Callable[[random.Random, int], Pair], float]] = {  # kind -> maker, share of --count
    "typical": (typical, 1.0),
    "fractions": (fractions, 0.1),
    "symbolic": (symbolic, 0.02),
}


def rate(make: Callable[[random.Random, int], Pair], count: int) -> dict[str, float]:
    """Verdicts a second over `count` pairs in one batch, and the shares of right, wrong and unknown ones."""
    rng = random.Random(0)
    pairs = [make(rng, index) for index in range(count)]
    responses, references = [list(side) for side in zip(*pairs, strict=True)]
    start = time.perf_counter()
    verdicts = verify_all("math", responses, references)
    seconds = time.perf_counter() - start
    shares = {name: sum(v.correct is value for v in verdicts) / count
              for name, value in (("right", True), ("wrong", False), ("unknown", None))}  # fmt: skip
    return {"count": count, "seconds": seconds, "verdicts_per_s": count / seconds, **shares}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="pairs of the typical kind; of the others a share")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    verify_all("math", ["<answer>x+1</answer>"] * 8, [f"{n}+x" for n in range(8)])  # the workers are up
    results = {}
    for name, (make, share) in KINDS.items():
        results[name] = row = rate(make, max(8, round(options.count * share)))
        shares = ", ".join(f"{kind} {row[kind]:.0%}" for kind in ("right", "wrong", "unknown"))
        print(f"{name:10} {row['verdicts_per_s']:10.0f} verdicts/s  ({shares}, of {row['count']})", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "verdicts.json"
    file.write_text(json.dumps({"cores": os.cpu_count(), "kinds": results}, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
