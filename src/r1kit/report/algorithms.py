"""Arms of a bench of algorithms, compared over seeds: figures of each trained model, differences, and one table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from r1kit.evaluate.moderated import ArmDifference, compare_arms
from r1kit.evaluate.table import align, number, show_p, signed
from r1kit.report.folders import StageFolder

SIGNIFICANT = 0.05  # family-wise: over the arms, for each measure
LAST = 0.25  # the share of the steps that counts as the end of training
WINDOW = 5  # steps of a rolling mean
MEASURES = {  # title, and a metric that is shown alike
    "accuracy": ("accuracy", "pass@1"),
    "tokens": ("tokens", "completion_tokens"),
    "wrong_tokens": ("tokens if wrong", "completion_tokens"),
    "entropy": ("entropy at the end", "steps"),
    "fall": ("reward fell by", "pass@1"),
}
Arms = Mapping[str, Sequence[Mapping[str, float]]]  # by arm: the figures of each seed


def figures(training: StageFolder, evaluation: StageFolder) -> dict[str, float]:
    """The figures of one trained model.

    `accuracy` and `tokens` are pass@1 and the mean length on held-out problems, `wrong_tokens` the length of wrong
    answers, `entropy` the policy's in the last quarter of training, and `fall` the largest fall of the training reward
    (a mean over five steps) from its best so far: 0 for a run that never goes back.
    """
    overall = evaluation.summary.overall if evaluation.summary else {}
    wrong = [row.completion_tokens for row in evaluation.scored if row.correct is False]
    lengths = [float(length) for length in wrong if length is not None]
    steps = training.metrics.steps
    end = {*steps[-math.ceil(LAST * len(steps)) :]}
    entropies = [value for step, value in training.metrics.series("policy/entropy") if step in end]
    means = {
        "accuracy": [overall["pass@1"].mean] if "pass@1" in overall else [],
        "tokens": [overall["completion_tokens"].mean] if "completion_tokens" in overall else [],
        "wrong_tokens": lengths,
        "entropy": entropies,
    }
    known = {name: fmean(values) for name, values in means.items() if values}
    rewards = training.metrics.values("reward/mean")
    return known | ({"fall": largest_fall(rewards)} if len(rewards) > WINDOW else {})  # too few steps show no fall


def largest_fall(rewards: Sequence[float]) -> float:
    """How far the rolling mean fell from its best so far."""
    means = [fmean(rewards[end - WINDOW : end]) for end in range(WINDOW, len(rewards) + 1)]
    best = fall = 0.0
    for index, mean in enumerate(means):
        best = mean if index == 0 else max(best, mean)
        fall = max(fall, best - mean)
    return fall


def differences(arms: Arms, reference: str) -> dict[str, dict[str, ArmDifference]]:
    """Each arm minus the reference, by measure; measures that a model lacks (no wrong answer) are left out."""
    by_measure = {}
    for measure in MEASURES:
        values = {name: [seed[measure] for seed in seeds if measure in seed] for name, seeds in arms.items()}
        if len({len(each) for each in values.values()} | {len(arms[reference])}) == 1 and len(arms[reference]) > 1:
            by_measure[measure] = compare_arms(values, reference)
    return by_measure


def table(arms: Arms, reference: str, null: str = "") -> str:
    """One line per arm: its means, and differences to the reference, in accuracy with 95 % interval; * is significant.

    Arms are in order of their accuracy. `null` is the reference with other seeds.
    """
    compared = differences(arms, reference)
    shown = [measure for measure in MEASURES if all(measure in seed for seeds in arms.values() for seed in seeds)]
    if "accuracy" not in shown:
        raise ValueError("not every model has an accuracy: its evaluation has no verdicts, so nothing can be compared")
    order = sorted(arms, key=lambda name: (name != reference, name != null, -_mean(arms[name], "accuracy")))
    lines = [["", *(MEASURES[measure][0] for measure in shown)]]
    for name in order:
        cells = []
        for measure in shown:
            metric = MEASURES[measure][1]
            cell = number(_mean(arms[name], measure), metric)
            if change := compared.get(measure, {}).get(name):
                interval = f" [{signed(change.low, metric)}, {signed(change.high, metric)}]"
                star = " *" if change.p_holm < SIGNIFICANT else ""
                cell += f"  {signed(change.mean, metric)}{interval if measure == 'accuracy' else ''}{star}"
            cells.append(cell)
        lines.append([name, *cells])
    seeds = len(arms[reference])
    notes = [f"{seeds} seeds; means, and differences to {reference} (shares in per cent and points; 95 % intervals)"]
    if compared:
        notes.append("* p < 0.05 after Holm's correction over the arms; variances are moderated over them")
    for measure in [each for each in MEASURES if each not in shown]:
        lacking = [name for name, seeds in arms.items() if any(measure not in seed for seed in seeds)]
        notes.append(f"{MEASURES[measure][0]}: left out, since not every model of {', '.join(lacking)} has it")
    if null:
        lowest = min((each[null].p_holm for each in compared.values()), default=1.0)
        notes.append(f"{null} is {reference} with other seeds: its smallest corrected p is {show_p(lowest)}")
    return f"{align(lines)}\n\n" + "\n".join(notes)


def to_json(arms: Arms, reference: str, null: str = "") -> dict[str, Any]:
    """The table with all figures, as in `summary.json`."""
    compared = differences(arms, reference)
    return {
        "reference": reference,
        "null": null,
        "arms": {name: list(map(dict, seeds)) for name, seeds in arms.items()},
        "differences": {name: {arm: asdict(each) for arm, each in own.items()} for name, own in compared.items()},
        "table": table(arms, reference, null),
    }


def _mean(seeds: Sequence[Mapping[str, float]], measure: str) -> float:
    return fmean(seed[measure] for seed in seeds)
