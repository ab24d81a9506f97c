"""Accuracy and speed of the verifier `code` on whole public data sets.

    python benchmarks/code_sets.py [--data ../shared/data] [--sets humaneval mbpp] [--every 1]

Writes benchmarks/results/code_sets.json. For each set and split it gives the share of programs judged right:
`reference` (the set's own solution), `empty` (a function of the right name that does nothing), `nothing` (no program)
and `other` (the next problem's solution under this problem's name). 1.0 is correct for `reference` and 0.0 for the
others, except for programs that pass by chance, which are listed. `undecided` counts verdicts of "cannot tell".
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from r1kit.sandbox import default_sandbox
from r1kit.tasks import load_known
from r1kit.types import Problem
from r1kit.verifiers import verify_all

SETS = {"humaneval": ("test",), "mbpp": ("train", "validation", "test")}
DEFINED = re.compile(r"^def[ \t]+(\w+)", re.MULTILINE)


def fenced(program: str) -> str:
    return f"```python\n{program}\n```"


def name_of(problem: Problem) -> str:
    """The name of the function that the problem tests."""
    tests = json.loads(problem.answer)
    return str(tests.get("entry_point") or (tests.get("names") or ["f"])[-1])


def responses(problems: list[Problem]) -> dict[str, list[str]]:
    """One program per problem, by kind."""
    solutions = [str(problem.metadata["solution"]) for problem in problems]
    names = [name_of(problem) for problem in problems]
    others = []
    for name, other in zip(names, [*solutions[1:], *solutions[:1]], strict=True):
        functions = DEFINED.findall(other)
        others.append(fenced(f"{other}\n{name} = {functions[-1]}") if functions else fenced(other))
    return {
        "reference": [fenced(solution) for solution in solutions],
        "empty": [fenced(f"def {name}(*_, **__): pass") for name in names],
        "nothing": [""] * len(problems),
        "other": others,
    }


def measured(problems: list[Problem], kind: str, texts: list[str]) -> dict[str, Any]:
    """The share of one kind judged right, the unexpected verdicts, and the speed."""
    start = time.perf_counter()
    verdicts = verify_all("code", texts, [problem.answer for problem in problems])
    seconds = time.perf_counter() - start
    odd = {
        problem.id: verdict.detail
        for problem, verdict in zip(problems, verdicts, strict=True)
        if verdict.correct is not (kind == "reference")
    }
    return {
        "right": sum(verdict.correct is True for verdict in verdicts) / len(verdicts),
        "undecided": sum(verdict.correct is None for verdict in verdicts),
        "unexpected": odd,
        "programs_per_s": round(len(verdicts) / seconds, 2),
    }


def main() -> None:
    root = Path(__file__).parents[1]
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=root.parent / "shared" / "data")
    options.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options.add_argument("--every", type=int, default=1, help="take every n-th problem")
    chosen = options.parse_args()
    found: dict[str, Any] = {"sandbox": default_sandbox().kind, "processors": len(os.sched_getaffinity(0))}
    for name in chosen.sets:
        for split in SETS[name]:
            problems = list(load_known(name, split, data=chosen.data).problems)[:: chosen.every]
            for kind, texts in responses(problems).items():
                row = found[f"{name}/{split}/{kind}"] = {"programs": len(texts), **measured(problems, kind, texts)}
                print(f"{name}/{split}/{kind}", json.dumps(row), flush=True)
    out = root / "benchmarks" / "results" / "code_sets.json"
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
