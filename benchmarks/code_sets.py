"""Whether the verifier `code` is right on whole public sets, and how fast.

    python benchmarks/code_sets.py [--data ../shared/data] [--sets humaneval mbpp] [--every 1]

Writes benchmarks/results/code_sets.json. For each set and split the shares of programs that are judged right:
`reference` (the set's own solution; 1.0 is right), `empty` (a function of the right name that does nothing),
`nothing` (no program at all) and `other` (the next problem's solution under this problem's name); 0.0 is right for
these but for what does pass by chance, which is listed. `undecided` counts verdicts that could not be given.
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
    """The function that a problem asks for."""
    tests = json.loads(problem.answer)
    return str(tests.get("entry_point") or (tests.get("names") or ["f"])[-1])


def responses(problems: list[Problem]) -> dict[str, list[str]]:
    """The programs to be judged, by kind, one for each problem."""
    solutions = [str(one.metadata["solution"]) for one in problems]
    names = [name_of(one) for one in problems]
    others = []
    for name, other in zip(names, [*solutions[1:], *solutions[:1]], strict=True):
        made = DEFINED.findall(other) or ["f"]
        others.append(fenced(f"{other}\n{name} = {made[-1]}") if DEFINED.search(other) else fenced(other))
    return {
        "reference": [fenced(solution) for solution in solutions],
        "empty": [fenced(f"def {name}(*_, **__): pass") for name in names],
        "nothing": [""] * len(problems),
        "other": others,
    }


def measured(problems: list[Problem], kind: str, texts: list[str]) -> dict[str, Any]:
    """The share of one kind that is judged right, whatever is judged otherwise than it should be, and the time."""
    start = time.perf_counter()
    verdicts = verify_all("code", texts, [one.answer for one in problems])
    seconds = time.perf_counter() - start
    odd = {
        one.id: verdict.detail
        for one, verdict in zip(problems, verdicts, strict=True)
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
    given = options.parse_args()
    found: dict[str, Any] = {"sandbox": default_sandbox().kind, "processors": len(os.sched_getaffinity(0))}
    for name in given.sets:
        for split in SETS[name]:
            problems = list(load_known(name, split, data=given.data).problems)[:: given.every]
            for kind, texts in responses(problems).items():
                row = found[f"{name}/{split}/{kind}"] = {"programs": len(texts), **measured(problems, kind, texts)}
                print(f"{name}/{split}/{kind}", json.dumps(row), flush=True)
    out = root / "benchmarks" / "results" / "code_sets.json"
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
