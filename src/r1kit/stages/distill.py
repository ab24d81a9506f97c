"""The stages `distill` and `teacher-logits`: a student learns a teacher's distribution, in memory or from disk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pydantic import Field, field_validator

from r1kit.data.tokens import key_of
from r1kit.engines.stage_policy import load_policy
from r1kit.models.known import ModelError
from r1kit.pipeline import Context, Kind
from r1kit.settings import listed, unhashed
from r1kit.stages.shared import given_conversations
from r1kit.stages.shared.costs import training_work
from r1kit.stages.shared.given_conversations import (
    ChatDataSettings,
    GivenSettings,
    probe_sources,
    tokenised,
    train_given,
)
from r1kit.stages.shared.given_rows import longest_row
from r1kit.stages.shared.input_files import input_files
from r1kit.train.losses.distillation import Distillation, DistillationSettings, SofteningTemperature
from r1kit.train.teacher import (
    ModelTeacher,
    StoredTeacher,
    TeacherStore,
    require_same_tokens,
    store_logits,
    tokenizer_facts,
    vocabulary_of,
)


class DistillSettings(GivenSettings, DistillationSettings):
    """Distillation on conversations; the paper's students use batches of 64 (V2 B.4.3)."""

    batch_size: int = Field(64, ge=1, description="rows per update")


class TeacherLogitsSettings(ChatDataSettings):
    """Store the `top_k` logits of every target, and the exact mass of the others at each of `temperatures`.

    `max_tokens` and the prompt format must equal those of the stage that learns from the logits.
    """

    top_k: int = Field(64, ge=1)
    temperatures: tuple[SofteningTemperature, ...] = Field((1.0, 3.0), min_length=1)
    max_tokens: int | None = Field(32_768, ge=2, description="longest row; None: the model's context")
    tokens_per_batch: int = unhashed(8192, ge=1)
    targets_per_shard: int = unhashed(100_000, ge=1)

    _lists = field_validator("temperatures", mode="before")(listed)


def check(context: Context) -> None:
    """Raise ValueError unless there are data and exactly one teacher."""
    given_conversations.check(context)
    teachers = [name for name in ("teacher", "logits") if name in context.paths]
    if len(teachers) != 1:
        inputs = "both teacher and logits" if teachers else "no teacher"
        raise ValueError(
            f"stage {context.stage} has {inputs}: give one of the inputs 'teacher' (a model) and 'logits' (the folder "
            "logits of a teacher-logits stage)"
        )


def run(context: Context) -> Mapping[str, Any]:
    """Train the student, input "model", on "data..."; leaves the same files as the stage sft."""
    settings: DistillSettings = context.settings
    student = load_policy(context)
    if "teacher" in context.paths:
        teacher = load_policy(context, "teacher")
        require_same_tokens(student.tokenizer, teacher.tokenizer)
        model = ModelTeacher(teacher.model.requires_grad_(False), vocabulary_of(student.tokenizer))
        loss = Distillation(settings, model)
        data = tokenised(context, student, longest_row(settings.max_tokens, student, teacher))
        return train_given(context, student, data, lambda samples: loss)
    store = TeacherStore.open(context.input("logits"))
    ours = tokenizer_facts(student.tokenizer)
    theirs = {name: store.about.get(name) for name in ours}
    if ours != theirs:
        raise ModelError(
            f"the stored logits are of a tokenizer with {theirs['vocabulary']} tokens, the student's has "
            f"{ours['vocabulary']}, and they differ: use a teacher of the student's family, or its traces with sft"
        )
    data = tokenised(context, student, longest_row(settings.max_tokens, student))
    store.require_temperature(settings.temperature)  # fail now, before the run reaches a missing row
    if missing := sum(key_of(row) not in store.places for row in data.rows):
        raise ValueError(
            f"{missing} of {len(data.rows)} rows have no stored logits: make them from the same data, with the same "
            "prompt format and max_tokens"
        )
    return train_given(context, student, data, lambda samples: Distillation(settings, StoredTeacher(store, samples)))


def run_teacher_logits(context: Context) -> Mapping[str, Any]:
    """Run the teacher, input "model", over "data..."; leaves logits/ for any number of students."""
    settings: TeacherLogitsSettings = context.settings
    policy = load_policy(context)
    limit = longest_row(settings.max_tokens, policy)
    context.progress.say(policy.turn(settings.chat))
    rows = settings.reading(policy, limit).tokenise(
        list(input_files(context, "data").values()), context.folder / "tokens"
    )
    names = tokenizer_facts(policy.tokenizer)
    about = {**names, "top_k": min(settings.top_k, names["vocabulary"]), "temperatures": list(settings.temperatures)}
    store = store_logits(
        policy.model,
        names["vocabulary"],
        rows,
        context.folder / "logits",
        about,
        report=context.progress.step,
        tokens_per_batch=settings.tokens_per_batch,
        targets_per_shard=settings.targets_per_shard,
    )
    return {"rows": len(store.places), "shards": store.shards, "dropped": rows.facts["dropped"], **about}


DISTILL = Kind(
    name="distill",
    run=run,
    settings=DistillSettings,
    version=3,
    check=check,
    sources=probe_sources,
    curves=True,
    shards=True,
    cost=training_work,
)
TEACHER_LOGITS = Kind(
    name="teacher-logits",
    run=run_teacher_logits,
    settings=TeacherLogitsSettings,
    version=3,
    check=partial(input_files, name="data"),
)
