"""Control arms: an RL stage again with a reward or answers that cannot teach it to solve problems.

An arm is the stage of the recipe with other rewards or tasks; steps, prompts, seeds and algorithm stay. It is measured
like the trained model, and the report splits the gain (docs/guides/controls.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from r1kit.pipeline import Output, Recipe, Stage
from r1kit.rewards import RewardSpec
from r1kit.settings import SettingsError, nearest
from r1kit.stages.evaluate import EVALUATE, EvaluateSettings
from r1kit.stages.report import REPORT, ControlledReportSettings
from r1kit.stages.rl import RL, RLSettings
from r1kit.tasks import TaskSpec
from r1kit.tasks.sources.shuffled import PREFIX

ARMS = ("random", "format", "shuffled", "majority")
FORMATS = ("format", "tag_count")
# Rewards for form and length: they never see whether an answer is right.
FORM = (
    *FORMATS,
    *("reasoning_steps", "repetition_penalty", "language_consistency", "graded_language", "soft_overlong"),
)
DEFAULT_STAGE = "zero"  # of several RL stages
FRESH = "fresh"  # problems of the training tasks, which no test set can have leaked
MOST_FRESH = 500  # of a set without a limit
KINDRED = ("order", "calculations", "verifier", "language", "options")  # settings that change how hard problems are
ENDINGS = ("", ".engine", ".module")  # of the inputs with a reward's code


@dataclass(frozen=True)
class Measured:
    """An evaluation of a model, and the same evaluation of the model from which RL started; with their names in the
    report. `is_new`: the recipe does not have the second one."""

    name: str
    trained: Stage
    base_name: str
    base: Stage
    is_new: bool

    @property
    def settings(self) -> EvaluateSettings:
        assert isinstance(self.trained.settings, EvaluateSettings)
        return self.trained.settings


def with_controls(recipe: Recipe, controls: Sequence[str]) -> Recipe:
    """The recipe with control arms: each of `controls` is an arm of `ARMS`, or STAGE:ARM.

    Raises `SettingsError` for an unknown arm or stage, if several stages could be meant, and for a stage whose model
    the recipe does not measure.
    """
    chosen: dict[str, list[str]] = {}
    for control in controls:
        name, colon, arm = control.rpartition(":")
        if arm not in ARMS:
            raise SettingsError(f"there is no control {arm!r}: {nearest(arm, ARMS)}")
        stage = rl_stage(recipe, name if colon else "").name
        if arm not in chosen.setdefault(stage, []):
            chosen[stage].append(arm)
    for name, arms in chosen.items():
        recipe = _controlled(recipe, rl_stage(recipe, name), arms)
    return recipe


def rl_stage(recipe: Recipe, name: str) -> Stage:
    """The RL stage of that name. Without one, `zero` or the only RL stage, among those whose models are measured."""
    stages = {stage.name: stage for stage in recipe.stages if stage.kind.name == RL.name}
    if name:
        if name not in stages:
            raise SettingsError(f"controls: there is no RL stage {name!r}: {nearest(name, stages)}")
        return stages[name]
    models = [stage.inputs["model"] for stage in recipe.stages if stage.kind.name == EVALUATE.name]
    if len(stages) > 1:
        stages = {name: stage for name, stage in stages.items() if stage / "model" in models}
    if len(stages) == 1 or DEFAULT_STAGE in stages:
        return stages.get(DEFAULT_STAGE) or next(iter(stages.values()))
    known = ", ".join(stages) or "none"
    raise SettingsError(f"controls: recipe {recipe.name} measures the RL stages {known}: name one, as in STAGE:random")


def _controlled(recipe: Recipe, trained: Stage, arms: Sequence[str]) -> Recipe:
    """The recipe with arms of one stage, their evaluations, and a report that compares them."""
    report = recipe.stages[-1]
    measured = _measured(recipe, trained, report)
    added, inputs = list[Stage](), dict(report.inputs)
    controls: dict[str, dict[str, str]] = {each.name: {"base": each.base_name} for each in measured}
    for each in measured:
        if each.is_new:
            added.append(each.base)
            inputs[each.base_name] = each.base / "."
        if tasks := fresh_tasks(rl_settings(trained), each.settings):
            files = {name: source for name, source in trained.inputs.items() if name.startswith("task/")}
            settings = each.settings.replace(tasks=tasks)
            inputs_of_fresh = {"model": each.base.inputs["model"], **files}
            fresh = Stage(f"{each.base.name}-{FRESH}", EVALUATE, settings, inputs_of_fresh)
            added.append(fresh)
            controls[each.name][FRESH] = f"{each.base_name}-{FRESH}"
            inputs[controls[each.name][FRESH]] = fresh / "."
    for arm in arms:
        stage = control_arm(trained, arm)
        added.append(stage)
        inputs[f"training/{stage.name}"] = stage / "."
        for each in measured:
            evaluation = replace(
                each.trained,
                name=f"{each.trained.name}-{arm}",
                inputs={**each.trained.inputs, "model": stage / "model"},
            )
            added.append(evaluation)
            controls[each.name][arm] = f"{each.name}-{arm}"
            inputs[controls[each.name][arm]] = evaluation / "."
    about: dict[str, Any] = report.settings.model_dump()
    about["controls"] = {**about.get("controls", {}), **controls}
    last = Stage(report.name, REPORT, ControlledReportSettings(**about), inputs)
    lengths = dict(recipe.lengths)
    if trained.name in lengths:
        lengths |= {f"{trained.name}-{arm}": lengths[trained.name] for arm in arms}
    return replace(recipe, stages=(*recipe.stages[:-1], *added, last), lengths=lengths)


def _measured(recipe: Recipe, trained: Stage, report: Stage) -> list[Measured]:
    """The evaluations of the stage's model, each with that of the model it was trained from."""
    if report.kind.name != REPORT.name:
        raise SettingsError(f"controls: recipe {recipe.name} ends with {report.name}, not with a report to show them")
    names = {source.stage.name: name for name, source in report.inputs.items() if isinstance(source, Output)}
    evaluations = [stage for stage in recipe.stages if stage.kind.name == EVALUATE.name and stage.name in names]
    measured = []
    for stage in evaluations:
        if stage.inputs["model"] != trained / "model":
            continue
        base = trained.inputs["model"]
        others = [it for it in evaluations if it.inputs["model"] == base and it.settings == stage.settings]
        before = (
            others[0] if others else replace(stage, name=f"{stage.name}-base", inputs={**stage.inputs, "model": base})
        )
        name = names[stage.name]
        measured.append(Measured(name, stage, names.get(before.name, f"{name}-base"), before, not others))
    if not measured:
        raise SettingsError(
            f"controls: recipe {recipe.name} does not measure the model of stage {trained.name}: choose a stage that "
            "it measures, or give the recipe problems to measure by (--data eval=...)"
        )
    return measured


