"""Does the policy still learn: signal, exploration, length, language, and finite numbers."""

from __future__ import annotations

from itertools import count
from statistics import fmean, median

from r1kit.data.jsonl import read_rows
from r1kit.numeric import is_number
from r1kit.report.completions import is_right
from r1kit.report.curve_svg import readable_number
from r1kit.report.folders import StageFolder
from r1kit.report.health.course import Check, Course, at_least, at_most, course, finding, from_to, percent, stopped_at
from r1kit.report.metrics import Metrics

MOST_EQUAL = 0.8  # share of groups that teach nothing
MOST_GAP = 0.02  # nats per token


def zero_variance(metrics: Metrics) -> Check | None:
    """Groups with equal rewards give no gradient: harmless if the problems are solved, starvation if they are not."""
    zero, accuracy = course(metrics, "groups/zero_variance"), course(metrics, "reward/accuracy")
    if not zero:
        return None
    evidence = f"{percent(zero.first)} of groups at first, {percent(zero.last)} in the last quarter"
    solved = accuracy is not None and accuracy.last > 0.9
    if accuracy and solved:
        evidence += f", with {percent(accuracy.last)} of answers right"
    advice = "most groups teach nothing: use easier problems, larger groups or dynamic sampling"
    bound = at_most("groups/zero_variance", MOST_EQUAL)
    limit = f"{100 * MOST_EQUAL:.0f} % in the last quarter, unless 90 % of answers are right"
    bad, bounds = bound.is_passed(zero.last) and not solved, [] if solved else [bound]
    return finding("Zero-variance groups", bad, evidence, advice, limit=limit, bounds=bounds)


def entropy(metrics: Metrics) -> Check | None:
    name = "policy/entropy"
    metric = course(metrics, name)
    if not metric:
        return None
    first, last = readable_number(metric.first), readable_number(metric.last)
    bounds = [at_least(name, 0.1 * metric.first), at_most(name, max(3 * metric.first, 1))]
    collapsed, drifting = (bound.is_passed(metric.last) for bound in bounds)
    advice = "exploration has nearly ended: try a lower learning rate or a higher upper clip"
    if drifting:
        advice = "the policy drifts towards noise: lower the learning rate or raise the KL weight"
    evidence = f"{first} nats per token at first, {last} in the last quarter"
    limit = "below a tenth of the start, or above three times the start and 1 nat"
    return finding("Entropy", collapsed or drifting, evidence, advice, limit=limit, bounds=bounds)


def sampler_gap(metrics: Metrics) -> Check | None:
    """Sampler and trainer should give the same tokens the same log-probs; otherwise the gradient is off-policy."""
    gap = course(metrics, "sampler/logprob_gap_mean")
    if not gap:
        return None
    evidence = f"mean {readable_number(gap.last)} in the last quarter, at most {readable_number(gap.highest)} in a step"
    if any(metrics.values("sampler/staleness")):
        return finding("Sampler-trainer gap", False, f"{evidence}; the sampler is an update behind")
    advice = "use truncated importance sampling, the same precision on both sides, or r1kit's own engine"
    policy_entropy = course(metrics, "policy/entropy")
    most = min(MOST_GAP, on_policy_gap(policy_entropy)) if policy_entropy else MOST_GAP
    bound, limit = at_most("sampler/logprob_gap_mean", most), f"{readable_number(most)} in the last quarter"
    return finding("Sampler-trainer gap", bound.is_passed(gap.last), evidence, advice, limit=limit, bounds=[bound])


def on_policy_gap(entropy: Course) -> float:
    """The largest gap of a sampler that has the trainer's weights and temperature, in any precision.

    They are 4e-7 apart in fp32, and 0.016 in bf16 at an entropy above 1. A sampler that the updates do not reach, or of
    another temperature, is a fifth of the entropy apart or more, also when the entropy has become small; one that gets
    each update a step late, a tenth at the first step and then less.
    """
    return max(0.005, 0.1 * entropy.last)


