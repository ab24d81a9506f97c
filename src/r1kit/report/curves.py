"""The training curves of a stage: which metrics share a plot, under which title."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from r1kit.report.curve_svg import draw, first_and_last, readable_number
from r1kit.report.folders import StageFolder
from r1kit.report.metrics import Metrics, Points


@dataclass(frozen=True, slots=True)
class Plot:
    """Metrics drawn together, each with its label. `exact` values are set, not measured, and are not smoothed."""

    title: str
    metrics: Mapping[str, str]
    note: str = ""
    is_share: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A plot as drawn. `series` holds (label, first figure, last figure), as text."""

    title: str
    note: str
    svg: str
    series: list[tuple[str, str, str]]


HELD_OUT = {"probe/format": "well formed", "probe/mixed": "mixed languages", "probe/truncated": "truncated"}
PAIRS = {"train/accuracy": "in training", "validation/accuracy": "held out"}
LENGTH = "completion/length"
LENGTHS = {f"{LENGTH}_mean": "all", f"{LENGTH}_right": "right", f"{LENGTH}_wrong": "wrong"}
UNKNOWN = {"verifier/unknown": "no verdict", "verifier/failed": "verifier failed"}
SPEEDS = {"speed/rollout": "sampling", "speed/train": "training"}
SECONDS = {"time/rollout_s": "sampling", "time/train_s": "training", "time/rewards_s": "rewards, a part of sampling"}


def plots(names: Sequence[str]) -> list[Plot]:
    """All plots, in order; the names of the logged metrics decide those of reward parts, tasks and judges."""
    parts = {name: name.removeprefix("reward/") for name in names_below(names, "reward/")}
    parts = {name: part for name, part in parts.items() if part not in ("mean", "std")}
    judges = by_source(names, "probe/reward")
    if len(judges) == 2:
        del judges["probe/reward"]  # the weighted sum of a single judge
    # A policy gradient's loss says nothing about progress.
    loss = [] if parts else [Plot("Loss", {"optim/loss": "loss"})]
    return [
        Plot("Reward", {"reward/mean": "mean"}, "the training objective"),
        Plot("Reward parts", parts, "unweighted"),
        *loss,
        Plot(
            "Held-out accuracy",
            {"probe/accuracy": "share"},
            "problems of probe.tasks, answered greedily",
            is_share=True,
        ),
        Plot("Held-out answers", HELD_OUT, is_share=True),
        Plot("Pairs in order", PAIRS, "a reward model's accuracy", is_share=True),
        Plot("Calibration error", {"validation/calibration_error": "held out"}, "of a reward model", is_share=True),
        Plot("Completion length", LENGTHS, "tokens, end token included"),
        Plot("Truncated", {"completion/truncated": "share"}, "completions cut off at max_tokens", is_share=True),
        Plot("Zero-variance groups", {"groups/zero_variance": "share"}, "equal rewards: no gradient", is_share=True),
        Plot("Entropy", {"policy/entropy": "mean"}, "nats per token; near zero, exploration ends"),
        Plot("KL to the reference", {"policy/kl": "mean"}, "nats per token"),
        Plot("Clipped tokens", {"policy/clip_fraction": "share"}, "outside the trust region", is_share=True),
        Plot(
            "Sampler-trainer gap",
            {"sampler/logprob_gap_mean": "mean"},
            "log-prob difference per token; about 4e-7 in fp32",
        ),
        Plot("Mixed languages", {"language/mixed": "share"}, "completions in more than one language", is_share=True),
        Plot("Wrong language", {"language/other": "share"}, "mostly in another script than the problem", is_share=True),
        Plot("No verdict", UNKNOWN, is_share=True),
        Plot("Audit of verdicts", {"audit/disagreement": "share"}, "re-checked verdicts that differ", is_share=True),
        Plot("Wrong but well formed", {"hack/format_only": "share"}, "rewarded for the tags alone", is_share=True),
        Plot("Copied answers", {"hack/copied": "share"}, "wrong, and a number of the prompt", is_share=True),
        Plot(
            "Same answer to all problems",
            {"hack/one_answer": "share"},
            "the most common answer, if wrong",
            is_share=True,
        ),
        Plot("Repetition", {"hack/repetition": "share"}, "repeated word trigrams in a completion", is_share=True),
        Plot("Gradient norm", {"optim/grad_norm": "norm"}, "before clipping"),
        Plot("Learning rate", {"optim/learning_rate": "rate"}, exact=True),
        Plot("Tokens per second", SPEEDS),
        Plot("Seconds per step", SECONDS),
        Plot("Waiting for rewards", {"time/rewards_share": "share"}, "share of a step's time", is_share=True),
        Plot("Held-out loss", by_source(names, "validation/loss"), "nats per token"),
        Plot("Accuracy by task", without_all(names, "probe/accuracy"), "problems of probe.tasks", is_share=True),
        Plot("Held-out judges", judges, "falls while the reward rises: the reward is being gamed"),
        Plot("No score by a judge", without_all(names, "probe/unknown"), "share of held-out answers", is_share=True),
    ]


def panels(stage: StageFolder) -> tuple[list[Panel], list[str]]:
    """The stage's plots, and the titles of those that are zero throughout, which a line of text covers."""
    drawn, flat = [], []
    for plot in plots(stage.metrics.names()):
        curves = {name: points for name in plot.metrics if (points := points_of(stage.metrics, name))}
        if not curves:
            continue
        if all(value == 0 for points in curves.values() for _, value in points):
            flat.append(plot.title)
            continue
        ends = []
        for name, points in curves.items():
            figures = first_and_last([value for _, value in points], plot.exact)
            first, last = (readable_number(value, plot.is_share) for value in figures)
            ends.append((plot.metrics[name], first, last))
        svg = draw(plot.title, curves, plot.is_share, plot.exact)
        drawn.append(Panel(title=plot.title, note=plot.note, svg=svg, series=ends))
    return drawn, flat


def names_below(names: Sequence[str], prefix: str) -> list[str]:
    return [name for name in names if name.startswith(prefix)]


def by_source(names: Sequence[str], metric: str) -> dict[str, str]:
    """A metric over everything ("all"), and by source."""
    return {metric: "all"} | {name: name.removeprefix(f"{metric}/") for name in names_below(names, f"{metric}/")}


def without_all(names: Sequence[str], metric: str) -> dict[str, str]:
    return {name: label for name, label in by_source(names, metric).items() if name != metric}


def points_of(metrics: Metrics, name: str) -> Points:
    """(step, value) of a metric of a plot: a logged one, or tokens per second."""
    return tokens_per_second(metrics, name.removeprefix("speed/")) if name in SPEEDS else metrics.series(name)


def tokens_per_second(metrics: Metrics, phase: str) -> Points:
    """Of "rollout" or "train", where tokens and seconds were both logged."""
    seconds = metrics.series(f"time/{phase}_s")
    if not seconds and phase == "train":
        seconds = metrics.series("time/step_s")  # a stage without sampling logs whole steps only
    tokens = dict(metrics.series(f"tokens/{phase}"))
    return [(step, tokens[step] / value) for step, value in seconds if step in tokens and value > 0]
