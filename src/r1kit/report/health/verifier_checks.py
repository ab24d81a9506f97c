"""Can the verdicts be trusted: verifiers that failed, and the audit by a second verifier."""

from __future__ import annotations

from r1kit.data.jsonl import read_rows
from r1kit.evaluate.intervals import NORMAL_FROM, critical, wilson
from r1kit.report.folders import StageFolder
from r1kit.report.health.course import Check, Status, at_most, finding, percent
from r1kit.report.metrics import Metrics

FAILED = at_most("verifier/failed", 0.01)
FAILURES = f"{100 * FAILED.value:.0f} % of the verdicts of a step, or a tenth of the steps"


def failures(metrics: Metrics) -> Check | None:
    """Verifiers that raised, at any step: failures in the middle of a run count as much as at its end."""
    failed = metrics.series(FAILED.metric)
    if not failed:
        return None
    bad_steps = [(step, share) for step, share in failed if share > 0]
    if not bad_steps:
        return finding("Verifier failures", False, f"none in {len(failed)} steps", limit=FAILURES, bounds=[FAILED])
    step, worst = max(bad_steps, key=lambda pair: pair[1])
    evidence = f"in {len(bad_steps)} of {len(failed)} steps, at most {percent(worst)} of the verdicts (step {step})"
    bad = FAILED.is_passed(worst) or len(bad_steps) > 0.1 * len(failed)
    advice = "these completions were left out, not scored 0; the rollouts' notes hold the verifier's error"
    status: Status = "attention" if bad else "healthy"
    return Check(
        name="Verifier failures", status=status, evidence=evidence, advice=advice, limit=FAILURES, bounds=[FAILED]
    )


def audit(stage: StageFolder) -> Check | None:
    """Verdicts on which a second verifier disagrees, or cannot tell, over the whole run, with examples."""
    unknown = sum(stage.metrics.values("audit/unknown"))
    total, differing = audited(stage.metrics)
    if not total + unknown:
        return None
    low, high = wilson(differing / total, total, critical(NORMAL_FROM)) if total else (0.0, 1.0)
    evidence = f"{differing:.0f} of {total:.0f} re-checked verdicts differ (95 %: {percent(low)} to {percent(high)})"
    if unknown:
        evidence += f"; the second verifier could not tell {unknown:.0f} of {total + unknown:.0f}"
    examples = list(read_rows(stage.folder / "audit.jsonl", missing_ok=True))[-3:]
    for index, row in enumerate(examples):  # '72.0' for '72' is wrong by exact, right by math
        texts = (" ".join(str(row.get(name)).split()) for name in ("extracted", "answer"))
        extracted, answer = (repr(text if len(text) <= 40 else text[:39] + "…") for text in texts)
        evidence += f"{'; ' if index else '; the last: '}{extracted} for {answer} is "
        evidence += f"{row.get('verdict')} by {row.get('verifier')}, {row.get('second_verdict')} by {row.get('second')}"
    wrong, blind = low > 0.01, unknown > 0.5 * (total + unknown)
    advice = "read audit.jsonl: one of the two verifiers is wrong on these answers"
    if not wrong:
        advice = "the audit says little: choose a second verifier that can read these references"
    return finding(
        "Audit of verdicts",
        wrong or blind,
        evidence,
        advice,
        limit="1 % by the lower end of the interval, or half not re-checked",
    )


def audited(metrics: Metrics) -> tuple[float, float]:
    """How many verdicts were re-checked over the whole run, and how many of them differ."""
    shares = dict(metrics.series("audit/disagreement"))
    counts = [(count, shares[step]) for step, count in metrics.series("audit/count") if step in shares]
    return sum(count for count, _ in counts), sum(count * share for count, share in counts)
