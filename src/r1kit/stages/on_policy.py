"""The stage `on-policy`: a student samples, and teachers say at each token what they would have done.

On-policy distillation (Agarwal et al. 2024). With several teachers it merges experts: each prompt has the teacher of
its domain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from r1kit.engines.stage_policy import load_policy
from r1kit.pipeline import Context, Kind, Work
from r1kit.stages.shared.given_conversations import ChatDataSettings
from r1kit.stages.shared.given_rows import longest_row
from r1kit.stages.shared.input_files import input_files
from r1kit.stages.shared.probe import refuse_unread, scorer_of
from r1kit.stages.shared.sampling_loop import SamplingSettings, check_sampling, sampling_and_training, train
from r1kit.stages.shared.sources import sources
from r1kit.train.learner import Learner
from r1kit.train.losses.on_policy import OnPolicySettings
from r1kit.train.rl.teachers import DistillObjective, GivenRows, Teachers, teacher_for
from r1kit.train.teacher import ModelTeacher, require_same_tokens, vocabulary_of

if TYPE_CHECKING:
    from r1kit.models.load import Policy


class OnPolicyStageSettings(SamplingSettings, OnPolicySettings, ChatDataSettings):
    """On-policy distillation of the tasks' prompts.

    `rewards` are reported and nothing learns from them. `domains` names the sources of each teacher's problems, such as
    {"reasoning": ["tiny/reasoning"], "requests": ["*/general"]}. `given_share`: share of the rows of an update that
    come from the inputs `data...` and not from the student.
    """

    domains: dict[str, tuple[str, ...]] = Field({}, description="patterns of sources by teacher, if there are several")
    given_share: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _compares(self) -> Self:
        if self.given_share and self.divergence == "sampled":
            raise ValueError("divergence 'sampled' is for tokens that the student sampled: set given_share to 0")
        if self.divergence == "sampled" and self.top_k_tokens:
            raise ValueError("divergence 'sampled' compares one token: set top_k_tokens to 0")
        if self.top_p < 1 or self.top_k:
            raise ValueError(
                "teachers are compared with the student's whole distribution: leave top_p at 1, top_k at 0"
            )
        return self


def teacher_names(context: Context) -> list[str]:
    """LABEL of the inputs `teacher/LABEL`, or "" of the input `teacher`. Raises ValueError if there is none."""
    names = [name.lstrip("/") for name in context.inputs("teacher")]
    if not names:
        raise ValueError(f"stage {context.stage} has no teacher: give the input 'teacher', or several as teacher/NAME")
    return names


def check(context: Context) -> None:
    """Refuse teachers, tasks, prompts and data that cannot work, before any stage starts."""
    from r1kit.models.load import outline

    settings: OnPolicyStageSettings = context.settings
    refuse_unread(context, (*settings.rewards, *settings.probe.rewards))
    names = teacher_names(context)
    if unknown := sorted(settings.domains.keys() - set(names)):
        raise ValueError(
            f"domains names {unknown[0]!r}, and the teachers are {', '.join(names)}: give an input of that name"
        )
    fitting = check_sampling(context, scorer_of(settings.rewards))
    for source in {problem.source for problem in fitting.problems}:
        teacher_for(source, names, settings.domains)  # raises now, not at the step that draws such a problem
    if bool(settings.given_share) != bool(context.inputs("data")):
        missing = "no data" if settings.given_share else "data and given_share = 0"
        raise ValueError(f"stage {context.stage} has {missing}: give both an input 'data' and a given_share above 0")
    student = outline(str(context.input("model")))
    for name, path in zip(names, context.inputs("teacher").values(), strict=True):
        teacher = outline(str(path))
        require_same_tokens(student.tokenizer, teacher.tokenizer)
        longest = fitting.longest + settings.max_tokens
        if teacher.context < longest:
            raise ValueError(
                f"the teacher {name} takes {teacher.context} tokens, and the longest prompt ({fitting.longest}) with "
                f"max_tokens = {settings.max_tokens} has {longest}: lower max_tokens, or set max_prompt_tokens to "
                "leave long prompts out"
            )


def run(context: Context) -> Mapping[str, Any]:
    """Train the input "model" with the teachers "teacher" or "teacher/..."; leaves the same files as the stage rl."""
    settings: OnPolicyStageSettings = context.settings
    policy = load_policy(context)
    loaded = {
        name: load_policy(context, f"teacher{suffix}")
        for name, suffix in zip(teacher_names(context), context.inputs("teacher"), strict=True)
    }
    for teacher in loaded.values():
        require_same_tokens(policy.tokenizer, teacher.tokenizer)
    vocabulary = vocabulary_of(policy.tokenizer)
    models = {
        name: ModelTeacher(teacher.model.requires_grad_(False), vocabulary, settings.top_k_tokens)
        for name, teacher in loaded.items()
    }
    limit = longest_row(None, policy, *loaded.values())
    teachers, given_rows = Teachers(models, settings.domains), _given_rows(context, policy, limit)

    def objective_of(learner: Learner, _: Policy) -> DistillObjective:
        return DistillObjective(learner, settings, teachers, settings.tokens_per_batch, given_rows)

    metrics = {"divergence": "distill/divergence", "accuracy": "reward/accuracy"}
    work = work_of(settings, len(models))
    return train(context, policy, scorer_of(settings.rewards), work, objective_of, metrics)


def _given_rows(context: Context, policy: Policy, limit: int) -> GivenRows | None:
    """The rows of data of at most `limit` tokens for each step; None without any."""
    settings: OnPolicyStageSettings = context.settings
    if not settings.given_share:
        return None
    rows = settings.reading(policy, limit).tokenise(
        list(input_files(context, "data").values()), context.folder / "tokens"
    )
    sampled = settings.prompts_per_step * settings.group_size
    # given / (given + sampled) = given_share
    count = max(1, round(sampled * settings.given_share / (1 - settings.given_share)))
    return GivenRows(rows, count, settings.seed)


def work_of(settings: OnPolicyStageSettings, teachers: int) -> Work:
    """A row costs a forward pass of its teacher; all teachers stay in memory. Given rows join each update."""
    work = sampling_and_training(settings, teachers=teachers)
    rows = 1 / (1 - settings.given_share)  # of an update, for each sampled one
    return replace(work, passes=round(8 * settings.epochs * rows), update=math.ceil(work.update * rows))


ON_POLICY = Kind(
    name="on-policy",
    run=run,
    settings=OnPolicyStageSettings,
    version=1,
    check=check,
    sources=lambda settings: sources(
        (*settings.tasks, *settings.probe.tasks), (*settings.rewards, *settings.probe.rewards)
    ),
    curves=True,
    shards=True,
    cost=lambda stage, rows: work_of(stage.settings, sum(name.startswith("teacher") for name in stage.inputs)),
)
