"""From judged completions to estimates with intervals, and from two evaluations to paired differences.

Each metric is the mean over problems of one value per problem, so a problem with more samples has no more weight. Finer
scores of a verdict (`instruction_strict`) weigh a problem by its number of parts, so they are shares of all parts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from r1kit.evaluate.intervals import amount_interval, clustered_interval, paired_interval, share_interval
from r1kit.evaluate.metrics import Scored
from r1kit.verifiers.meaning import meaning

AMOUNTS = ("reasoning_tokens", "completion_tokens", "steps")  # all other metrics are shares between 0 and 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over `problems` with its 95 % interval; `low` and `high` are None if a single problem gives none."""

    mean: float
    low: float | None
    high: float | None
    problems: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """After minus before on the same problems, with its 95 % interval and two-sided p-value."""

    mean: float
    low: float | None
    high: float | None
    p_value: float
    problems: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One evaluation: estimates by metric, overall and by source; `k` is the smallest number of samples per problem."""

    problems: int
    samples: int
    k: int
    overall: Mapping[str, Estimate]
    by_source: Mapping[str, Mapping[str, Estimate]]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as in `results.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Summary:
        """The summary that `to_json` wrote."""
        return cls(
            problems=data["problems"],
            samples=data["samples"],
            k=data["k"],
            overall={name: Estimate(**value) for name, value in data["overall"].items()},
            by_source={
                source: {name: Estimate(**value) for name, value in metrics.items()}
                for source, metrics in data["by_source"].items()
            },
        )


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1, and is shown in per cent."""
    return metric not in AMOUNTS


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n samples, c of them right, include a right one: 1 - C(n-c, k) / C(n, k), unbiased."""
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} cannot be estimated from {n} samples: it needs 1 <= k <= n")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def consensus(rows: Sequence[Scored]) -> bool | None:
    """Whether the most frequent answer is right: cons@k, the paper's majority vote (R1 appendix D.1).

    Votes are for values, not spellings: all right samples count as one answer, and wrong samples as one if they are the
    same number (1,000 and 1000.0) or the same text. Wrong formulas in two spellings count as two answers, so for
    formulas and programs this is an upper bound. Among equally frequent answers, the first one wins. Samples without
    an answer do not vote; if none has one, the consensus is wrong. None: the verifier cannot tell.
    """
    voters = [(meaning(row.extracted), row.correct) for row in rows if row.extracted is not None]
    if not voters:
        return False if any(row.correct is not None for row in rows) else None
    right = {answer for answer, correct in voters if correct}
    # an answer without a verdict is right if the same answer was judged right
    votes = Counter(True if correct or (correct is None and answer in right) else answer for answer, correct in voters)
    winner = votes.most_common(1)[0][0]  # a Counter keeps the order of first appearance among equals
    return True if winner is True else False if (winner, False) in voters else None


def summarise(rows: Sequence[Scored]) -> Summary:
    """Estimates of all metrics, overall and by source. Raises ValueError if there are no rows, or a row is repeated."""
    problems = group(rows)
    k = fewest(problems)
    by_source = {}
    for source in sorted({row.source for row in rows}):
        by_source[source] = estimates({name: own for name, own in problems.items() if own[0].source == source}, k)
    overall = estimates(problems, k)
    return Summary(problems=len(problems), samples=len(rows), k=k, overall=overall, by_source=by_source)


def paired(before: Sequence[Scored], after: Sequence[Scored]) -> dict[str, Difference]:
    """After minus before for every metric that both have, clustered by problem. Raises ValueError unless both have the
    same problems.

    A problem whose verdicts are all unknown on one side is left out of the metrics of correctness.
    """
    old, new = group(before), group(after)
    if old.keys() != new.keys():
        raise ValueError(
            f"a paired comparison needs the same problems on both sides: {describe(old.keys() - new.keys())} only "
            f"before, {describe(new.keys() - old.keys())} only after. Evaluate both checkpoints on one problem set"
        )
    k = min(fewest(old), fewest(new))
    parts: dict[str, list[int]] = defaultdict(list)
    for row in before:
        for name, (_, of) in row.scores.items():
            parts[name].append(of)
    mean_parts = {name: fmean(sizes) for name, sizes in parts.items()}
    changes: dict[str, list[float]] = defaultdict(list)
    for name in old:
        first, second = (values(rows, k) | score_values(rows, mean_parts) for rows in (old[name], new[name]))
        for metric in first.keys() & second.keys():
            changes[metric].append(second[metric] - first[metric])
    metrics = [*metric_names(k), *mean_parts]
    return {metric: difference(metric, changes[metric]) for metric in metrics if changes[metric]}


def paired_by_source(before: Sequence[Scored], after: Sequence[Scored]) -> dict[str, dict[str, Difference]]:
    """`paired` for each source of the problems."""
    differences = {}
    for source in dict.fromkeys(row.source for row in before):
        old, new = ([row for row in rows if row.source == source] for rows in (before, after))
        differences[source] = paired(old, new)
    return differences


def group(rows: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Rows by problem, each problem's samples in order."""
    if not rows:
        raise ValueError("there are no judged completions: the evaluation wrote none, or its file is empty")
    problems: dict[str, list[Scored]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.problem_id, row.sample)):
        if problems[row.problem_id] and problems[row.problem_id][-1].sample == row.sample:
            raise ValueError(f"problem {row.problem_id} has sample {row.sample} twice: number samples 0, 1, 2 ...")
        problems[row.problem_id].append(row)
    return dict(problems)


