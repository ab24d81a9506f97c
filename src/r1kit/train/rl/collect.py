"""Sampling of one step: problems in a seeded order, groups with their advantages, and the samples to train on."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

from r1kit import ranks
from r1kit.chat import ChatFormat
from r1kit.engines import EngineError, PolicyEngine
from r1kit.rewards.scorer import Scorer
from r1kit.rollout import TrainerState, over_ranks, rollout
from r1kit.tasks import Task
from r1kit.train.rl.loop_settings import RolloutSettings
from r1kit.train.rl.objective import Objective
from r1kit.types import Group, Problem, Reward, Rollout, Sample


class Draws:
    """Problems in an order that depends on the seed alone; each epoch visits all of them in a new order."""

    def __init__(self, task: Task, seed: int, position: int = 0) -> None:
        self.task, self.seed, self.position = task, seed, position
        self._epoch, self._order = -1, list[int]()

    def next(self, count: int) -> list[Problem]:
        problems = []
        for _ in range(count):
            epoch, place = divmod(self.position, len(self.task))
            if epoch != self._epoch:
                # the order depends on seed and epoch alone, so a resumed run needs only the position
                self._epoch, self._order = epoch, list(range(len(self.task)))
                random.Random(f"draws/{self.seed}/{epoch}").shuffle(self._order)
            problems.append(self.task[self._order[place]])
            self.position += 1
        return problems


@dataclass(frozen=True)
class ScoredGroup:
    """A group and one advantage per rollout; None leaves the rollout out of training."""

    group: Group
    advantages: Sequence[float | None]

    def samples(self, *, skip_truncated: bool) -> tuple[list[Sample], list[Sample]]:
        """The rollouts to train on, and the truncated ones that are left out."""
        trained, left_out = list[Sample](), list[Sample]()
        for member, advantage in zip(self.group.rollouts, self.advantages, strict=True):
            if advantage is not None:
                is_left_out = skip_truncated and member.completion.finish_reason == "length"
                sample = to_sample(member, advantage, self.group.problem.source)
                (left_out if is_left_out else trained).append(sample)
        return trained, left_out


@dataclass(frozen=True)
class Collected:
    """All groups of a step (for metrics and log), the samples to train on, and the truncated ones that are left out."""

    scored: list[ScoredGroup]
    samples: list[Sample]
    left_out: list[Sample]
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
    columns: frozenset[str] = frozenset()  # of all problems of the task: those of a step may lack some

    def __call__(self, step: int, draws: Draws) -> Collected:
        """Sample `prompts_per_step` groups.

        With dynamic sampling (DAPO section 3.2), further rounds replace groups of equal rewards until the step is full
        or the rounds are used up.
        """
        settings, groups = self.settings, list[Group]()
        logged: dict[str, list[tuple[int, float]]] = {}  # the round and the value of each call
        scored_in = Counter[int]()  # completions that this rank scored, by round
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

        # only groups that vary count, but all are kept for metrics and log
        missing = settings.prompts_per_step
        for extra_round in range(self.objective.extra_rounds + 1):
            params = settings.sampling(step, extra_round)
            groups_of = partial(
                rollout,
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
        return self.arranged(groups, reported, reward_seconds)

    def arranged(self, groups: list[Group], reported: dict[str, float], reward_seconds: float) -> Collected:
        """The groups of a step with their advantages, as samples."""
        settings = self.settings
        kept = [group for group in groups if varies(group)] if self.objective.extra_rounds else groups
        trained = [ScoredGroup(*pair) for pair in zip(kept, self.objective.advantages(kept), strict=True)]
        pairs = [entry.samples(skip_truncated=settings.truncated == "skip") for entry in trained]
        samples, left_out = ([sample for pair in pairs for sample in pair[side]] for side in (0, 1))
        known = {id(entry.group): entry for entry in trained}
        scored = [known.get(id(group)) or ScoredGroup(group, [None] * len(group.rollouts)) for group in groups]
        return Collected(scored, samples, left_out, reported, reward_seconds)


def _means_over_ranks(parts: Sequence[tuple[dict[str, list[tuple[int, float]]], Counter[int]]]) -> dict[str, float]:
    """The means of logged values over calls; ranks that share a round weigh by the completions that they scored."""
    totals = sum((scored_in for _, scored_in in parts), Counter[int]())
    merged: dict[str, list[tuple[float, float]]] = {}  # values with their weights
    for logged, scored_in in parts:
        for name, calls in logged.items():
            weighted = [(value, scored_in[number] / totals[number]) for number, value in calls]
            merged.setdefault(name, []).extend(weighted)
    return {name: fmean(*zip(*pairs, strict=True)) for name, pairs in merged.items()}


def reward_totals(group: Group) -> list[float | None]:
    return [member.reward.total for member in group.rollouts]


def varies(group: Group) -> bool:
    """Whether the rewards differ. Otherwise a baseline of the group leaves no gradient."""
    return len({total for total in reward_totals(group) if total is not None}) > 1


def require_version(groups: Sequence[Group], version: int) -> None:
    """Raise `EngineError` unless the weights of that version sampled every completion."""
    versions = {member.completion.policy_version for group in groups for member in group.rollouts}
    if wrong := sorted(versions - {version}):
        raise EngineError(
            f"completions come from the weights after update {wrong[0]}, expected {version}: the engine did not take "
            "the weights that it was given"
        )


def require_masks(groups: Sequence[Group]) -> None:
    """Raise `EngineError` unless each token of each completion has a sampling mask.

    Training over the whole vocabulary would be biased: the ratio would compare other distributions.
    """
    completions = [member.completion for group in groups for member in group.rollouts]
    if any(len(each.sampling_mask) != len(each.token_ids) for each in completions):
        raise EngineError(
            "the engine does not say which ids top_p and top_k left (Completion.sampling_mask), and training needs "
            "them: set top_p to 1 and top_k to 0"
        )


def require_routing(groups: Sequence[Group]) -> None:
    """Raise `EngineError` unless each token that a model read has its experts."""
    for member in (member for group in groups for member in group.rollouts):
        tokens = len(member.prompt.token_ids) + len(member.completion.token_ids) - 1
        if len(member.completion.routing) != tokens:
            raise EngineError(
                "the engine does not say to which experts each token went (Completion.routing), and training needs "
                "them: set routing_replay to false"
            )


def to_sample(rollout: Rollout, advantage: float, source: str = "") -> Sample:
    """Prompt and completion ids exactly as they were sampled: nothing is decoded and encoded again."""
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
