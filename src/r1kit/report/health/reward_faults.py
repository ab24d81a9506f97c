"""Hacking and starved: the reward pays for something else than right answers, or there is nothing to learn from."""

from __future__ import annotations

from r1kit.evaluate.intervals import NORMAL_FROM, critical, wilson
from r1kit.report.curves import names_below
from r1kit.report.health.course import best_and_last, from_to, is_accuracy, percent
from r1kit.report.health.policy_checks import MOST_EQUAL
from r1kit.report.health.reward_checks import HACKS
from r1kit.report.health.signals import Signals, Verdict
from r1kit.report.health.verifier_checks import audited

HACKING = (
    "read late rollouts with a high reward: what do they share? Close the hole in the reward, give right answers the "
    "largest weight, and stop at the best held-out score (patience)"
)
NARROWED = (
    "the policy fits its samples and loses the rest: lower the learning rate, train on more problems, or stop at the "
    "best held-out score (patience)"
)
STARVED = "use easier problems, larger groups or dynamic sampling (algorithm=dapo)"


def more_signal(signals: Signals, otherwise: str = STARVED) -> str:
    """How to get groups that differ: more tokens if most completions are cut off, and then `otherwise`."""
    cut = signals["completion/truncated"]
    if cut is None or cut.last <= 0.5:
        return otherwise
    most = signals.stage.settings.get("max_tokens")
    return (
        f"raise max_tokens ({most} now; {percent(cut.last)} of completions are cut off); if that is not it, {otherwise}"
    )


def score_falls(signals: Signals) -> Verdict | None:
    """The training reward rises while right answers become fewer: in training, on the probe, or in the evaluation."""
    if not signals.is_rewarded:
        return None
    evidence = []
    for name, score in ((f"held-out {signals.watched}", signals.held_out), ("training accuracy", signals.accuracy)):
        if score and score.fell(0.1) and score.fall > 0.05:
            evidence.append(f"{name} {best_and_last(score, is_accuracy(name))}")
    change = signals.differences.get("pass@1")
    if change and change.high is not None and change.high < -0.02:
        evidence.append(f"pass@1 {100 * change.mean:+.1f} points after the stage, {100 * change.high:+.1f} at most")
    is_paid = signals.pays_for_accuracy and signals.watched == "accuracy"
    if evidence and is_paid and signals.accuracy and signals.accuracy.rose:
        # one verifier judges both, so a hole in it would raise both
        training = f"training accuracy {from_to(signals.accuracy, is_share=True)}"
        return Verdict(name="collapsed", evidence=(training, *evidence), remedy=NARROWED)
    return hack(signals, *evidence) if evidence else None


def exploit_spreads(signals: Signals) -> Verdict | None:
    """The reward rises, right answers do not, and a known exploit does."""
    accuracy, form = signals.accuracy, signals["reward/format"]
    if not signals.is_rewarded or not accuracy or accuracy.rise > max(0.02, 2 * accuracy.rise_error):
        return None
    evidence = []
    for symptom in HACKS:
        share = signals[symptom.metric]
        if symptom.metric.startswith("hack/") and share and share.last > 0.2 and share.rise > 0.1:
            evidence.append(f"{percent(share.last)} {symptom.description}, {percent(share.first)} at first")
    if form and form.rise > 0.1 and form.last > 0.9:
        evidence.append(f"format {from_to(form)}")
    return hack(signals, f"training accuracy {from_to(accuracy, is_share=True)}", *evidence) if evidence else None


def verdicts_differ(signals: Signals) -> Verdict | None:
    """A second verifier rejects more than 5 % of the re-checked verdicts."""
    total, differing = audited(signals.metrics)
    low = wilson(differing / total, total, critical(NORMAL_FROM))[0] if total else 0.0
    if low <= 0.05 or not signals.is_rewarded:
        return None
    return hack(signals, f"a second verifier contradicts {differing:.0f} of {total:.0f} re-checked verdicts")


def hack(signals: Signals, *evidence: str) -> Verdict:
    reward = [f"training reward {from_to(signals.reward)}"] if signals.reward else []
    return Verdict(name="hacking", evidence=(*reward, *evidence), remedy=HACKING)