def fewest(problems: Mapping[str, Sequence[Scored]]) -> int:
    return min(len(rows) for rows in problems.values())


def metric_names(k: int) -> list[str]:
    many = [f"pass@{k}", f"cons@{k}"] if k > 1 else []
    return ["pass@1", *many, "format", "language", "readable", *AMOUNTS, "mixed", "truncated", "unknown"]


def values(rows: Sequence[Scored], k: int) -> dict[str, float]:
    """The metrics of one problem that are known."""
    known = [row.correct for row in rows if row.correct is not None]
    result = {
        "format": fmean(row.well_formed for row in rows),
        "steps": fmean(row.steps for row in rows),
        "mixed": fmean(row.mixed for row in rows),
        "truncated": fmean(row.truncated for row in rows),
        "unknown": 1 - len(known) / len(rows),
    }
    for metric in ("reasoning_tokens", "completion_tokens", "language", "readable"):
        if measured := [value for row in rows if (value := getattr(row, metric)) is not None]:
            result[metric] = fmean(measured)
    if known:
        result["pass@1"] = fmean(known)
    if k > 1 and len(known) >= k:
        result[f"pass@{k}"] = pass_at_k(len(known), sum(known), k)
    if k > 1 and (agreed := consensus(rows[:k])) is not None:
        result[f"cons@{k}"] = float(agreed)
    return result


def score_estimates(problems: Mapping[str, Sequence[Scored]]) -> dict[str, Estimate]:
    """The share of parts that each score of the verdicts counts, over the parts of all problems."""
    shares = {}
    for name in dict.fromkeys(name for rows in problems.values() for row in rows for name in row.scores):
        pairs = [[row.scores[name] for row in rows if name in row.scores] for rows in problems.values()]
        clusters = [[part < count for count, of in own for part in range(of)] for own in pairs if own]
        low, high = clustered_interval(clusters)
        parts = sum(map(len, clusters))
        share = sum(map(sum, clusters)) / parts
        samples = sum(map(len, pairs))
        shares[name] = Estimate(mean=share, low=low, high=high, problems=len(clusters), samples=samples)
    return shares


def score_values(rows: Sequence[Scored], mean_parts: Mapping[str, float]) -> dict[str, float]:
    """The scores that all rows of a problem have, scaled so that their means over problems are shares of all parts."""
    common = mean_parts.keys() & set.intersection(*(set(row.scores) for row in rows))
    return {name: fmean(row.scores[name][0] for row in rows) / mean_parts[name] for name in common}


def estimates(problems: Mapping[str, Sequence[Scored]], k: int) -> dict[str, Estimate]:
    """The estimate of each metric; a metric that no problem has (all verdicts unknown) is missing."""
    columns: dict[str, list[float]] = defaultdict(list)
    for rows in problems.values():
        for metric, value in values(rows, k).items():
            columns[metric].append(value)
    samples = sum(len(rows) for rows in problems.values())
    judged = sum(row.correct is not None for rows in problems.values() for row in rows)
    known = [metric for metric in metric_names(k) if columns[metric]]
    simple = {metric: estimate(metric, columns[metric], judged if "@" in metric else samples) for metric in known}
    return simple | score_estimates(problems)


def estimate(metric: str, per_problem: Sequence[float], samples: int) -> Estimate:
    """The mean over problems with its interval; `samples` is the number of draws behind a share."""
    draws = len(per_problem) if "@" in metric and metric != "pass@1" else samples  # pass@k, cons@k: one per problem
    bounds = share_interval(per_problem, draws) if is_share(metric) else amount_interval(per_problem)
    low, high = bounds or (None, None)
    return Estimate(mean=fmean(per_problem), low=low, high=high, problems=len(per_problem), samples=samples)


def difference(metric: str, per_problem: Sequence[float]) -> Difference:
    """The mean paired difference with its interval; a single problem has no interval and p = 1."""
    if len(per_problem) < 2:
        return Difference(mean=per_problem[0], low=None, high=None, p_value=1.0, problems=1)
    low, high, p_value = paired_interval(per_problem)
    if is_share(metric):
        low, high = max(-1.0, low), min(1.0, high)
    return Difference(mean=fmean(per_problem), low=low, high=high, p_value=p_value, problems=len(per_problem))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: all below a level are significant at that family-wise rate.

    No assumption on how the tests depend on each other (Holm 1979).
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))  # never below a smaller one's
        adjusted[index] = highest
    return adjusted


def describe(names: set[str]) -> str:
    first = ", ".join(sorted(names)[:3]) + (" ..." if len(names) > 3 else "")
    return f"{len(names)} ({first})" if names else "none"
