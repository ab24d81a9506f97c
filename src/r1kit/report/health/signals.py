"""The verdict on a stage, and the courses of its metrics that decide it, each computed once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from r1kit.chat import TAGS
from r1kit.data.jsonl import read_rows
from r1kit.evaluate.statistics import Difference
from r1kit.numeric import is_number
from r1kit.report.folders import Row, StageFolder
from r1kit.report.health.course import Course, course
from r1kit.report.mask_pictures import FILE
from r1kit.report.metrics import Metrics
from r1kit.store import read_json

VERIFIED = {"accuracy", "cosine_scaled", "code"}  # rewards that pay for right answers

Name = Literal["healthy", "hacking", "collapsed", "starved", "mismatched", "leaking", "too early to tell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`evidence` has the two or three figures that decide; `remedy` says what to change, and is empty if nothing."""

    name: Name
    evidence: tuple[str, ...]
    remedy: str = ""

    @property
    def is_fault(self) -> bool:
        return self.name not in ("healthy", "too early to tell")


@dataclass(frozen=True)
class Signals:
    """What a stage logged, the paired changes that it made on held-out problems, and the evaluations of its model."""

    stage: StageFolder
    differences: Mapping[str, Difference] = field(default_factory=dict)
    evaluations: Sequence[StageFolder] = ()

    @property
    def metrics(self) -> Metrics:
        return self.stage.metrics

    @cached_property
    def steps(self) -> int:
        """Without step 0, which holds no more than the measures before training."""
        return sum(step > 0 for step in self.metrics.steps)

    def __getitem__(self, metric: str) -> Course | None:
        return course(self.metrics, metric)

    @cached_property
    def reward(self) -> Course | None:
        return self["reward/mean"]

    @cached_property
    def accuracy(self) -> Course | None:
        """Of the completions in training."""
        return self["reward/accuracy"]

    @cached_property
    def watched(self) -> str:
        """The held-out score that the stage's probe follows."""
        probe = self.stage.settings.get("probe")
        return (probe.get("watch") if isinstance(probe, Mapping) else None) or "accuracy"

    @cached_property
    def held_out(self) -> Course | None:
        return self[f"probe/{self.watched}"]

    @cached_property
    def pays_for_accuracy(self) -> bool:
        """Whether right answers are a part of the training reward, and not only watched (weight 0)."""
        rewards = self.stage.settings.get("rewards")
        specs = [spec for spec in rewards if isinstance(spec, Mapping)] if isinstance(rewards, list) else []
        return not specs or any(
            spec.get("weight", 1.0) for spec in specs if VERIFIED & {spec.get("name"), spec.get("label")}
        )

    @cached_property
    def zero_variance(self) -> Course | None:
        return self["groups/zero_variance"]

    @cached_property
    def is_solved(self) -> bool:
        """Groups are equal because they are right: nine of ten answers, or without verdicts a reward that rose."""
        if self.accuracy:
            return self.accuracy.last > 0.9
        return self.reward is not None and self.reward.rose

    @property
    def is_rewarded(self) -> bool:
        """The training reward rose, and stayed near its peak."""
        return self.reward is not None and self.reward.rose and not self.reward.fell(0.1)

    @cached_property
    def unstopped(self) -> float:
        """The share of cut-off completions that had finished their answer before: only the end token was missing.

        From the last rollouts, and from the evaluations of the stage's model; 0 if nothing was cut off.
        """
        rollouts: Iterable[Row] = read_rows(self.stage.rollouts[-1]) if self.stage.rollouts else ()
        texts = [row.get("completion") for row in rollouts if row.get("finish_reason") == "length"]
        for evaluation in self.evaluations:
            texts += [row.get("completion") for row in evaluation.completions if row.get("truncated")]
        finished = [TAGS[-1] in text for text in texts if isinstance(text, str)]
        return sum(finished) / len(finished) if finished else 0.0

    @cached_property
    def dropped(self) -> tuple[float, float]:
        """Rows or prompts that were left out because they are too long, and those that were there."""
        metrics = self.stage.manifest.get("metrics")
        facts: Mapping[str, Any] = metrics if isinstance(metrics, Mapping) else {}
        for left_out, kept in (("prompts_left_out", "problems"), ("dropped", "samples")):
            if is_number(facts.get(left_out)) and is_number(facts.get(kept)):
                return facts[left_out], facts[left_out] + facts[kept]
        return 0, 0

    @cached_property
    def end_is_trained(self) -> bool:
        """Whether the last token of some sample in mask.json is trained on; also true without that file."""
        path = self.stage.folder / FILE
        samples = read_json(path) if path.exists() else []
        return not samples or any(sample["pieces"][-1][1] for sample in samples)
