"""Judges: models that read what other models wrote, and say what it is worth.

A judge is asked several times through an `Engine` (any; `EngineSettings.open` makes one) and answers in JSON. A reply
that cannot be read is asked for again and counted, and never becomes a score. What is judged is quoted so that it
cannot pass for an instruction or a verdict (`quoting`, `replies`); what tries to is named (`suspicion`).
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
