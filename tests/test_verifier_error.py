"""Accuracy and advantages under a verifier of known error: planted errors are corrected."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from r1kit import conformance
from r1kit.commands.eval_command import evaluate
from r1kit.evaluate.verifier_error import ErrorRates, corrected
from r1kit.report.folders import StageFolder
from r1kit.report.run import Run
from r1kit.report.run_summary import summarise_run
from r1kit.rewards import RewardSpec, build
from r1kit.settings import SettingsError
from r1kit.train.advantages import advantages


def flip(rng: random.Random, right: bool, fp: float, fn: float) -> bool:
    return rng.random() >= fn if right else rng.random() < fp


def audit_of(rng: random.Random, fp: float, fn: float, each: int) -> ErrorRates:
    return ErrorRates(
        false_positives=sum(flip(rng, False, fp, fn) for _ in range(each)),
        wrong=each,
        false_negatives=sum(not flip(rng, True, fp, fn) for _ in range(each)),
        right=each,
    )


def judged(
    rng: random.Random, accuracy: float, fp: float, fn: float, problems: int = 80, samples: int = 4
) -> Iterator[float]:
    """The share judged right of each problem; problems differ in how hard they are."""
    for _ in range(problems):
        skill = rng.betavariate(2 * accuracy, 2 * (1 - accuracy))
        yield fmean(flip(rng, rng.random() < skill, fp, fn) for _ in range(samples))


def test_the_corrected_interval_holds_the_accuracy_under_planted_errors() -> None:
    held, naive, trials = 0, 0, 0
    for accuracy in (0.2, 0.6):
        for fp in (0.01, 0.1):
            for fn in (0.05, 0.3):
                rng = random.Random(f"{accuracy}/{fp}/{fn}")
                for _ in range(60):
                    values = list(judged(rng, accuracy, fp, fn))
                    estimate = corrected(values, 320, audit_of(rng, fp, fn, 100))
                    assert estimate.low is not None and estimate.high is not None
                    held += estimate.low <= accuracy <= estimate.high
                    naive += abs(fmean(values) - accuracy) < (estimate.high - estimate.low) / 2
                    trials += 1
    assert held / trials >= 0.93 and naive < held


def test_perfect_verifiers_and_hopeless_ones() -> None:
    values = [1.0, 0.5, 0.0, 1.0] * 10
    sure = ErrorRates(false_positives=0, wrong=10**7, false_negatives=0, right=10**7)
    estimate = corrected(values, 80, sure)
    assert estimate.mean == fmean(values) and estimate.low is not None and 0.4 < estimate.low < 0.625
    unsure = corrected(values, 80, ErrorRates(false_positives=0, wrong=10, false_negatives=0, right=10))
    assert unsure.low is not None and unsure.low < estimate.low  # ten cases know little
    with pytest.raises(ValueError, match="say nothing about answers"):
        corrected(values, 80, ErrorRates(false_positives=6, wrong=10, false_negatives=5, right=10))
    with pytest.raises(ValueError, match="cannot be more errors"):
        ErrorRates(false_positives=2, wrong=1, false_negatives=0, right=1)


def test_labelled_cases_correct_an_evaluation(tmp_path: Path, tiny_policy_folder: Path) -> None:
    file = tmp_path / "cases.jsonl"
    cases = [("4", "4", True), ("5", "4", False), ("four", "4", True), ("6", "4", False), ("5", "4", True)]
    rows = [{"prediction": p, "answer": a, "correct": c} for p, a, c in cases]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rates = conformance.measure("number", file).error_rates
    assert (rates.false_positives, rates.wrong, rates.right) == (0, 2, 3) and rates.false_negatives >= 1
    unusable = {"prediction": "4", "answer": "no number", "correct": True}  # undecided: it counts in no accuracy
    file.write_text(file.read_text() + json.dumps(unusable) + "\n")
    measured = conformance.measure("number", file)
    assert measured.cannot_tell == 1 and measured.error_rates == rates
    result = evaluate(str(tiny_policy_folder), task="tiny/sums", limit=3, cases=file)
    assert result["corrected"][str(tiny_policy_folder)]["problems"] == 3
    assert "corrected for the verifier's errors" in result["table"]


def test_the_report_corrects_by_the_audits(tmp_path: Path) -> None:
    training, evaluation = tmp_path / "rl", tmp_path / "zero"
    for folder in (training, evaluation):
        folder.mkdir()
    steps = [{"step": step, "audit/count": 20.0, "audit/right": 10.0, "audit/disagreement": 0.1} for step in (1, 2)]
    steps.append({"step": 3, "audit/count": None, "audit/right": 10.0})  # how many were wrong is unknown
    (training / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    differing = [{"step": 1, "verdict": "wrong", "second_verdict": "right"}] * 4
    differing += [{"step": 3, "verdict": "right", "second_verdict": "wrong"}] * 30  # of a step that still trains
    (training / "audit.jsonl").write_text("".join(json.dumps(row) + "\n" for row in differing))
    (training / "rollouts").mkdir()
    facts = {"source": "s", "extracted": "1", "well_formed": True, "steps": 1, "mixed": False, "truncated": False}
    facts |= {"reasoning_tokens": 1, "completion_tokens": 2, "completion": "1", "answer": "1"}
    answers = [{"problem_id": str(n), "sample": 0, "correct": n % 2 == 0, **facts} for n in range(40)]
    (evaluation / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    run = Run([StageFolder("training/rl", training), StageFolder("zero", evaluation)], "t")
    assert run.error_rates == ErrorRates(false_positives=0, wrong=20, false_negatives=4, right=20)
    assert run.corrected["zero"].mean == pytest.approx(0.5 / 0.8)
    summary = summarise_run(run)
    assert summary["corrected"]["zero"]["mean"] == pytest.approx(0.625) and "(audit: 0 of 20" in summary["table"]


def totals(answers: str, **options: float) -> list[float | None]:
    """Rewards of answers to two problems of four completions each; r is right."""
    scorer = build([RewardSpec(name="accuracy", options=options)])
    texts = [f"<answer>{4 if answer == 'r' else 5}</answer>" for answer in answers]
    ids = ["a"] * 4 + ["b"] * 4
    return [reward.total for reward in scorer(texts, answer=["4"] * 8, verifier=["number"] * 8, problem_id=ids)]


def test_rewards_are_expected_values_given_the_verdict() -> None:
    assert totals("rrwwrwww") == [1, 1, 0, 0, 1, 0, 0, 0]
    values = totals("rrwwrwww", false_positives=0.1, false_negatives=0.2)
    # group a: prior (0.5 - 0.1) / 0.7; a right verdict has the chance 0.8 p / (0.8 p + 0.1 (1 - p))
    p = 0.4 / 0.7
    assert values[0] == pytest.approx(0.8 * p / (0.8 * p + 0.1 * (1 - p)))
    assert values[2] == pytest.approx(0.2 * p / (0.2 * p + 0.9 * (1 - p)))
    # the same expected accuracy before and after: rewards stay calibrated
    assert fmean(values[:4]) == pytest.approx(p)  # type: ignore[type-var]
    # one right verdict of four is nearly what false positives alone would give, so it counts less
    assert values[4] is not None and values[0] is not None and values[4] < values[0] - 0.1
    # errors above the share judged right: nothing is right
    assert totals("rwwwrrrr", false_positives=0.3)[:4] == [0.0] * 4


def test_one_reward_with_one_rate_only_rescales_a_group() -> None:
    plain, noisy = totals("rrwwrwww"), totals("rrwwrwww", false_positives=0.05, false_negatives=0.2)
    for start in (0, 4):
        before, after = (
            advantages(plain[start : start + 4], "group_mean"),
            advantages(noisy[start : start + 4], "group_mean"),
        )
        scales = {round(b / a, 9) for a, b in zip(before, after, strict=True) if a and b is not None}
        assert len(scales) == 1 and 0 < scales.pop() < 1
        assert advantages(plain[start : start + 4]) == pytest.approx(advantages(noisy[start : start + 4]), abs=2e-3)


def test_error_rates_must_leave_something_to_learn() -> None:
    with pytest.raises(SettingsError, match="whose sum is below 1"):
        build([RewardSpec(name="accuracy", options={"false_positives": 0.6, "false_negatives": 0.5})])
