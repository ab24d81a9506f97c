"""Parts of the recipe alone, on a model and data of one's own, measured before and after if `eval` is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.judges import JudgeSettings
from r1kit.models.facts import facts_of
from r1kit.pipeline import External, Recipe, Stage
from r1kit.recipes.builder import Model, Part
from r1kit.recipes.own_run import OwnRun
from r1kit.recipes.r1_zero import zero_stage
from r1kit.recipes.roles import limited
from r1kit.recipes.scale import Sizes
from r1kit.settings import SettingsError, nearest
from r1kit.stages.distill import DISTILL
from r1kit.stages.generate import GENERATE
from r1kit.stages.preferences import PREFERENCES
from r1kit.stages.reward_model import REWARD_MODEL
from r1kit.stages.sft import SFT
from r1kit.tasks import KNOWN


@dataclass(frozen=True)
class PartRecipe:
    """A recipe of one part: `stages` builds it, `roles` says what its data is for, and of each group of `needs` exactly
    one role must be given."""

    name: str
    roles: Mapping[str, str]
    needs: tuple[tuple[str, ...], ...]
    stages: Callable[[OwnRun], Part]
    own_format: bool = False
    measures: bool = True
    takes_teacher: bool = False

    def __call__(
        self,
        *,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
        model: str | None = None,
        teacher: str | None = None,
        data: Mapping[str, Any] | None = None,
        hardware: str | None = None,
        devices: int = 1,
        rehearse: bool = False,
    ) -> Recipe:
        """The part's stages between measurements of the model and of what it becomes.

        Raises `SettingsError` for a missing model, an unknown or missing role, and a teacher that no stage asks.
        """
        data = data or {}
        if model is None:
            raise SettingsError(f"recipe {self.name} needs a model: give a known name, a folder or a hub id (--model)")
        if teacher is not None and not self.takes_teacher:
            raise SettingsError(f"recipe {self.name} does not take teacher: leave it out")
        for role in data:
            if role not in self.roles:
                raise SettingsError(f"recipe {self.name} has no data role {role!r}: {nearest(role, self.roles)}")
        for group in self.needs:
            if sum(role in data for role in group) != 1:
                uses = " or ".join(f"{role}=... ({self.roles[role]})" for role in group)
                raise SettingsError(
                    f"recipe {self.name} needs {'one kind of ' if group[1:] else ''}data: --data {uses}"
                )
        run = OwnRun.of(
            self.name,
            model,
            data,
            overrides=overrides,
            seed=seed,
            hardware=hardware,
            devices=devices,
            rehearse=rehearse,
            teacher=teacher,
            own_format=self.own_format,
            measures=self.measures,
        )
        part = self.stages(run)
        before = run.build.measure({"base": run.build.base})
        after = run.build.measure(part.models)
        return run.build.recipe(self.name, [*before.values(), *part.stages, *after.values()], before | after)


def sft(run: OwnRun) -> Part:
    """SFT on conversations; sets of problems with worked solutions become conversations first."""
    inputs, reading = run.files("rows", "data", skip=KNOWN)
    every: dict[str, Model] = {"model": run.build.base, **inputs, **run.inputs("validation", "validation", reading)}
    stages: list[Stage] = []
    if specs := run.worked("rows"):
        traces = run.build("traces", GENERATE, {}, Sizes(tasks=specs), prompting="traces")
        every, stages = {**every, "data/traces": traces / "kept.jsonl"}, [traces]
    tuned = run.build("sft", SFT, every, run.sizes.sft | reading)
    return Part((*stages, tuned), {"sft": tuned / "model"})


def rl(run: OwnRun) -> Part:
    """GRPO on problems with references, for accuracy and format."""
    sizes = run.sizes.rl(run.sizes.amounts.zero)
    trained = zero_stage(run.build, "rl", run.build.base, sizes)
    return Part((trained,), {"rl": trained / "model"})


def rejection(run: OwnRun) -> Part:
    """Several samples per problem, of which correct and readable ones are kept as rows for SFT."""
    many = run.sizes.amounts.rejection
    specs = tuple(spec if spec.source.kind == "file" else limited(spec, many) for spec in run.sizes.data.problems)
    sizes = run.sizes.sampled(specs) | Sizes(chat=run.sizes.chat)
    keep = run.build.scale.departures.rejection
    return Part((run.build("rejection", GENERATE, {"model": run.build.base}, sizes, prompting="own", curate=keep),), {})


def reward_model(run: OwnRun) -> Part:
    """Helpfulness from pairs, or safety from labelled replies; `eval` is held-out rows of the same kind."""
    role, objective = ("preferences", "helpfulness") if "preferences" in run.data else ("safety", "safety")
    inputs, reading = run.files(role, "data")
    every = {"model": run.build.base, **inputs, **run.inputs("eval", "validation", reading)}
    sizes = run.sizes.training(run.sizes.size.row.sft_rate / 2) | Sizes(epochs=1) | reading
    return Part((run.build("reward-model", REWARD_MODEL, every, sizes, objective=objective),), {})


def preferences(run: OwnRun) -> Part:
    """Pairs for a reward model: the model answers requests several times, and a judge (the teacher, or the model
    itself) compares the answers. With `rows`, the answers are there already."""
    every: dict[str, Model] = dict(run.inputs("rows", "rows"))
    stages: list[Stage] = []
    if not every:
        inputs = {"model": run.build.base, **run.inputs("requests", "requests")}
        sizes = run.sizes.sampled(()) | Sizes(chat=run.sizes.chat)
        stages = [run.build("responses", GENERATE, inputs, sizes, prompting="own", may_be_empty=True)]
        every = {"rows": stages[0] / "samples.jsonl"}
    judging = JudgeSettings(votes=4)
    if not run.build.sets("preferences.judge"):  # a judge of the user's own, such as one behind a server
        every["judge"] = run.build.model(run.teacher) if run.teacher else run.build.base
        room = facts_of(run.teacher or run.build.scale.model).context // 2
        judging = judging.replace(max_tokens=min(judging.max_tokens, room))
    return Part((*stages, run.build("preferences", PREFERENCES, every, Sizes(judging=judging))), {})


def distill(run: OwnRun) -> Part:
    """A student learns from traces, and with a teacher or its stored logits also from its distribution on them."""
    inputs, reading = run.files("traces", "data")
    every: dict[str, Model] = {"model": run.build.base, **inputs, **run.inputs("validation", "validation", reading)}
    teacher: dict[str, Model] = {}
    if "logits" in run.data:
        teacher = {"logits": External(Path(str(run.data["logits"])))}
    elif run.teacher:
        if facts_of(run.teacher).tokens != facts_of(run.build.scale.model).tokens:
            student = run.build.scale.model
            raise SettingsError(
                f"{run.teacher} and {student} have different tokens: leave the teacher out, and the "
                "student learns from the traces alone"
            )
        teacher = {"teacher": run.build.model(run.teacher)}
    stages = [run.build("student-sft", SFT, every, run.sizes.sft | reading)]
    if teacher:
        stages.append(run.build("student-logits", DISTILL, every | teacher, run.sizes.sft | reading))
    models = {stage.name: stage / "model" for stage in stages}
    return Part(tuple(stages), {**models, **({"teacher": teacher["teacher"]} if "teacher" in teacher else {})})


def evaluate(run: OwnRun) -> Part:
    """Only the measurement."""
    return Part((), {})


PROBLEMS = "problems with references"
HELD_OUT = "held-out problems that measure the models"
PARTS = {
    part.name: part
    for part in (
        PartRecipe(
            "sft",
            {"rows": "conversations to train on", "validation": "held-out conversations", "eval": HELD_OUT},
            (("rows",),),
            sft,
            own_format=True,
        ),
        PartRecipe("rl", {"problems": PROBLEMS, "eval": HELD_OUT}, (("problems",),), rl),
        PartRecipe("rejection", {"problems": PROBLEMS, "eval": HELD_OUT}, (("problems",),), rejection),
        PartRecipe(
            "reward-model",
            {"preferences": "pairs of replies", "safety": "labelled replies", "eval": "held-out rows of the same kind"},
            (("preferences", "safety"),),
            reward_model,
            own_format=True,
            measures=False,
        ),
        PartRecipe(
            "preferences",
            {"requests": "what the model is asked", "rows": "samples with several replies to each request"},
            (("requests", "rows"),),
            preferences,
            own_format=True,
            measures=False,
            takes_teacher=True,
        ),
        PartRecipe(
            "distill",
            {
                "traces": "a teacher's conversations",
                "logits": "the folder logits of a teacher-logits stage on the same traces",
                "validation": "held-out conversations",
                "eval": HELD_OUT,
            },
            (("traces",),),
            distill,
            own_format=True,
            takes_teacher=True,
        ),
        PartRecipe("evaluate", {"eval": HELD_OUT}, (("eval",),), evaluate),
    )
}
