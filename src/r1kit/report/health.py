"""Is an RL run healthy: the known ways to go wrong, each with the numbers that speak for or against it.

The thresholds are where peers' users reported trouble; they say "look here", not "this failed".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from r1kit.evaluate.intervals import NORMAL_FROM, critical, wilson
from r1kit.evaluate.statistics import Difference
from r1kit.report.completions import is_right
from r1kit.report.curves import figure, series
from r1kit.report.folders import Row, Stage, is_number, read_lines

# metric, what it is called, of what it is a share, and what to do where it rises
HACKS = (
    (
        "hack/copied",
        "Copied answers",
        "of answers are wrong and repeat a number of the prompt",
        "look at late wrong answers: the policy may have stopped working things out",
    ),
    (
        "hack/one_answer",
        "One answer for all",
        "of answers are the commonest one where it is wrong",
        "the policy says one thing whatever is asked: look at what the right answers are",
    ),
    (
        "hack/repetition",
        "Repetition",
        "of word trigrams came before in the completion",
        "add the repetition penalty, and look at long samples",
    ),
    (
        "language/other",
        "Language switching",
        "of completions are mostly not in the problem's script",
        "the language-consistency reward ends it",
    ),
)
UNSCORED = ("reward_model/not_scored", "_judged_reward/unknown")  # shares that rewards report of themselves
Status = Literal["healthy", "attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding: what was looked at, how it stands, the numbers, and what one could do about it."""

    name: str
    status: Status
    evidence: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a metric went: its mean over the first and the last part of the run, and the extremes."""

    first: float
    last: float
    highest: float


def course(rows: Sequence[Row], key: str) -> Course | None:
    """First tenth against last quarter (at least one step each); None where the metric was not written."""
    values = [value for _, value in series(rows, key)]
    if not values:
        return None
    head, tail = max(1, len(values) // 10), max(1, len(values) // 4)
    return Course(first=fmean(values[:head]), last=fmean(values[-tail:]), highest=max(values))


def checks(stage: Stage, differences: Mapping[str, Difference]) -> list[Check]:
    """All findings on one RL stage; what was not measured is left out. `differences` are those on held-out problems."""
    rows = stage.metrics
    found = [
        zero_variance(rows),
        entropy(rows),
        share(rows, "completion/truncated", "Truncation", 0.10, "raise max_tokens, or add the soft overlong penalty"),
        share(rows, "verifier/unknown", "Verifier cannot tell", 0.02, "see the rollouts whose verdict is unknown"),
        failures(rows),
        *unscored(rows),
        audit(stage),
        sampler_gap(rows),
        format_only(rows, differences),
        length(rows, stage),
        mixing(rows),
        over_optimisation(stage),
        *(hack(rows, *one) for one in HACKS),
        numbers(rows),
    ]
    return [check for check in found if check]


def zero_variance(rows: Sequence[Row]) -> Check | None:
    """Groups whose rewards are all alike give no gradient: harmless when solved, starvation when not."""
    zero, accuracy = course(rows, "groups/zero_variance"), course(rows, "reward/accuracy")
    if not zero:
        return None
    evidence = f"{percent(zero.first)} of groups at first, {percent(zero.last)} in the last quarter"
    solved = accuracy is not None and accuracy.last > 0.9
    if zero.last <= 0.8 or solved:
        extra = f", where {percent(accuracy.last)} of answers are right" if accuracy and solved else ""
        return Check(name="Zero-variance groups", status="healthy", evidence=evidence + extra)
    advice = "most groups teach nothing: use problems nearer the model's reach, larger groups or dynamic sampling"
    return Check(name="Zero-variance groups", status="attention", evidence=evidence, advice=advice)


def entropy(rows: Sequence[Row]) -> Check | None:
    found = course(rows, "policy/entropy")
    if not found:
        return None
    evidence = f"{figure(found.first)} nats per token at first, {figure(found.last)} in the last quarter"
    if found.last < 0.1 * found.first:
        advice = "exploration has all but ended: a lower learning rate or a higher upper clip keeps it alive"
        return Check(name="Entropy", status="attention", evidence=evidence, advice=advice)
    if found.last > 3 * found.first and found.last > 1:
        advice = "the policy drifts towards noise: lower the learning rate or raise the KL weight"
        return Check(name="Entropy", status="attention", evidence=evidence, advice=advice)
    return Check(name="Entropy", status="healthy", evidence=evidence)


def share(rows: Sequence[Row], key: str, name: str, limit: float, advice: str) -> Check | None:
    """A share that should stay below a limit in the last quarter."""
    found = course(rows, key)
    if not found:
        return None
    bad = found.last > limit
    evidence = f"{percent(found.last)} in the last quarter (at most {percent(found.highest)}, bound {percent(limit)})"
    return Check(name=name, status="attention" if bad else "healthy", evidence=evidence, advice=advice if bad else "")


def failures(rows: Sequence[Row]) -> Check | None:
    """A verifier that broke: one bad step is one too many, wherever it was."""
    found = [(row["step"], value) for row in rows if is_number(value := row.get("verifier/failed"))]
    if not found:
        return None
    bad = [(step, value) for step, value in found if value > 0]
    if not bad:
        return Check(name="Verifier failures", status="healthy", evidence=f"none in {len(found)} steps")
    step, worst = max(bad, key=lambda pair: pair[1])
    evidence = f"in {len(bad)} of {len(found)} steps, at most {percent(worst)} of the verdicts (step {step})"
    advice = "these completions were left out, not scored 0; the rollouts' notes say what the verifier raised"
    status: Status = "attention" if worst > 0.01 or len(bad) > 0.1 * len(found) else "healthy"
    return Check(name="Verifier failures", status=status, evidence=evidence, advice=advice)


def unscored(rows: Sequence[Row]) -> list[Check | None]:
    """Reward models and judges that gave no score: their completions are left out, and teach nothing."""
    keys = dict.fromkeys(key for row in rows for key in row if key.endswith(UNSCORED))
    advice = (
        "see the rollouts' notes: responses longer than the reward model takes, or a judge whose replies are unreadable"
    )
    return [share(rows, key, f"No score ({key.partition('/')[0]})", 0.02, advice) for key in keys]


def audit(stage: Stage) -> Check | None:
    """Verdicts that a second verifier gave otherwise, or could not give, over the whole run, with examples."""
    counts = [(row.get("audit/count"), row.get("audit/disagreement")) for row in stage.metrics]
    known = [(count, share) for count, share in counts if is_number(count) and is_number(share)]
    total, unknown = sum(count for count, _ in known), sum(value for _, value in series(stage.metrics, "audit/unknown"))
    if not total + unknown:
        return None
    differing = sum(count * share for count, share in known)
    low, high = wilson(differing / total, total, critical(NORMAL_FROM)) if total else (0.0, 1.0)
    evidence = f"{differing:.0f} of {total:.0f} verdicts given again differ (95 %: {percent(low)} to {percent(high)})"
    if unknown:
        evidence += f"; of {total + unknown:.0f} the second verifier could not tell {unknown:.0f}"
    examples = read_lines(stage.folder / "audit.jsonl")
    if examples:
        evidence += "; the last: " + "; ".join(map(differing_verdicts, examples[-3:]))
    bad, blind = low > 0.01, unknown > 0.5 * (total + unknown)
    advice = "read audit.jsonl: one of the two verifiers is wrong on these answers" if bad else ""
    if blind and not bad:
        advice = "the audit says little: choose a second verifier that can read these references"
    bad = bad or blind
    return Check(name="Audit of verdicts", status="attention" if bad else "healthy", evidence=evidence, advice=advice)


def differing_verdicts(row: Row) -> str:
    """`'72.0' for '72' is wrong by exact, right by math`."""
    given, answer = brief(row.get("extracted")), brief(row.get("answer"))
    first = f"{row.get('verdict')} by {row.get('verifier')}"
    return f"{given} for {answer} is {first}, {row.get('second_verdict')} by {row.get('second')}"


def hack(rows: Sequence[Row], key: str, name: str, words: str, advice: str) -> Check | None:
    """A share that is high at the end and has risen: what was there from the start is the model's or the task's."""
    found = course(rows, key)
    if not found:
        return None
    bad = found.last > 0.2 and found.last - found.first > 0.1
    evidence = f"{percent(found.first)} {words} at first, {percent(found.last)} in the last quarter"
    return Check(name=name, status="attention" if bad else "healthy", evidence=evidence, advice=advice if bad else "")


def sampler_gap(rows: Sequence[Row]) -> Check | None:
    """Sampler and trainer should give the same tokens the same probability; else the gradient is off-policy."""
    found = course(rows, "sampler/logprob_gap_mean")
    if not found:
        return None
    evidence = f"mean {figure(found.last)} in the last quarter, {figure(found.highest)} at most"
    bad = found.last > 0.02
    advice = "use truncated importance sampling, the same precision on both sides, or r1kit's own engine" if bad else ""
    return Check(name="Sampler-trainer gap", status="attention" if bad else "healthy", evidence=evidence, advice=advice)


def format_only(rows: Sequence[Row], differences: Mapping[str, Difference]) -> Check | None:
    """Reward that rises through the tags alone; held-out differences count where there are some."""
    name, advice = "Format-only gains", "weigh accuracy above format, and check that the base model can do the task"
    form, right = differences.get("format"), differences.get("pass@1")
    if form and right and right.low is not None and form.low is not None:
        bad = form.low > 0 and right.low <= 0
        evidence = f"held out: format {points(form.mean)}, pass@1 {points(right.mean)} (from {points(right.low)})"
    else:
        tags, accuracy = course(rows, "reward/format"), course(rows, "reward/accuracy")
        if not tags or not accuracy:
            return None
        bad = tags.last - tags.first > 0.1 and accuracy.last - accuracy.first < 0.02
        evidence = f"in training: format {figure(tags.first)} to {figure(tags.last)}, "
        evidence += f"accuracy {figure(accuracy.first)} to {figure(accuracy.last)}"
    return Check(name=name, status="attention" if bad else "healthy", evidence=evidence, advice=advice if bad else "")


def length(rows: Sequence[Row], stage: Stage) -> Check | None:
    """Length may grow with reasoning; a threefold change without more right answers is drift, and so is one of right or
    of wrong answers alone that the mean of all hides."""
    found, accuracy = course(rows, "completion/length_mean"), course(rows, "reward/accuracy")
    if not found:
        return None
    parts = {name: course(rows, f"completion/length_{name}") for name in ("right", "wrong")}
    known = {name: part for name, part in parts.items() if part}
    evidence = f"{figure(found.first)} tokens at first, {figure(found.last)} in the last quarter"
    evidence += "".join(f"; {name} answers {figure(part.first)} to {figure(part.last)}" for name, part in known.items())
    evidence += "" if known else by_outcome(stage)
    gained = accuracy is not None and accuracy.last - accuracy.first > 0.05
    drifted = [name for name, part in {"all": found, **known}.items() if not 1 / 3 < ratio(part) < 3]
    bad = bool(drifted) and (not gained or drifted == ["wrong"])
    advice = f"length of {' and '.join(drifted)} answers moves without better ones: see late samples, length rewards"
    return Check(
        name="Length drift", status="attention" if bad else "healthy", evidence=evidence, advice=advice if bad else ""
    )


def ratio(found: Course) -> float:
    return found.last / found.first if found.first else math.inf


def brief(value: object) -> str:
    text = " ".join(str(value).split())
    return repr(text if len(text) <= 40 else text[:39] + "…")


def by_outcome(stage: Stage) -> str:
    """Mean length of right and of wrong answers in the last stored rollouts."""
    lengths: dict[bool, list[float]] = {True: [], False: []}
    for row in read_lines(stage.rollouts[-1]) if stage.rollouts else []:
        right, tokens = is_right(row), row.get("tokens")
        if right is not None and is_number(tokens):
            lengths[right].append(tokens)
    if not all(lengths.values()):
        return ""
    means = {right: fmean(tokens) for right, tokens in lengths.items()}
    return f"; in the last rollouts right answers have {means[True]:.0f}, wrong ones {means[False]:.0f}"


def mixing(rows: Sequence[Row]) -> Check | None:
    found = course(rows, "language/mixed")
    if not found:
        return None
    evidence = f"{percent(found.first)} of completions at first, {percent(found.last)} in the last quarter"
    bad = found.last > found.first + 0.1
    advice = "as in the paper's R1-Zero: cold start and the language-consistency reward end it" if bad else ""
    return Check(name="Language mixing", status="attention" if bad else "healthy", evidence=evidence, advice=advice)


def over_optimisation(stage: Stage) -> Check | None:
    """The reward rises in training while the held-out score that the probe watches falls from its best: the policy has
    found what the reward does not see."""
    settings = stage.manifest.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    probe = settings.get("probe")
    watch = (probe.get("watch") if isinstance(probe, Mapping) else None) or "accuracy"
    reward, held_out = course(stage.metrics, "reward/mean"), course(stage.metrics, f"probe/{watch}")
    if not reward or not held_out:
        return None
    fallen = held_out.highest - held_out.last > max(0.05, 0.1 * abs(held_out.highest))
    bad = fallen and reward.last > reward.first
    evidence = f"training reward {figure(reward.first)} to {figure(reward.last)}; held-out {watch} "
    evidence += f"{figure(held_out.first)} at first, {figure(held_out.highest)} at best, {figure(held_out.last)} last"
    advice = "stop where the held-out score was best: set patience; a KL term or a better reward model helps too"
    if settings.get("patience"):
        advice = "the weights of the best held-out score were kept; a KL term or a better reward model lets it go on"
    return Check(
        name="Over-optimisation",
        status="attention" if bad else "healthy",
        evidence=evidence,
        advice=advice if bad else "",
    )


def numbers(rows: Sequence[Row]) -> Check | None:
    """Values that are no numbers, and gradients that jump."""
    norms = [value for _, value in series(rows, "optim/grad_norm")]
    # what is not finite was stored as null, since JSON has no word for it
    broken = [row["step"] for row in rows if None in row.values()]
    if broken:
        evidence = f"{len(broken)} steps have a value that is not finite, the first is step {broken[0]}"
        return Check(name="Numbers", status="attention", evidence=evidence, advice="lower the learning rate; use fp32")
    if not norms:
        return None
    evidence = f"all finite; gradient norm {figure(median(norms))} in the middle, {figure(max(norms))} at most"
    bad = max(norms) > 100 * median(norms) > 0
    advice = "one step's gradient towers over the others: keep clipping on" if bad else ""
    return Check(name="Numbers", status="attention" if bad else "healthy", evidence=evidence, advice=advice)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f} points"
