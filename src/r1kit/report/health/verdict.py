"""One verdict for a training stage, and one for a run: is it broken, in which way, how does one see it, and what helps?

`benchmarks/five_runs.py` measures how often it is right; `docs/guides/watching.md` has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from r1kit.evaluate.statistics import Difference
from r1kit.report.folders import StageFolder
from r1kit.report.health import leak_faults, policy_faults, reward_faults
from r1kit.report.health.course import from_to, is_accuracy
from r1kit.report.health.preflight_lines import failed_before
from r1kit.report.health.signals import Signals, Verdict

FIRST_STEPS = 8  # after fewer, only faults are named that one step proves
Fault = Callable[[Signals], Verdict | None]
PROVEN_BY_ONE_STEP: tuple[Fault, ...] = (policy_faults.not_finite, failed_before)
FAULTS: tuple[Fault, ...] = (  # causes before their effects
    policy_faults.sampler_differs,
    policy_faults.end_is_not_learned,
    policy_faults.prompts_differ,
    leak_faults.answers_in_prompts,
    leak_faults.measured_questions_trained_on,
    reward_faults.too_short,
    policy_faults.fell_apart,
    policy_faults.loss_rose,
    reward_faults.none_right,
    reward_faults.score_falls,
    reward_faults.exploit_spreads,
    reward_faults.verdicts_differ,
    reward_faults.nothing_varies,
    reward_faults.nothing_trained,
)


def verdict(
    stage: StageFolder, differences: Mapping[str, Difference] | None = None, evaluations: Sequence[StageFolder] = ()
) -> Verdict:
    """The stage's verdict, finished or still running.

    `differences` are by metric, after minus before the stage on held-out problems; `evaluations` are those of the
    model that the stage trained. Without them the verdict rests on the stage's own metrics and rollouts.
    """
    signals = Signals(stage, differences or {}, evaluations)
    is_early = signals.steps < FIRST_STEPS
    for fault in PROVEN_BY_ONE_STEP if is_early else (*PROVEN_BY_ONE_STEP, *FAULTS):
        if proof := fault(signals):
            return proof
    evidence = progress(signals)
    if is_early:
        steps = f"steps: {signals.steps}, and {FIRST_STEPS} are needed"
        return Verdict(name="too early to tell", evidence=(steps, *evidence))
    return Verdict(name="healthy", evidence=evidence, remedy=blind_spot(signals))


def progress(signals: Signals) -> tuple[str, ...]:
    """The figures that speak for a stage: what it trains for, and the held-out score."""
    names = {
        "distill/divergence": "divergence from the teacher",
        "reward/mean": "training reward",
        f"probe/{signals.watched}": f"held-out {signals.watched}",
        "policy/entropy": "entropy",
        "validation/loss": "held-out loss",
    }
    if not signals.reward:
        names = {"optim/loss": "training loss"} | names
    courses = {name: signals[metric] for metric, name in names.items()}
    return tuple(f"{name} {from_to(metric, is_accuracy(name))}" for name, metric in courses.items() if metric)


def blind_spot(signals: Signals) -> str:
    """What a healthy RL stage should log, if nothing but its own reward says that it is one."""
    if not signals.reward or signals.held_out or signals.accuracy or signals.differences:
        return ""
    return "no verdicts and no held-out score are logged, so a hole in the reward would not be seen: set probe.tasks"


def run_verdict(verdicts: Mapping[str, Verdict]) -> tuple[str, Verdict] | None:
    """The stage whose verdict is the run's: the first with a fault, otherwise the last; None without stages.

    A later stage suffers from the fault of an earlier one, so that one must be repaired first.
    """
    stages = list(verdicts.items())
    return next((stage for stage in stages if stage[1].is_fault), stages[-1] if stages else None)
