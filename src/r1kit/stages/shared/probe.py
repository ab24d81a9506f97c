"""Held-out tasks in the middle of training: what a loss or a reward does not show, answered by the weights as they are
and judged by verifiers and by rewards that training does not see."""

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
from r1kit.settings import NOT_HASHED, Settings, listed, nearest
from r1kit.stages.shared.fitting import Fitting
from r1kit.tasks import TaskSpec, load_tasks
from r1kit.types import Group, SamplingParams

NAMES = {"pass@1": "accuracy"}


class ProbeSettings(Settings):
    """Problems that are answered greedily at every validation; no tasks, no probe.

    Several tasks show whether one got better at the cost of another. `rewards` are held-out judges of the same answers:
    reward models trained on other pairs, generative judges, rules. `watch` is what early stopping follows: `accuracy`
    (the share of right answers), `reward` (the weighted sum) or `reward/LABEL`; "" is the stage's own choice.
    """

    tasks: tuple[TaskSpec, ...] = ()
    rewards: tuple[RewardSpec, ...] = ()
    max_tokens: int = Field(256, ge=1)
    max_rows: int = Field(128, ge=1, json_schema_extra=NOT_HASHED)
    watch: str = ""

    _lists = field_validator("tasks", "rewards", mode="before")(listed)

    @model_validator(mode="after")
    def _watches_something(self) -> ProbeSettings:
        if (self.watch or self.rewards) and not self.tasks:
            raise ValueError("watch and rewards look at the answers to the probe's tasks: name at least one task")
        known = ["accuracy", *(["reward"] if self.rewards else []), *(f"reward/{spec.title}" for spec in self.rewards)]
        if self.watch and self.watch not in known:
            raise ValueError(f"the probe has no {self.watch!r} to watch: {nearest(self.watch, known)}")
        return self


def with_models(specs: Sequence[RewardSpec], models: Mapping[str, Path]) -> tuple[RewardSpec, ...]:
    """The rewards; a reward model's folder becomes the option `model` of the `reward_model` of that label."""
    return tuple(
        spec.replace(options={**spec.options, "model": str(models[spec.title])})
        if spec.name == "reward_model" and spec.title in models
        else spec
        for spec in specs
    )


def refuse_unread(context: Context, specs: Sequence[RewardSpec]) -> None:
    """Raise ValueError for an input `reward/LABEL` that none of the stage's rewards reads."""
    unread = context.inputs("reward/").keys() - {spec.title for spec in specs if spec.name == "reward_model"}
    if unread:
        raise ValueError(
            f"stage {context.stage} has the input reward/{min(unread)}, and no reward reads it: give one of the name "
            f"reward_model with label {min(unread)!r}"
        )


def probe_of(context: Context) -> ProbeSettings:
    """The stage's probe, with the reward models that are its inputs."""
    probe: ProbeSettings = context.settings.probe
    return probe.replace(rewards=with_models(probe.rewards, context.inputs("reward/")))


def check_probe(context: Context, *, follows: bool = False) -> None:
    """Refuse a probe whose rewards, tasks or prompts cannot work, before any work starts.

    `follows`: early stopping follows its accuracy, for which a verifier must be able to judge some answer.
    """
    from r1kit.models.load import outline

    probe = probe_of(context)
    if not probe.tasks:
        return
    _scorer(probe)
    task, policy = load_tasks(probe.tasks, training=False), outline(str(context.input("model")))
    problems = Fitting(task, context.settings.chat, policy, max_tokens=probe.max_tokens).problems
    if not any(problem.verifier for problem in problems) and (follows or not probe.rewards):
        raise ValueError(
            f"no problem of the probe's task {task.name} has a reference, so accuracy cannot be measured: give "
            "probe.rewards and watch one of them, or a split with references"
        )


def _scorer(probe: ProbeSettings) -> Scorer:
    return build(probe.rewards) if probe.rewards else Scorer(())


def make_probe(probe: ProbeSettings, policy: Any, chat: ChatFormat) -> Callable[[], dict[str, float]]:
    """A measure: `probe/accuracy`, `probe/format`, ... over all tasks, `probe/accuracy/<source>` for each of several;
    `probe/reward`, the weighted sum, and `probe/reward/<label>` for each held-out judge."""
    from r1kit.rollout import rollout

    if not probe.tasks:
        return dict
    task = load_tasks(probe.tasks, training=False)
    problems = Fitting(task, chat, policy, max_tokens=probe.max_tokens).problems
    greedy = SamplingParams(temperature=0.0, max_tokens=probe.max_tokens)
    engine, scorer = open_policy_engine(DeviceSettings(max_rows=probe.max_rows), policy), _scorer(probe)

    def measure() -> dict[str, float]:
        groups = rollout(engine, problems, chat, scorer, greedy)
        found = verdicts(groups, chat, policy.tokenizer)
        if not probe.rewards and "probe/accuracy" not in found:
            raise ValueError("the verifier could tell right from wrong for no answer of the probe: see its tasks")
        return found | rewards(groups, probe.rewards)

    return measure


def verdicts(groups: Sequence[Group], chat: ChatFormat, tokenizer: Any) -> dict[str, float]:
    """What verifiers say of the answers to problems that have a reference, and how they read."""
    from r1kit.evaluate.measurement import judge
    from r1kit.evaluate.metrics import Scored
    from r1kit.evaluate.statistics import summarise

    judged = [group for group in groups if group.problem.verifier]
    if not judged:
        return {}
    problems = [group.problem for group in judged]
    answers = [[one.completion for one in group.rollouts] for group in judged]
    summary = summarise([Scored.from_row(row) for row in judge(problems, answers, chat, tokenizer)])
    whole = {f"probe/{NAMES.get(name, name)}": estimate.mean for name, estimate in summary.overall.items()}
    by_source = summary.by_source if len(summary.by_source) > 1 else {}
    return whole | {
        f"probe/accuracy/{source}": metrics["pass@1"].mean
        for source, metrics in by_source.items()
        if "pass@1" in metrics
    }


def rewards(groups: Sequence[Group], specs: Sequence[RewardSpec]) -> dict[str, float]:
    """Means of the held-out judges over the answers that they are for; an answer that one could not judge is left out
    of its mean and counted in `probe/unknown/<label>`."""
    if not specs:
        return {}
    answers = [(group.problem.source, one.reward) for group in groups for one in group.rollouts]
    totals = [reward.total for _, reward in answers if reward.total is not None]
    row = {"probe/reward": fmean(totals)} if totals else {}
    for spec in specs:
        given = [reward.parts[spec.title] for source, reward in answers if spec.is_for(source)]
        known = [value for value in given if value is not None]
        row |= {f"probe/reward/{spec.title}": fmean(known)} if known else {}
        row |= {f"probe/unknown/{spec.title}": 1 - len(known) / len(given)} if given else {}
    return row
