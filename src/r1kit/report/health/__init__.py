"""Is an RL run healthy? The known ways to go wrong, each with the numbers for or against it.

The thresholds are those at which users of other trainers reported trouble: they say "look here", not "this failed".
"""

from __future__ import annotations

from collections.abc import Mapping

from r1kit.evaluate.statistics import Difference
from r1kit.report.folders import StageFolder
from r1kit.report.health.course import Check, below
from r1kit.report.health.policy_checks import entropy, length, lost_steps, mixing, numbers, sampler_gap, zero_variance
from r1kit.report.health.preflight_lines import preflight
from r1kit.report.health.reward_checks import HACKS, format_only, hack, not_scored, over_optimisation
from r1kit.report.health.signals import Verdict
from r1kit.report.health.verdict import run_verdict, verdict
from r1kit.report.health.verifier_checks import audit, failures

__all__ = ["Check", "Verdict", "checks", "run_verdict", "verdict"]


def checks(stage: StageFolder, differences: Mapping[str, Difference]) -> list[Check]:
    """Findings on one RL stage, without those whose metrics were not logged.

    `differences` are by metric, after minus before the stage on held-out problems; empty if it was not evaluated.
    """
    metrics = stage.metrics
    findings = [
        preflight(stage),
        lost_steps(metrics),
        zero_variance(metrics),
        entropy(metrics),
        below(metrics, "completion/truncated", "Truncated", 0.10, "raise max_tokens, or add the soft overlong penalty"),
        below(
            metrics,
            "verifier/unknown",
            "No verdict",
            0.02,
            "read the rollouts without a verdict: what can the verifier not read?",
        ),
        failures(metrics),
        *not_scored(metrics),
        audit(stage),
        sampler_gap(metrics),
        format_only(metrics, differences),
        length(stage),
        mixing(metrics),
        over_optimisation(stage),
        *(hack(stage, symptom) for symptom in HACKS),
        numbers(metrics),
    ]
    return [check for check in findings if check]
