"""What recipes have in common: stages made from a scale's settings with the user's changes, measured and reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.collect.responses import ResponseSettings
from r1kit.pipeline import External, Kind, Output, Recipe, Stage
from r1kit.recipes.overrides import Overrides
from r1kit.recipes.r1_scales import R1Scale, r1_scale_of
from r1kit.recipes.sources import externals, model_input
from r1kit.settings import Settings, SettingsError
from r1kit.stages.data_requests import DATA_REQUESTS
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.generate import GenerateSettings
from r1kit.stages.report import REPORT, ReportSettings
from r1kit.stages.shared.probe import ProbeSettings
from r1kit.stages.tiny_requests import TINY_REQUESTS, TinyRequestsSettings
from r1kit.tasks import TaskSpec

MEASURED = ("eval", "everyday")  # settings that all models share; their seeds stay, so that all see the same
PLOTTED = ("rl", "sft", "distill", "reward-model", "pretrain")  # kinds with curves
MADE = ("generate", "review")  # kinds with a funnel
Model = Output | External


@dataclass(frozen=True)
class Made:
    """Part of a recipe: the models to measure, by column, and all of its stages by name."""

    models: Mapping[str, Model]
    stages: Mapping[str, Stage]

    def __or__(self, other: Made) -> Made:
        return Made({**self.models, **other.models}, {**self.stages, **other.stages})


class Boxes:
    """`box("dev1", SFT, model=base, data=rows)` is a stage with the scale's settings for `dev1`.

    `changes` are the user's, for stages of these settings and no others. Raises `SettingsError` for a scale or a
    setting that does not exist.
    """

    def __init__(
        self, recipe: str, scale: str, changes: Mapping[str, Any] | None, seed: int, model: str | None = None
    ) -> None:
        self.recipe, self.scale, self.seed = recipe, scale, seed
        self.size: R1Scale = r1_scale_of(recipe, scale)
        self.changes = Overrides(changes or {}, stages=tuple(self.size.settings))
        self.model = self.size.model if model is None else model

    @property
    def base(self) -> External:
        """The base model; of a scale that only can be planned, a name."""
        return self.external(self.model)

    def external(self, model: str) -> External:
        if self.size.planned and model in (self.size.model, self.size.student):
            return External.planned(model)
        return model_input(model)

    def __call__(self, name: str, kind: Kind, **inputs: Model) -> Stage:
        """A stage; where its settings name who is asked (`engine`) or ask nobody, it does not read the model given."""
        settings = self.settings(name)
        if isinstance(settings, ResponseSettings) and (settings.engine or settings.prompting == "reference"):
            inputs.pop("model", None)
        return Stage(name, kind, settings, {**inputs, **self._sources(settings)})

    def requests(self) -> Stage:
        """Files of general requests, preference pairs and safety labels: the tiny world's, or from the data folder."""
        settings = self.settings("requests")
        kind = TINY_REQUESTS if isinstance(settings, TinyRequestsSettings) else DATA_REQUESTS
        return Stage("requests", kind, settings, self.size.request_sources())

    def finish(self, made: Made, folder: str, teacher: str = "") -> Recipe:
        """Every model measured, and all of it reported; `teacher` is the column whose accuracy students keep."""
        refuse_peeking(made.stages.values(), self._measured_by())
        tables = {key: self._measured("eval", key, of) for key, of in made.models.items()}
        replies = {f"everyday/{key}": self._measured("everyday", key, of) for key, of in made.models.items()}
        curves = {f"training/{key}": stage for key, stage in made.stages.items() if stage.kind.name in PLOTTED}
        data = {f"data/{key}": stage for key, stage in made.stages.items() if stage.kind.name in MADE}
        shown = tables | replies | curves | data
        title = f"{self.recipe}, scale {self.scale}, {self.model}, seed {self.seed}"
        settings = ReportSettings(title=title, teacher=teacher)
        report = Stage("report", REPORT, settings, {key: stage / "." for key, stage in shown.items()})
        return Recipe(
            f"{folder}-{self.scale}", (*made.stages.values(), *tables.values(), *replies.values(), report), title
        )

    def settings(self, name: str) -> Settings:
        """A stage's settings: the scale's, with the run's seed and the user's changes.

        What data stages make is held against all that the run is measured by, unless they name other sets.
        """
        given = self.size.settings[name]
        if name not in MEASURED and "seed" in type(given).model_fields:
            given = given.replace(seed=self.seed)
        settings = self.changes.apply(name, given)
        if isinstance(settings, GenerateSettings) and not (settings.evaluation_sets or self.size.planned):
            settings = settings.replace(evaluation_sets=self._measured_by())
        return settings

    def _measured_by(self) -> tuple[TaskSpec, ...]:
        measuring: list[Any] = [self.settings(name) for name in MEASURED]
        return tuple(spec for one in measuring for spec in one.tasks)

    def _measured(self, settings: str, key: str, model: Model) -> Stage:
        how = self.settings(settings)
        return Stage(f"{settings}-{key}", EVALUATE, how, {"model": model, **self._sources(how)})

    def _sources(self, settings: Settings) -> dict[str, External]:
        if self.size.planned:
            return {}
        probe = getattr(settings, "probe", ProbeSettings())
        tasks, held_out = getattr(settings, "tasks", ()), getattr(settings, "evaluation_sets", ())
        rewards = getattr(settings, "rewards", ())
        return externals((*tasks, *probe.tasks, *held_out), (*rewards, *probe.rewards))


def refuse_peeking(stages: Iterable[Stage], measured: Sequence[TaskSpec]) -> None:
    """Raise `SettingsError` where early stopping would choose weights by the problems that they are measured by."""
    known = {_drawn(spec) for spec in measured}
    for stage in stages:
        probe = getattr(stage.settings, "probe", ProbeSettings())
        seen = next((spec for spec in probe.tasks if _drawn(spec) in known), None)
        patience: int = getattr(stage.settings, "patience", 0)
        if seen is not None and patience:
            raise SettingsError(
                f"stage {stage.name}: patience follows {seen.name}, split {_drawn(seen)[1]}, by which the run is "
                "measured at last: give probe.tasks another split or seed, or set patience to 0 to watch alone"
            )


def _drawn(spec: TaskSpec) -> tuple[str, str, int]:
    """What decides which problems there are; both probes and measurements take the split `test` by default."""
    return spec.name, spec.split or "test", spec.seed
