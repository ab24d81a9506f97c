"""Sampling of one step: problems in a seeded order, groups with their advantages, and the samples to train on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress
from statistics import fmean
from typing import Any

from r1kit import ranks
from r1kit.chat import ChatFormat
from r1kit.engines import EngineError, PolicyEngine
from r1kit.rewards.scorer import Scorer
from r1kit.rollout import TrainerState, over_ranks, roll_out
from r1kit.tasks import Task
from r1kit.train.epoch_order import EpochOrder
from r1kit.train.rl.loop_settings import RolloutSettings
from r1kit.train.rl.objective import Objective
from r1kit.types import Group, Problem, Reward, Rollout, Sample


class Draws:
    """The problems of a task one after another, in the order of `EpochOrder`; `position` is that of the next one."""

    def __init__(self, task: Task, seed: int, position: int = 0) -> None:
        self.task, self.position = task, position
        self._order = EpochOrder("draws", len(task), seed)

    def next(self, count: int) -> list[Problem]:
        """The next `count` problems. Each epoch visits all of them once."""
        first, self.position = self.position, self.position + count
        return [self.task[self._order[position]] for position in range(first, self.position)]


@dataclass(frozen=True)
class ScoredGroup:
    """A group and one advantage per rollout; None leaves the rollout out of training."""

    group: Group
    advantages: Sequence[float | None]

    def samples(self, *, skip_truncated: bool) -> tuple[list[Sample], list[Sample]]:
        """The rollouts to train on, and the truncated ones that `skip_truncated` leaves out."""
        trained, left_out = list[Sample](), list[Sample]()
        for rollout, advantage in zip(self.group.rollouts, self.advantages, strict=True):
            if advantage is not None:
                is_left_out = skip_truncated and rollout.completion.finish_reason == "length"
                sample = to_sample(rollout, advantage, self.group.problem.source)
                (left_out if is_left_out else trained).append(sample)
        return trained, left_out


@dataclass(frozen=True)
class Collected:
    """A step's completions, scored: every group for metrics and log, and the samples that the step trains on."""

    scored: list[ScoredGroup]
    samples: list[Sample]
    left_out: list[Sample]  # truncated completions, if they are not trained on
    reported: dict[str, float]  # metrics that reward functions logged, as means over their calls
    reward_seconds: float  # for which sampling and training waited for rewards

    @property
    def groups(self) -> list[Group]:
        return [entry.group for entry in self.scored]


@dataclass(frozen=True)
class Collector:
    """Samples and scores the completions of a step."""

    engine: PolicyEngine
    chat: ChatFormat
    scorer: Scorer
    objective: Objective
    settings: RolloutSettings
    columns: frozenset[str] = frozenset()  # that any problem of the task has; those drawn at a step may lack some

    def __call__(self, step: int, draws: Draws) -> Collected:
        """Sample `prompts_per_step` groups.

        With dynamic sampling (DAPO section 3.2), further rounds replace groups of equal rewards until the step is full
        or the rounds are used up.
        """
        settings, groups = self.settings, list[Group]()
        logged: dict[str, list[tuple[int, float]]] = {}  # by metric: the round and the value of each call
        scored_in = Counter[int]()  # by round: the completions that this rank scored
        reward_seconds = 0.0

        def score(*completions: Any, **columns: Any) -> list[Reward]:
            nonlocal reward_seconds
            scored_in[extra_round] += len(completions[0])
            started = time.perf_counter()
            rewards = self.scorer(*completions, **columns)
            reward_seconds += time.perf_counter() - started
            return rewards

        def log_metric(name: str, value: float) -> None:
            logged.setdefault(name, []).append((extra_round, float(value)))

        # only groups of differing rewards count towards the step, but all are kept for metrics and log
        missing = settings.prompts_per_step
        for extra_round in range(self.objective.extra_rounds + 1):
            params = settings.sampling(step, extra_round)
            groups_of = partial(
                roll_out,
                self.engine,
                chat=self.chat,
                scorer=score,
                params=params,
                log_metric=log_metric,
                trainer_state=TrainerState(global_step=step, max_steps=settings.steps),
                names=self.columns,
            )
            groups += over_ranks(draws.next(missing), groups_of)
            if params.sampling_mask:
                require_masks(groups)
            if params.routing:
                require_routing(groups)
            missing = settings.prompts_per_step - sum(map(varies, groups))
            if missing <= 0:
                break
        reported = _means_over_ranks(ranks.gather((logged, scored_in)))
        return self.with_advantages(groups, reported, reward_seconds)

    def with_advantages(self, groups: Sequence[Group], reported: dict[str, float], reward_seconds: float) -> Collected:
        """The scored groups of a step with their advantages, and the samples that follow from them."""
        # with dynamic sampling, groups of equal rewards are replaced, so they must not enter `whiten` either
        is_kept = [not self.objective.extra_rounds or varies(group) for group in groups]
        advantages = iter(self.objective.advantages(list(compress(groups, is_kept))))
        scored, samples, left_out = list[ScoredGroup](), list[Sample](), list[Sample]()
        for group, kept in zip(groups, is_kept, strict=True):
            scored.append(ScoredGroup(group, next(advantages) if kept else [None] * len(group.rollouts)))
            own_samples, own_left_out = scored[-1].samples(skip_truncated=self.settings.truncated == "skip")
            samples += own_samples
            left_out += own_left_out
        return Collected(scored, samples, left_out, reported, reward_seconds)


