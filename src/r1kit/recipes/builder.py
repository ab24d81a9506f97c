"""Builds the stages of a recipe: sizes come from a scale, ideas from the recipe, changes from the user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.collect.responses import ResponseSettings
from r1kit.pipeline import External, Kind, Output, Recipe, Stage
from r1kit.recipes.overlap import overlap_notes
from r1kit.recipes.rehearsal import REHEARSED, outline_inputs, rehearsal_sizes, smallest
from r1kit.recipes.scale import Scale, Sizes
from r1kit.settings import Settings, SettingsError, nearest
from r1kit.stages.evaluate import EVALUATE, EvaluateSettings
from r1kit.stages.rehearse import REHEARSE
from r1kit.stages.report import REPORT, NotedReportSettings, ReportSettings
from r1kit.stages.rl import RLSettings
from r1kit.stages.shared.given_conversations import GivenSettings
from r1kit.stages.shared.sources import model_input
from r1kit.tasks import TaskSpec

Model = Output | External


@dataclass(frozen=True)
class Part:
    """Part of a recipe: its stages in order, and the models to measure by their column in the report."""

    stages: tuple[Stage, ...]
    models: Mapping[str, Model]

    def __or__(self, other: Part) -> Part:
        return Part(self.stages + other.stages, {**self.models, **other.models})


class Builder:
    """`build("dev1", SFT, {"model": base, "data": rows}, sizes, objective=...)` is a stage.

    Settings come from three places, later ones winning: the scale's sizes, the recipe's keywords, the user's `--set`.
    A setting that is both a size and a keyword is an error. `measures` are sizes of evaluations that all models share,
    by name ("eval"); `overrides` are the user's `--set`, such as {"dev1.epochs": 3}. A rehearsal (`rehearse`)
    cuts all of them down, and its models are small random ones.

    Raises `SettingsError` for an unknown setting or an invalid value; `recipe()` raises it for a `--set` of an unknown
    stage.
    """

    def __init__(
        self,
        title: str,
        scale: Scale,
        measures: Mapping[str, Sizes],
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
        model: str | None = None,
        rehearse: bool = False,
    ) -> None:
        self.scale, self.seed, self.rehearse = scale, seed, rehearse
        self.planned = scale.planned and model is None
        self.light = rehearse or (scale.light and model is None)
        self.title = f"{title}, scale {scale.name}, {model or scale.model}, seed {seed}"
        self._rehearsals: dict[str, Stage] = {}
        self._overrides = dict(overrides or {})
        self._names: list[str] = []
        # Evaluations keep their own seed, so that runs with other seeds are measured by the same problems and samples.
        self.measures = {name: self._settings(name, EVALUATE, sizes) for name, sizes in measures.items()}
        self._held_out: tuple[TaskSpec, ...] = tuple(s for settings in self.measures.values() for s in settings.tasks)
        self.base = self.model(model or scale.model)

    def model(self, name: str) -> Model:
        """A model by name, as an input. A planned scale needs no more than the name; a rehearsal makes a small one."""
        if self.planned:
            return External.planned(name)
        if not self.rehearse:
            return model_input(name)
        if name not in self._rehearsals:
            stage = "rehearsal" if not self._rehearsals else f"rehearsal-{len(self._rehearsals) + 1}"
            self._rehearsals[name] = self(stage, REHEARSE, outline_inputs(name), rehearsal_sizes(self.scale))
        return self._rehearsals[name] / "model"

    def sets(self, path: str) -> bool:
        """Whether a `--set` names a setting or a field in it."""
        return any(f"{name}.".startswith(f"{path}.") for name in self._overrides)

    def __call__(
        self, name: str, kind: Kind, inputs: Mapping[str, Model], sizes: Mapping[str, Any], **ideas: Any
    ) -> Stage:
        """Build one stage; its seed is the run's.

        Stages with `evaluation_sets` get the evaluation tasks, so that generated rows too close to them are removed.
        """
        if both := sizes.keys() & ideas.keys():
            what = ", ".join(sorted(both))
            raise SettingsError(f"stage {name}: the recipe sets {what}, so a scale must not: remove it from the scale")
        if not isinstance(kind, Kind):
            expected = "a Kind, such as SFT or RL in r1kit.stages"
            raise SettingsError(f"stage {name}: {kind!r:.80} is not a kind of stage: expected {expected}")
        fields = kind.settings.model_fields
        held_out = Sizes(evaluation_sets=self._held_out) if "evaluation_sets" in fields and not self.planned else {}
        seed = Sizes(seed=self.seed) if "seed" in fields else {}
        settings = self._settings(name, kind, {**held_out, **sizes, **ideas, **seed})
        if isinstance(settings, ResponseSettings) and not settings.asks_input:
            inputs = {key: source for key, source in inputs.items() if key != "model"}
        return self._stage(name, kind, settings, inputs)

    def measure(self, models: Mapping[str, Model]) -> dict[str, Stage]:
        """Evaluations of all models.

        Keys are columns: `zero` for the measure `eval`, `everyday/zero` for the measure `everyday`. A `--set` of
        `eval-zero.chat` changes how this one model is asked, so that each can have the prompt that suits it best.
        """
        return {
            column if name == "eval" else f"{name}/{column}": self._stage(
                f"{name}-{column}", EVALUATE, self._of_one(f"{name}-{column}", settings), {"model": model}
            )
            for name, settings in self.measures.items()
            for column, model in models.items()
        }

    def recipe(self, name: str, stages: Sequence[Stage], tables: Mapping[str, Stage], *, teacher: str = "") -> Recipe:
        """All stages with their report.

        `tables` are the evaluations among them by name; students are compared with the column `teacher`.
        """
        if self._overrides:
            path = next(iter(self._overrides))
            stage, _, setting = path.partition(".")
            hint = nearest(stage, self._names, cutoff=0.7) if setting else "give STAGE.FIELD=VALUE"
            raise SettingsError(f"--set {path}: there is no stage {stage}: {hint}")
        refuse_peeking(stages, self._held_out)
        folders = dict(tables)
        folders |= {f"training/{stage.name}": stage for stage in stages if stage.kind.curves}
        # what the filters keep says nothing about a stage whose samples are all read
        read = [source for stage in stages for source in stage.inputs.values() if isinstance(source, Output)]
        unfiltered = {source.stage.name for source in read if source.path == "samples.jsonl"}
        folders |= {
            f"data/{stage.name}": stage for stage in stages if stage.kind.funnel and stage.name not in unfiltered
        }
        notes = (*self.scale.notes, *overlap_notes(stages, self._held_out))
        if self.rehearse:
            name, notes = f"{name}-rehearsal", (REHEARSED, *notes)
        about = {"title": self.title, "teacher": teacher}
        settings = NotedReportSettings(**about, notes=notes) if notes else ReportSettings(**about)
        report = Stage("report", REPORT, settings, {key: stage / "." for key, stage in folders.items()})
        return Recipe(name, (*stages, report), self.title, self.scale.lengths, self.light, notes=notes)

    def _of_one(self, name: str, shared: EvaluateSettings) -> EvaluateSettings:
        """The shared settings with the changes for one model. Raises `SettingsError` for other problems, because the
        columns of a report are compared problem by problem."""
        settings: EvaluateSettings = self._overridden(name, EVALUATE, shared)
        if settings.tasks != shared.tasks:
            measure = name.partition("-")[0]
            raise SettingsError(f"{name}.tasks: the same problems measure all models: set {measure}.tasks")
        return settings

    def _settings(self, name: str, kind: Kind, fields: Mapping[str, Any]) -> Any:
        return self._overridden(name, kind, kind.settings.parse(fields, prefix=name))

    def _overridden(self, name: str, kind: Kind, settings: Any) -> Any:
        self._names.append(name)
        prefix = f"{name}."
        changes = {
            path.removeprefix(prefix): value for path, value in self._overrides.items() if path.startswith(prefix)
        }
        for path in changes:
            del self._overrides[prefix + path]
        settings = settings.override(changes, prefix=name)
        return smallest(kind.name, settings) if self.rehearse else settings

    def _stage(self, name: str, kind: Kind, settings: Settings, inputs: Mapping[str, Model]) -> Stage:
        sources = {} if self.planned or kind.sources is None else kind.sources(settings)
        return Stage(name, kind, settings, {**inputs, **sources})


def refuse_peeking(stages: Sequence[Stage], held_out: Sequence[TaskSpec]) -> None:
    """Raise `SettingsError` if early stopping would choose weights by the problems that measure them."""
    measured = {_problem_set(spec) for spec in held_out}
    for stage in stages:
        settings = stage.settings
        if not isinstance(settings, RLSettings | GivenSettings) or not settings.patience:
            continue
        for spec in settings.probe.tasks:
            if _problem_set(spec) in measured:
                raise SettingsError(
                    f"stage {stage.name}: patience follows {spec.name}, split {spec.split or 'test'}, which also "
                    "measures the result: give probe.tasks another split or seed, or set patience to 0 to only watch"
                )


def _problem_set(spec: TaskSpec) -> tuple[str, str, int]:
    """The facts that decide a task's problems. Probes and evaluations use the split `test` by default."""
    return spec.name, spec.split or "test", spec.seed
