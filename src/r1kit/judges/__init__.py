"""Judges: models that read what other models wrote, and say what it is worth.

A judge is any `Engine`. It is asked several times and answers in JSON; an unreadable reply is counted and asked for
again, and never becomes a score. The judged text is quoted so that it cannot pass for an instruction or a verdict
(`quoting`, `forms`); a text that tries is flagged (`suspicion`).
"""

from __future__ import annotations

from r1kit.judges.pairwise import PairwiseJudge, Preference, to_pair
from r1kit.judges.panel import JudgeSettings, Tally
from r1kit.judges.rubric import Assessment, RubricJudge, VotingJudge
from r1kit.judges.rubrics import RUBRICS, Criterion, Rubric
from r1kit.judges.suspicion import suspicions
from r1kit.judges.verifier import GenerativeVerifier

__all__ = [
    "RUBRICS",
    "Assessment",
    "Criterion",
    "GenerativeVerifier",
    "JudgeSettings",
    "PairwiseJudge",
    "Preference",
    "Rubric",
    "RubricJudge",
    "Tally",
    "VotingJudge",
    "suspicions",
    "to_pair",
]
