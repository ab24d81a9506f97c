"""What the tiny recipe's last RL learns from: the advantages of its logged steps, by kind of prompt.

    python benchmarks/rl_signal.py runs/r1-tiny/r1-e9e70c5c

By kind: groups; the share of right replies, by the tiny world's own judgement, which the stage does not see; the share
of groups with both right and wrong ones ("mixed"); in these the share of pairs that the helpfulness reward orders
rightly; the mean |advantage|; and the kind's share of all |advantage|, counted per token and per completion. The first
is what pulls at the weights if the loss counts tokens alike (Dr. GRPO, DAPO), the second if it counts completions alike
(GRPO).
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from r1kit.data.jsonl import read_rows
from r1kit.tiny.everyday import training_references
from r1kit.verifiers import find

Group = list[dict[str, Any]]

references = cache(training_references)


def groups_of(folder: Path) -> list[Group]:
    """The groups of the steps in `rollouts/`. Raises SystemExit if there are none."""
    groups: dict[tuple[str, str], Group] = defaultdict(list)
    for path in sorted((folder / "rollouts").glob("step-*.jsonl")):
        for row in read_rows(path):
            groups[path.name, row["problem_id"]].append(row)
    if not groups:
        raise SystemExit(f"{folder} has no rollouts: give the folder of the stage r1")
    return list(groups.values())


def kind_of(row: dict[str, Any]) -> str:
    """Problems and harmful requests as a whole, requests about numbers by their first word, all others as "words"."""
    source, question = row["problem_id"].split("/")[1], row["question"]
    if source != "general":
        return "harmful requests" if source == "harmful" else "problems"
    word = question.split()[0].rstrip(":") if question.isascii() else "说"
    return word if any(letter.isdigit() for letter in question) else "words"


def table_row(groups: Sequence[Group], weights: tuple[float, float]) -> list[str]:
    """The figures of one kind; `weights` are all kinds' |advantage| by token and by completion."""
    rows = [row for group in groups for row in group]
    sizes = [abs(row["advantage"] or 0.0) for row in rows]
    by_token = sum(size * row["tokens"] for size, row in zip(sizes, rows, strict=True))
    right = [fmean(marks) for marks in map(marks_of, groups) if marks]
    ordered = [pair for group in groups for pair in ordered_pairs(group)]
    mixed = fmean(0 < share < 1 for share in right) if right else None
    shares = (fmean(right) if right else None, mixed, fmean(ordered) if ordered else None)
    figures = [f"{share:.0%}" if share is not None else "" for share in shares]
    return [
        str(len(groups)),
        *figures,
        f"{fmean(sizes):.2f}",
        f"{by_token / weights[0]:.1%}",
        f"{sum(sizes) / weights[1]:.1%}",
    ]


def marks_of(group: Group) -> list[bool]:
    """Whether each reply is right; empty for problems, which have rule rewards."""
    verdict = references().get(group[0]["question"])
    return [find(verdict[0])(row["completion"], verdict[1]).correct is True for row in group] if verdict else []


def ordered_pairs(group: Group) -> list[float]:
    """Of each pair of a right and a wrong reply, whether the right one has the higher helpfulness; 0.5 for a tie."""
    scores = [row["parts"].get("helpfulness") for row in group]
    judged = [(score, mark) for score, mark in zip(scores, marks_of(group), strict=False) if score is not None]
    good, bad = ([score for score, mark in judged if mark is side] for side in (True, False))
    return [(a > b) + 0.5 * (a == b) for a in good for b in bad]


def main() -> None:
    by_kind: dict[str, list[Group]] = defaultdict(list)
    for group in groups_of(Path(sys.argv[1])):
        by_kind[kind_of(group[0])].append(group)
    rows = [row for groups in by_kind.values() for group in groups for row in group]
    sizes = [abs(row["advantage"] or 0.0) for row in rows]
    weights = (sum(size * row["tokens"] for size, row in zip(sizes, rows, strict=True)), sum(sizes))
    print("| kind | groups | right | mixed | ordered | mean | by token | by completion |\n|" + "---|" * 8)
    for kind in sorted(by_kind):
        print(f"| {' | '.join([kind, *table_row(by_kind[kind], weights)])} |")


if __name__ == "__main__":
    main()
