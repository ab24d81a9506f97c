"""Measures how often verifiers and rewards are wrong: labelled hostile cases, error rates with 95 % intervals.

The cases are JSON Lines in `cases/`. The label of a verifier's case is the verdict of a careful grader: does the answer
commit to one value, and is it the reference's? A reward's case has the exact value of the formula. `measure` runs the
cases on a verifier by name or on any function by dotted path. It also takes a file with cases of your own.
"""

from __future__ import annotations

from r1kit.conformance.cases import CASES, cases
from r1kit.conformance.measure import Failure, Rate, Report, measure, measure_rewards, obstacle
from r1kit.conformance.subject import subject

__all__ = ["CASES", "Failure", "Rate", "Report", "cases", "measure", "measure_rewards", "obstacle", "subject"]
