"""The objective of on-policy distillation: one teacher, or the teacher of each problem's domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1kit.data.tokens import TokenFile
from r1kit.models.batch import Batch, with_column
from r1kit.models.policy_net import AnyLoss
from r1kit.train.epoch_order import EpochOrder
from r1kit.train.learner import Learner
from r1kit.train.losses.on_policy import OnPolicyDivergence, OnPolicySettings, sampled_divergence
from r1kit.train.packing import pack, rank_share
from r1kit.train.rl.objective import LossBatches
from r1kit.train.rl.reference import Reference
from r1kit.train.teacher import ModelTeacher
from r1kit.types import Group, Sample


class GivenRows:
    """Rows of data that each step trains on beside its rollout: `count` of them, in the order of `EpochOrder`."""

    def __init__(self, rows: TokenFile, count: int, seed: int) -> None:
        self.rows, self.count = rows, count
        self.sources = [row["source"] for row in rows.rows()]
        self._order = EpochOrder("given", len(rows), seed)

    def at(self, step: int) -> list[Sample]:
        """The rows of a step, which depend on seed and step alone."""
        places = [self._order[position] for position in range(step * self.count, (step + 1) * self.count)]
        return [replace(self.rows[place], source=self.sources[place]) for place in places]


@dataclass(frozen=True)
class Teachers:
    """The teachers by name, and the name of the teacher for a problem's source."""

    models: Mapping[str, ModelTeacher]
    domains: Mapping[str, Sequence[str]]  # patterns of sources by name; empty with one teacher

    def name_for(self, source: str) -> str:
        """Raises ValueError unless exactly one teacher is for that source."""
        return teacher_for(source, list(self.models), self.domains)


def teacher_for(source: str, names: Sequence[str], domains: Mapping[str, Sequence[str]]) -> str:
    """The only name, or the one whose patterns match a source. Raises ValueError if none or several do."""
    from fnmatch import fnmatchcase

    if len(names) == 1 and not domains:
        return names[0]
    matching = [name for name in names if any(fnmatchcase(source, pattern) for pattern in domains.get(name, ()))]
    if len(matching) != 1:
        known = "; ".join(f"{name}: {', '.join(domains.get(name, ()))}" for name in names)
        number = "no teacher" if not matching else f"{len(matching)} teachers ({', '.join(matching)})"
        raise ValueError(f"problems of {source or 'no source'} have {number}: set domains, which are now {known}")
    return matching[0]


class DistillObjective:
    """The divergence from each sample's teacher. Rewards are reported, and nothing learns from them."""

    learns_from_rewards = False
    compares_groups = False
    prepares_ahead = False
    extra_rounds = 0
    chooses_tokens = False
    reference: Reference | None = None
    moving_reference = None

    def __init__(
        self,
        learner: Learner,
        settings: OnPolicySettings,
        teachers: Teachers,
        tokens_per_batch: int,
        given_rows: GivenRows | None = None,
    ) -> None:
        assert given_rows is None or settings.divergence != "sampled", "given rows have no log-probs of a sampler"
        self.learner, self.settings, self.teachers = learner, settings, teachers
        self.tokens_per_batch, self._given_rows = tokens_per_batch, given_rows
        self.longest_given = 0 if given_rows is None else max(given_rows.rows.lengths())
        for source in sorted(set(given_rows.sources)) if given_rows else ():
            teachers.name_for(source)  # raises now, not at the step that draws such a row
        self.state: dict[str, Any] = {}
        self.loss = self._loss_of(next(iter(teachers.models)), is_sampled=True)

    def advantages(self, groups: Sequence[Group]) -> list[list[float | None]]:
        return [[0.0 for _ in group.rollouts] for group in groups]  # every completion is trained on

    def given_samples(self, step: int) -> list[Sample]:
        return [] if self._given_rows is None else self._given_rows.at(step)

    def prepare(self, samples: Sequence[Sample]) -> list[LossBatches]:
        """A part for each teacher, and within it for samples of the student and for given ones."""
        groups: dict[tuple[str, bool], list[Sample]] = {}
        for sample in samples:
            is_sampled = bool(sample.logprobs)  # given rows have none
            groups.setdefault((self.teachers.name_for(sample.source), is_sampled), []).append(sample)
        return [
            LossBatches(self._loss_of(name, is_sampled), self._pack(name, members), [])
            for (name, is_sampled), members in sorted(groups.items())  # the order decides the last bits
        ]

    def measure(self, samples: Sequence[Sample]) -> list[LossBatches]:
        return [LossBatches(part.loss, [], part.batches) for part in self.prepare(samples)]

    def after_update(self, means: Mapping[str, float]) -> dict[str, float]:
        return {}

    def after_updates(self, before: int) -> None:
        """The teachers stay as they are."""

    def _loss_of(self, name: str, is_sampled: bool) -> AnyLoss:
        label = name if len(self.teachers.models) > 1 else ""
        if self.settings.divergence == "sampled":
            return sampled_divergence(label)
        return OnPolicyDivergence(self.settings, self.teachers.models[name], label, is_sampled)

    def _pack(self, name: str, samples: Sequence[Sample]) -> list[Batch]:
        batches = pack(rank_share(samples), self.tokens_per_batch, self.learner.model)
        if self.settings.divergence != "sampled":
            return batches
        model: Any = self.teachers.models[name].model
        return with_column(batches, "ref_logprobs", [self.learner.logprobs(batch, model) for batch in batches])