def too_short(signals: Signals) -> Verdict | None:
    """Most completions were cut off before the first update, and what fits is learned at the cost of the rest."""
    cut, score = signals["completion/truncated"], signals.held_out
    if not cut or cut.start <= 0.5 or not score or not score.fell(0.1) or score.fall <= 0.05:
        return None
    evidence = f"{percent(cut.start)} of completions were cut off at the first step"
    evidence += f" (max_tokens={signals.stage.settings.get('max_tokens')})"
    return Verdict(
        name="starved",
        evidence=(evidence, f"held-out {signals.watched} {best_and_last(score, is_accuracy(signals.watched))}"),
        remedy="raise max_tokens until most completions end by themselves, or start from a model that answers shortly",
    )


def none_right(signals: Signals) -> Verdict | None:
    """So few answers are right that most groups have none, whatever other parts of the reward say."""
    accuracy, size = signals.accuracy, signals.stage.settings.get("group_size")
    size = size if isinstance(size, int) and size else 8
    # at most size x accuracy of the groups have a right answer; without groups, as under a teacher, none is needed
    is_enough = accuracy is None or accuracy.highest > 0.1 or accuracy.peak * size > 1 - MOST_EQUAL
    if accuracy is None or is_enough or not signals.zero_variance:
        return None
    with_signal = min(1.0, accuracy.last * size)
    evidence = [
        f"{percent(accuracy.last)} of answers in training are right in the last quarter, {percent(accuracy.highest)} "
        "at best"
    ]
    evidence += (
        [f"at most {percent(with_signal)} of groups of {size} can hold a right answer"] if accuracy.highest else []
    )
    others = {name: signals[name] for name in names_below(signals.metrics.names(), "reward/")}
    grown = [(name, part) for name, part in others.items() if part and name.count("/") == 1 and part.rise > 0.1]
    evidence += [
        f"only other rewards rise: {name.removeprefix('reward/')} {from_to(part)}"
        for name, part in grown
        if name not in ("reward/mean", "reward/std")
    ]
    check = "if the rollouts hold right answers that are judged wrong, check your references with r1kit verify"
    remedy = more_signal(signals, f"{STARVED}, or start from SFT; {check}")
    return Verdict(name="starved", evidence=tuple(evidence), remedy=remedy)


def nothing_varies(signals: Signals) -> Verdict | None:
    """Nearly all groups have equal rewards, all wrong or from the start all right."""
    zero, accuracy = signals.zero_variance, signals.accuracy
    if not zero or zero.last <= MOST_EQUAL:
        return None
    was_solved = accuracy is not None and accuracy.first > 0.9 and zero.first > MOST_EQUAL
    if signals.is_solved and not was_solved:
        return None  # the run has done its work
    evidence = [
        f"{percent(zero.last)} of groups have equal rewards in the last quarter, {percent(zero.first)} at first"
    ]
    evidence += [f"training accuracy {from_to(accuracy, is_share=True)}"] if accuracy else []
    remedy = "the problems are too easy: use harder ones" if was_solved else more_signal(signals)
    return Verdict(name="starved", evidence=tuple(evidence), remedy=remedy)


def nothing_trained(signals: Signals) -> Verdict | None:
    """Most updates have no tokens or no gradient, or most rows were too long."""
    for metric, name in (("tokens/train", "trained tokens"), ("optim/grad_norm", "the gradient")):
        values = signals.metrics.values(metric)
        empty = sum(value == 0 for value in values)
        if not signals.is_solved and values and empty > 0.5 * len(values):
            evidence = f"{name} is 0 in {empty} of {len(values)} steps"
            return Verdict(name="starved", evidence=(evidence,), remedy=more_signal(signals))
    left_out, total = signals.dropped
    if left_out <= 0.5 * total:
        return None
    evidence = f"{left_out:,.0f} of {total:,.0f} rows are left out because they are too long"
    return Verdict(
        name="starved", evidence=(evidence,), remedy="raise max_tokens or max_prompt_tokens, or use shorter rows"
    )
