"""A run as the report sees it: its stages and every table made from them, each computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from r1kit.data.jsonl import read_rows
from r1kit.evaluate.gain import GainSplit
from r1kit.evaluate.statistics import Difference, Estimate
from r1kit.evaluate.verifier_error import ErrorRates, corrected_accuracy
from r1kit.report.compare import Comparison, column_of, comparisons, until
from r1kit.report.folders import Row, Source, StageFolder, find_stages, inputs_of, last_report
from r1kit.report.funnels import funnel
from r1kit.report.gains import Controls, gain_splits
from r1kit.report.health import Check, Verdict, checks, run_verdict, verdict
from r1kit.report.stage_table import StageTable, stage_table


@dataclass(frozen=True)
class Run:
    """Stages in the order shown. `teacher` is the column whose accuracy the columns after it are compared with; `notes`
    are shown under the title. `controls`: for a trained model's evaluation, those of its base, of the base on fresh
    problems, and of its control arms, which are in no other table."""

    stages: Sequence[StageFolder]
    title: str
    teacher: str = ""
    notes: Sequence[str] = ()
    controls: Controls = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        source: Source,
        title: str = "",
        teacher: str = "",
        notes: Sequence[str] = (),
        controls: Controls | None = None,
        *,
        beyond_report: bool = False,
    ) -> Run:
        """Find the stages of `source` (see `find_stages`); the others default to those of the run's last report."""
        stages = find_stages(source, beyond_report=beyond_report)
        report = last_report(source)
        settings = report.settings if report else {}
        name = Path(source).name if isinstance(source, str | Path) else "run"
        title, teacher = title or settings.get("title") or name, teacher or settings.get("teacher", "")
        return cls(stages, title, teacher, notes or settings.get("notes", ()), controls or settings.get("controls", {}))

    @cached_property
    def comparisons(self) -> list[Comparison]:
        columns = {name for arms in self.controls.values() for role, name in arms.items() if role != "base"}
        return comparisons([stage for stage in self.stages if stage.name not in columns])

    @cached_property
    def gains(self) -> dict[str, GainSplit]:
        """The gains of models with control arms, split into their causes."""
        return gain_splits(self.stages, self.controls)

    @cached_property
    def error_rates(self) -> ErrorRates | None:
        """The verifier's error rates by the audits of all RL stages; None if no audit found an error."""
        right = count = 0
        disagreements = list[Row]()
        for stage in self.rl_stages:
            rights, counts = (dict(stage.metrics.series(f"audit/{name}")) for name in ("right", "count"))
            steps = rights.keys() & counts.keys()
            right += round(sum(rights[step] for step in steps))
            count += round(sum(counts[step] for step in steps))
            # a step writes its disagreements before it trains, and its metrics after that
            rows = read_rows(stage.folder / "audit.jsonl", missing_ok=True)
            disagreements += [row for row in rows if row["step"] in steps]
        rates = ErrorRates.of_audit(right, count - right, disagreements)
        return rates if rates and rates.false_positives + rates.false_negatives else None

    @cached_property
    def corrected(self) -> dict[str, Estimate]:
        """The accuracy of each model of the main comparison, corrected for these errors."""
        rates, stages = self.error_rates, self.main.stages if self.main else ()
        if rates is None or rates.are_hopeless:
            return {}
        return {column_of(stage): corrected_accuracy(stage.scored, rates) for stage in stages if stage.scored}

    @cached_property
    def main(self) -> Comparison | None:
        """The largest comparison up to the teacher: the students' answers are not the run's result."""
        return until(self.comparisons[0], self.teacher) if self.comparisons else None

    @cached_property
    def stage_table(self) -> StageTable | None:
        return stage_table(self.comparisons, self.teacher)

    @cached_property
    def funnels(self) -> dict[str, dict[str, Any]]:
        """By stage, for stages that made data."""
        return {stage.name: data for stage in self.stages if (data := funnel(stage))}

    @cached_property
    def rl_stages(self) -> list[StageFolder]:
        """Without control arms: what looks like a fault is what they are for."""
        return [stage for stage in self.stages if stage.kind == "rl" and stage.metrics and not self._is_arm(stage)]

    def _is_arm(self, stage: StageFolder) -> bool:
        """Whether the stage is a control arm: it says so, or the report says that it trained the model of one."""
        arms = {name for arms in self.controls.values() for role, name in arms.items() if role not in ("base", "fresh")}
        is_named = stage.settings.get("is_control") is True
        return is_named or any(inputs_of(it).get("model") == stage.folder.name for it in self.stages if it.name in arms)

    @cached_property
    def health(self) -> dict[str, list[Check]]:
        """The checks of each RL stage."""
        return {stage.name: checks(stage, self._differences(stage)) for stage in self.rl_stages}

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """The verdict on each stage that trains."""
        evaluations: dict[str, list[StageFolder]] = {}
        for stage in self.stages:
            if stage.kind == "evaluate":
                evaluations.setdefault(inputs_of(stage).get("model", ""), []).append(stage)
        return {
            stage.name: verdict(stage, self._differences(stage), evaluations.get(stage.folder.name, ()))
            for stage in self.stages
            if stage.metrics and not self._is_arm(stage)
        }

    @cached_property
    def verdict(self) -> tuple[str, Verdict] | None:
        """The stage that decides the run's verdict, with its verdict; None if no stage trains."""
        return run_verdict(self.verdicts)

    def _differences(self, stage: StageFolder) -> Mapping[str, Difference]:
        """The held-out change to the stage's own column, or the run's only difference."""
        changes = self.comparisons[0].changes if self.comparisons else ()
        only = self.comparisons[0].differences if self.comparisons and not changes else {}
        return {change.after: change.differences for change in changes}.get(column_of(stage), only)