def length(stage: StageFolder) -> Check | None:
    """Length may grow with reasoning. A threefold change without more right answers is drift.

    Right and wrong answers are checked apart too: the mean over all can hide the drift of one of them.
    """
    metrics = stage.metrics
    overall, accuracy = course(metrics, "completion/length_mean"), course(metrics, "reward/accuracy")
    if not overall:
        return None
    outcomes = {name: course(metrics, f"completion/length_{name}") for name in ("right", "wrong")}
    logged = {name: outcome for name, outcome in outcomes.items() if outcome}
    ended = {name: stopped_at(metrics, f"completion/length_{name}") for name in logged}
    evidence = f"{readable_number(overall.first)} tokens at first, {readable_number(overall.last)} in the last quarter"
    for name, outcome in logged.items():
        course_of = from_to(outcome) if ended[name] is None else f"{readable_number(outcome.first)} at first"
        evidence += f"; {name} answers {course_of}" + (f", none after step {ended[name]:g}" if ended[name] else "")
    evidence += "" if logged else last_lengths(stage)
    gained = accuracy is not None and accuracy.rise > 0.05
    courses = {"all": overall, **{name: outcome for name, outcome in logged.items() if ended[name] is None}}
    drifted = [name for name, metric in courses.items() if not 1 / 3 < metric.growth < 3]
    bad = bool(drifted) and (not gained or drifted == ["wrong"])
    whose = "" if "all" in drifted else f"{' and '.join(drifted)} "
    advice = f"{whose}answers change in length, but no more of them are right: read late samples"
    limit = "a third or three times the start, without 5 points more right answers"
    return finding("Completion length", bad, evidence, advice + ", and look at rewards for length", limit=limit)


def last_lengths(stage: StageFolder) -> str:
    """Mean lengths of right and of wrong answers in the last stored rollouts; empty unless there are both."""
    lengths: dict[bool, list[float]] = {True: [], False: []}
    for row in read_rows(stage.rollouts[-1]) if stage.rollouts else []:
        right, tokens = is_right(row), row.get("tokens")
        if right is not None and is_number(tokens):
            lengths[right].append(tokens)
    if not all(lengths.values()):
        return ""
    right_mean, wrong_mean = fmean(lengths[True]), fmean(lengths[False])
    return f"; in the last rollouts right answers have {right_mean:.0f}, wrong ones {wrong_mean:.0f}"


def mixing(metrics: Metrics) -> Check | None:
    name = "language/mixed"
    mixed = course(metrics, name)
    if not mixed:
        return None
    bound = at_most(name, mixed.first + 0.1)
    evidence = f"{percent(mixed.first)} of completions at first, {percent(mixed.last)} in the last quarter"
    advice = "add the language-consistency reward, or start from SFT on answers in one language (R1's cold start)"
    limit = "10 points above the start"
    return finding("Mixed languages", bound.is_passed(mixed.last), evidence, advice, limit=limit, bounds=[bound])


def lost_steps(metrics: Metrics) -> Check | None:
    """Steps without a row, which no verdict can judge; None if there are none."""
    steps = {*metrics.steps} - {0}
    last = int(max(steps, default=0))
    if last <= len(steps):
        return None
    first = next(step for step in count(1) if step not in steps)
    evidence = f"{last - len(steps)} steps up to {last} have no row in metrics.jsonl, first {first}"
    return finding("Lost steps", True, evidence, "the verdict rests on the others: the rows were lost before a resume")


def numbers(metrics: Metrics) -> Check | None:
    """Values that are not finite, and gradients that jump."""
    if broken := metrics.not_finite():
        evidence = f"{len(broken)} steps have a value that is not finite, the first is step {broken[0]}"
        return finding("Numbers", True, evidence, "lower the learning rate; use fp32")
    norms = metrics.values("optim/grad_norm")
    if not norms:
        return None
    bound = at_most("optim/grad_norm", 100 * median(norms))
    middle, highest = readable_number(median(norms)), readable_number(max(norms))
    evidence = f"all finite; the median gradient norm is {middle}, the largest {highest}"
    advice = "one step's gradient is far larger than the others': keep clipping on"
    limit = "a gradient norm of 100 times the median"
    is_trained = median(norms) > 0
    jumps = is_trained and bound.is_passed(max(norms))
    return finding("Numbers", jumps, evidence, advice, limit=limit, bounds=[bound], is_applicable=is_trained)
