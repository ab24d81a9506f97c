"""Is the reward being gamed: format without answers, known hacks, over-optimisation, missing scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from r1kit.data.jsonl import read_rows
from r1kit.evaluate.statistics import Difference
from r1kit.report.curve_svg import readable_number
from r1kit.report.folders import StageFolder
from r1kit.report.health.course import (
    Check,
    at_least,
    at_most,
    below,
    best_and_last,
    course,
    finding,
    from_to,
    is_accuracy,
    percent,
)
from r1kit.report.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Symptom:
    """A share that rises when the policy games the reward."""

    metric: str
    name: str
    description: str
    advice: str


HACKS = (
    Symptom(
        "hack/copied",
        "Copied answers",
        "of answers are wrong and repeat a number of the prompt",
        "read late wrong answers: the policy may have stopped reasoning",
    ),
    Symptom(
        "hack/one_answer",
        "Same answer to all problems",
        "of answers are the most common one, and wrong",
        "the policy gives one answer to every question: look at the distribution of right answers",
    ),
    Symptom(
        "hack/repetition",
        "Repetition",
        "of word trigrams occurred before in the completion",
        "add the repetition penalty, and read long samples",
    ),
    Symptom(
        "language/other",
        "Wrong language",
        "of completions are mostly in another script than the problem",
        "add the language-consistency reward",
    ),
)
NOT_SCORED = ("reward_model/not_scored", "_judged_reward/unknown")  # shares that rewards log of themselves


def hack(stage: StageFolder, symptom: Symptom) -> Check | None:
    """A share that is high at the end and has risen: a high start is due to the base model or the task."""
    share = course(stage.metrics, symptom.metric)
    if not share:
        return None
    description = symptom.description
    evidence = f"{percent(share.first)} {description} at first, {percent(share.last)} in the last quarter"
    has_words = symptom.metric != "hack/repetition" or not too_few_words(stage)
    evidence += "" if has_words else "; most completions of the last rollouts have fewer than three words"
    limit = "20 % in the last quarter, and 10 points above the start"
    bound = at_most(symptom.metric, max(0.2, share.first + 0.1))
    bad = bound.is_passed(share.last)
    return finding(symptom.name, bad, evidence, symptom.advice, limit=limit, bounds=[bound], is_applicable=has_words)


def too_few_words(stage: StageFolder) -> bool:
    """Whether most completions of the last rollouts are too short for trigrams, as one tag without a space is."""
    rows = read_rows(stage.rollouts[-1]) if stage.rollouts else ()
    words = [len(text.split()) for row in rows if isinstance(text := row.get("completion"), str)]
    return bool(words) and median(words) < 3


def format_only(metrics: Metrics, differences: Mapping[str, Difference]) -> Check | None:
    """Reward that rises through the tags alone. Held-out differences count, or training rewards if there are none."""
    form, right = differences.get("format"), differences.get("pass@1")
    if form and right and form.low is not None and right.low is not None:
        bad, rose = form.low > 0 and right.low <= 0, form.mean > 0
        points = (f"{100 * value:+.1f} points" for value in (form.mean, right.mean, right.low))
        evidence = "held out: format {}, pass@1 {} (from {})".format(*points)
    else:
        tags, accuracy = course(metrics, "reward/format"), course(metrics, "reward/accuracy")
        if not tags or not accuracy:
            return None
        bad, rose = tags.rise > 0.1 and accuracy.rise < 0.02, tags.rise > 0
        evidence = f"in training: format {from_to(tags)}, accuracy {from_to(accuracy, is_share=True)}"
    advice = "weight accuracy above format, and check that the base model can do the task"
    limit = "format 10 points above the start, accuracy less than 2; held out: format up, accuracy not"
    return finding("Format-only gains", bad, evidence, advice, limit=limit, is_applicable=rose)


def over_optimisation(stage: StageFolder) -> Check | None:
    """The training reward rises while the probe's held-out score falls from its best: the reward misses something."""
    probe = stage.settings.get("probe")
    watched = (probe.get("watch") if isinstance(probe, Mapping) else None) or "accuracy"
    name = f"probe/{watched}"
    reward, held_out = course(stage.metrics, "reward/mean"), course(stage.metrics, name)
    if not reward or not held_out:
        return None
    bound = at_least(name, held_out.highest - max(0.05, 0.1 * abs(held_out.highest)))
    fell, rose = bound.is_passed(held_out.last), reward.rise > 0
    is_share = is_accuracy(watched)
    fall = f"{readable_number(held_out.first, is_share)} at first, {best_and_last(held_out, is_share)}"
    evidence = f"training reward {from_to(reward)}; held-out {watched} {fall}"
    advice = "stop at the best held-out score: set patience; a KL term or a better reward model helps too"
    if stage.settings.get("patience"):
        advice = "the weights of the best held-out score were kept; with a KL term or a better reward model it goes on"
    limit = "a tenth below the best, and 0.05, while the reward rises"
    bad = fell and rose
    return finding("Over-optimisation", bad, evidence, advice, limit=limit, bounds=[bound], is_applicable=rose)


def not_scored(metrics: Metrics) -> list[Check | None]:
    """Reward models and judges that gave no score: their completions are left out of the update."""
    names = [name for name in metrics.names() if name.endswith(NOT_SCORED)]
    advice = "read the rollouts' notes: responses too long for the reward model, or judge replies that cannot be read"
    labels = {name: name.removeprefix("rewards/").partition("/")[0] for name in names}
    return [below(metrics, name, f"No score ({label})", 0.02, advice) for name, label in labels.items()]
