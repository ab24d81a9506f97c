"""Probes: during training, the current weights answer held-out tasks, judged by verifiers and by held-out rewards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field, field_validator, model_validator

from r1kit.chat import ChatFormat
from r1kit.engines.engine_settings import DeviceSettings
from r1kit.engines.opening import open_policy_engine
from r1kit.pipeline import Context
from r1kit.rewards import RewardSpec, Scorer, build
from r1kit.settings import Settings, listed, nearest, unhashed
from r1kit.stages.shared.fitting import Fitting
from r1kit.tasks import TaskSpec, load_tasks
from r1kit.types import Group, SamplingParams

NAMES = {"pass@1": "accuracy"}


class ProbeSettings(Settings):
    """Problems that are answered greedily at every validation. Without tasks there is no probe.

    Several tasks show if one improves at the cost of another. `rewards` judge the same answers but are not trained on:
    reward models of other pairs, generative judges, rules. Early stopping follows `watch`: `accuracy` (share of right
    answers), `reward` (weighted sum) or `reward/LABEL`; "" is the stage's own choice.
    """

    tasks: tuple[TaskSpec, ...] = ()
    rewards: tuple[RewardSpec, ...] = ()
    max_tokens: int = Field(256, ge=1)
    max_rows: int = unhashed(128, ge=1)
    watch: str = ""

    _lists = field_validator("tasks", "rewards", mode="before")(listed)

    @model_validator(mode="after")
    def _is_measured(self) -> ProbeSettings:
        if (self.watch or self.rewards) and not self.tasks:
            raise ValueError("watch and rewards judge the answers to the probe's tasks: set probe.tasks")
        known = ["accuracy", *(["reward"] if self.rewards else []), *(f"reward/{spec.title}" for spec in self.rewards)]
        if self.watch and self.watch not in known:
            raise ValueError(f"the probe has no {self.watch!r} to watch: {nearest(self.watch, known)}")
        return self


def with_models(specs: Sequence[RewardSpec], models: Mapping[str, Path]) -> tuple[RewardSpec, ...]:
    """Rewards in which each `reward_model` with the label of a folder gets that folder as its option `model`."""
    return tuple(
        spec.replace(options={**spec.options, "model": str(models[spec.title])})
        if spec.name == "reward_model" and spec.title in models
        else spec
        for spec in specs
    )


def refuse_unread(context: Context, specs: Sequence[RewardSpec]) -> None:
    """Raise ValueError if none of the stage's rewards reads an input `reward/LABEL`."""
    unread = context.inputs("reward/").keys() - {spec.title for spec in specs if spec.name == "reward_model"}
    if unread:
        raise ValueError(
            f"stage {context.stage} has the input reward/{min(unread)}, but no reward reads it: add a reward named "
            f"reward_model with the label {min(unread)!r}"
        )


def probe_of(context: Context) -> ProbeSettings:
    """The stage's probe settings, with the folders of its reward models."""
    probe: ProbeSettings = context.settings.probe
    return probe.replace(rewards=with_models(probe.rewards, context.inputs("reward/")))


def check_probe(context: Context, *, follows: bool = False) -> None:
    """Raise ValueError if the probe's rewards, tasks or prompts cannot work, before any work starts.

    With `follows`, early stopping follows the accuracy, so some problem must have a verifier.
    """
    from r1kit.models.load import outline
    from r1kit.rollout import column_names

    probe = probe_of(context)
    if not probe.tasks:
        return
    scorer, policy = scorer_of(probe.rewards), outline(str(context.input("model")))
    task = load_tasks(probe.tasks, training=False, nested_columns=scorer.has_own)
    problems = Fitting(task, context.settings.chat, policy, max_tokens=probe.max_tokens).problems
    scorer.check(column_names(problems))
    if not any(problem.verifier for problem in problems) and (follows or not probe.rewards):
        raise ValueError(
            f"no problem of the probe's task {task.name} has a reference, so accuracy cannot be measured: give "
            "probe.rewards and watch one of them, or a split with references"
        )


def scorer_of(specs: Sequence[RewardSpec]) -> Scorer:
    """The scorer of these rewards, of which there may be none: rewards that only report are optional."""
    return build(specs) if specs else Scorer(())


def make_probe(probe: ProbeSettings, policy: Any, chat: ChatFormat) -> Callable[[], dict[str, float]]:
    """A function that answers the probe's problems and returns metrics: `probe/accuracy`, `probe/format` ... over all
    tasks, `probe/accuracy/SOURCE` if there are several, `probe/reward` (weighted sum) and `probe/reward/LABEL`."""
    from r1kit.rollout import over_ranks, roll_out

    if not probe.tasks:
        return dict
    engine, scorer = open_policy_engine(DeviceSettings(max_rows=probe.max_rows), policy), scorer_of(probe.rewards)
    task = load_tasks(probe.tasks, training=False, nested_columns=scorer.has_own)
    problems = Fitting(task, chat, policy, max_tokens=probe.max_tokens).problems
    # greedy answers draw no random numbers, so that probing changes no result
    greedy = SamplingParams(temperature=0.0, max_tokens=probe.max_tokens)

    def measure() -> dict[str, float]:
        groups = over_ranks(problems, lambda own: roll_out(engine, own, chat, scorer, greedy))
        metrics = accuracy_metrics(groups, policy.tokenizer)
        if not probe.rewards and "probe/accuracy" not in metrics:
            raise ValueError("the verifier could not judge any answer of the probe: check probe.tasks")
        return metrics | reward_metrics(groups, probe.rewards)

    return measure


def accuracy_metrics(groups: Sequence[Group], tokenizer: Any) -> dict[str, float]:
    """The metrics of an evaluation, over the problems that have a verifier."""
    from r1kit.evaluate.measurement import judge
    from r1kit.evaluate.metrics import Scored
    from r1kit.evaluate.statistics import summarise

    judged = [group for group in groups if group.problem.verifier]
    if not judged:
        return {}
    problems = [group.problem for group in judged]
    prompts = [group.rollouts[0].prompt for group in judged]
    answers = [[rollout.completion for rollout in group.rollouts] for group in judged]
    summary = summarise([Scored.from_row(row) for row in judge(problems, prompts, answers, tokenizer)])
    whole = {f"probe/{NAMES.get(name, name)}": estimate.mean for name, estimate in summary.overall.items()}
    by_source = summary.by_source if len(summary.by_source) > 1 else {}
    return whole | {
        f"probe/accuracy/{source}": metrics["pass@1"].mean
        for source, metrics in by_source.items()
        if "pass@1" in metrics
    }


def reward_metrics(groups: Sequence[Group], specs: Sequence[RewardSpec]) -> dict[str, float]:
    """The mean of each reward over the answers that it applies to. An answer that it could not judge is left out of the
    mean and counted in `probe/unknown/LABEL`."""
    if not specs:
        return {}
    answers = [(group.problem.source, rollout.reward) for group in groups for rollout in group.rollouts]
    totals = [reward.total for _, reward in answers if reward.total is not None]
    row = {"probe/reward": fmean(totals)} if totals else {}
    for spec in specs:
        values = [reward.parts[spec.title] for source, reward in answers if spec.is_for(source)]
        known = [value for value in values if value is not None]
        row |= {f"probe/reward/{spec.title}": fmean(known)} if known else {}
        row |= {f"probe/unknown/{spec.title}": 1 - len(known) / len(values)} if values else {}
    return row
