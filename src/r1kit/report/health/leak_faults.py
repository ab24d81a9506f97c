"""Leaking: training saw what it is measured by, or its prompts hold the answers."""

from __future__ import annotations

from pathlib import Path

from r1kit.data.jsonl import read_rows
from r1kit.report.health.course import percent
from r1kit.report.health.signals import Signals, Verdict
from r1kit.tasks.leaks import FEW, MOST, share_at_one_place

SHARED = 0.05  # of measured questions, which may be among the trained ones by chance
FEW_FILES, FILES = 4, 100  # rollout files that are read, spread over the run: at every look, and beside evaluations


def answers_in_prompts(signals: Signals) -> Verdict | None:
    """Nearly all references are the last number of their prompt, or the first one."""
    problems = {str(row.get("problem_id")): row for path in _files(signals, FEW_FILES) for row in read_rows(path)}
    share = share_at_one_place([(str(r.get("question", "")), str(r.get("answer", ""))) for r in problems.values()])
    if len(problems) < FEW or share <= MOST:
        return None
    evidence = f"{percent(share)} of {len(problems)} references are the last or the first number of their own prompt"
    return leak(evidence, "take the answers out of the prompts: see rollouts/, and the columns of your data")


def measured_questions_trained_on(signals: Signals) -> Verdict | None:
    """Questions of an evaluation of the stage's model are among those that it trained on."""
    if not signals.evaluations:
        return None
    trained = {_key(row.get("question")) for path in _files(signals, FILES) for row in read_rows(path)}
    for evaluation in signals.evaluations:
        questions = {_key(row.get("question")) for row in evaluation.completions}
        shared = questions & trained
        if len(questions) >= FEW and len(shared) > SHARED * len(questions):
            evidence = f"{len(shared)} of {len(questions)} questions of {evaluation.name} are in the training rollouts"
            example = f"such as {min(shared)!r:.60}"
            return leak(f"{evidence}, {example}", "measure on problems that training does not use (another split)")
    return None


def leak(evidence: str, remedy: str) -> Verdict:
    return Verdict(name="leaking", evidence=(evidence,), remedy=remedy)


def _files(signals: Signals, most: int) -> list[Path]:
    files = signals.stage.rollouts
    return files[:: -(-len(files) // most) or 1]


def _key(question: object) -> str:
    return " ".join(str(question).split())