def _means_over_ranks(parts: Sequence[tuple[dict[str, list[tuple[int, float]]], Counter[int]]]) -> dict[str, float]:
    """The means of logged values over calls; `parts` are each rank's values and the completions it scored by round.

    Ranks that share a round weigh by the completions that they scored, so the mean does not depend on their number.
    """
    totals = sum((scored_in for _, scored_in in parts), Counter[int]())
    merged: dict[str, list[tuple[float, float]]] = {}  # values with their weights
    for logged, scored_in in parts:
        for name, calls in logged.items():
            weighted = [(value, scored_in[number] / totals[number]) for number, value in calls]
            merged.setdefault(name, []).extend(weighted)
    return {name: fmean(*zip(*pairs, strict=True)) for name, pairs in merged.items()}


def reward_totals(group: Group) -> list[float | None]:
    """The weighted reward of each rollout; None if nothing could judge it."""
    return [rollout.reward.total for rollout in group.rollouts]


def varies(group: Group) -> bool:
    """Whether the known rewards of a group differ; if not, a baseline of the group leaves no gradient."""
    return len({total for total in reward_totals(group) if total is not None}) > 1


def require_version(groups: Sequence[Group], version: int) -> None:
    """Raise `EngineError` unless the weights of that version sampled every completion."""
    versions = {rollout.completion.policy_version for group in groups for rollout in group.rollouts}
    if wrong := sorted(versions - {version}):
        raise EngineError(
            f"completions come from the weights after update {wrong[0]}, expected {version}: the engine did not take "
            "the weights that it was given"
        )


def require_masks(groups: Sequence[Group]) -> None:
    """Raise `EngineError` unless each token of each completion has a sampling mask.

    Without masks the learner's log-probs are over the whole vocabulary and the sampler's over a part of it, so the
    ratio between them would be biased.
    """
    completions = [rollout.completion for group in groups for rollout in group.rollouts]
    if any(len(each.sampling_mask) != len(each.token_ids) for each in completions):
        raise EngineError(
            "the engine does not say which ids top_p and top_k left (Completion.sampling_mask), and training needs "
            "them: set top_p to 1 and top_k to 0"
        )


def require_routing(groups: Sequence[Group]) -> None:
    """Raise `EngineError` unless each token that the model read has its experts."""
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        # the model never read the last token that it sampled
        num_read = len(rollout.prompt.token_ids) + len(rollout.completion.token_ids) - 1
        if len(rollout.completion.routing) != num_read:
            raise EngineError(
                "the engine does not say to which experts each token went (Completion.routing), and training needs "
                "them: set routing_replay to false"
            )


def to_sample(rollout: Rollout, advantage: float, source: str = "") -> Sample:
    """A rollout as one sequence with the exact ids that were sampled.

    Nothing is decoded and encoded again: other ids could have the same text, and other log-probs.
    """
    prompt, completion = rollout.prompt.token_ids, rollout.completion
    assert len(completion.token_ids) == len(completion.logprobs), "training needs one log-prob per sampled token"
    zeros = (0.0,) * len(prompt)
    return Sample(  # each sequence: prompt, then completion
        token_ids=(*prompt, *completion.token_ids),
        loss_mask=(False,) * len(prompt) + (True,) * len(completion.token_ids),
        sampling_mask=((),) * len(prompt) + tuple(completion.sampling_mask) if completion.sampling_mask else (),
        routing=(*completion.routing, ()) if completion.routing else (),
        logprobs=(*zeros, *completion.logprobs),
        advantages=zeros + (advantage,) * len(completion.token_ids),  # one advantage for all tokens (R1 equation 1)
        source=source,
    )
