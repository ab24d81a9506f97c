"""How often verifiers and rewards are wrong: labelled hostile cases, and error rates with 95 % intervals.

The cases are JSON Lines beside this file. In those of verifiers a label is what a careful grader says who has the
reference: the answer commits to one value, and it is the reference's. Those of rewards hold the exact value that the
formula gives. `measure` runs them on a verifier by name, or on anybody's own by dotted path; own cases in the same form
can be given too.
"""

from __future__ import annotations

from r1kit.conformance.cases import CASES, Case, RewardCase, cases, reward_cases
from r1kit.conformance.measure import MAX_FALSE_NEGATIVES, Failure, Rate, Report, measure, measure_rewards, obstacle
from r1kit.conformance.subject import Subject, subject

__all__ = [
    "CASES",
    "MAX_FALSE_NEGATIVES",
    "Case",
    "Failure",
    "Rate",
    "Report",
    "RewardCase",
    "Subject",
    "cases",
    "measure",
    "measure_rewards",
    "obstacle",
    "reward_cases",
    "subject",
]