def control_arm(trained: Stage, arm: str) -> Stage:
    """The stage with the rewards or tasks of an arm, and without inputs of rewards that it does not have."""
    before = rl_settings(trained)
    settings = arm_settings(before, arm).replace(is_control=True)
    titles = {spec.title for spec in (*settings.rewards, *settings.probe.rewards)}
    unread = {spec.title for spec in before.rewards} - titles
    dropped = {f"{kind}/{title}{ending}" for kind in ("code", "reward") for title in unread for ending in ENDINGS}
    inputs = {name: source for name, source in trained.inputs.items() if name not in dropped}
    return Stage(f"{trained.name}-{arm}", RL, settings, inputs)


def rl_settings(stage: Stage) -> RLSettings:
    assert isinstance(stage.settings, RLSettings)
    return stage.settings


def arm_settings(settings: RLSettings, arm: str) -> RLSettings:
    """The settings of an RL stage with the rewards or tasks of an arm.

    Accuracy by the right answers stays in the curves, with weight 0; `shuffled` has no right answers to judge by.
    """
    if arm == "shuffled":
        return settings.replace(tasks=tuple(spec.replace(name=PREFIX + spec.name) for spec in settings.tasks))
    form = tuple(spec for spec in settings.rewards if spec.name in FORM)
    judged = tuple(spec for spec in settings.rewards if spec.name not in FORM)
    watched = tuple(spec.replace(weight=0.0) for spec in judged if spec.name == "accuracy")
    if arm == "random":
        return settings.replace(rewards=(RewardSpec(name="random", options={"seed": settings.seed}), *watched))
    if arm == "format":
        formats = () if any(spec.name in FORMATS for spec in form) else (RewardSpec(name="format"),)
        return settings.replace(rewards=(*form, *formats, *watched))
    if arm != "majority":
        raise SettingsError(f"there is no control {arm!r}: {nearest(arm, ARMS)}")
    weight = sum(spec.weight for spec in judged) or 1.0
    return settings.replace(rewards=(RewardSpec(name="majority", weight=weight), *form, *watched))


def fresh_tasks(training: RLSettings, measured: EvaluateSettings) -> tuple[TaskSpec, ...]:
    """The training tasks, as many problems as the measured ones have; none if they are not of the same sets.

    Only problems of one kind are equally hard for a model that has seen neither.
    """
    by_name = {spec.name: spec for spec in training.tasks}
    names = [spec.name for spec in measured.tasks]
    if set(names) != set(by_name) or len(set(names)) < len(names):
        return ()
    tasks = []
    for spec in measured.tasks:
        own = by_name[spec.name]
        same_problems = (own.split or "train", own.seed) == (spec.split or "test", spec.seed)
        if (
            same_problems
            or "split" in own.source.unused(own)
            or any(getattr(own, n) != getattr(spec, n) for n in KINDRED)
        ):
            return ()
        limit = min(spec.limit or MOST_FRESH, own.limit or MOST_FRESH)
        tasks.append(own.replace(split=own.split or "train", limit=limit, weight=1.0))
    return tuple(tasks)
