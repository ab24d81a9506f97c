"""The stage `rehearse`: a small random model of an architecture, taught to answer a handful of the run's problems.

Stages stop where no sample is right, and a random model is never right. So it first learns the problems' references by
heart, in the format of the prompts; then the other stages work on it as on a real model. Its numbers mean nothing.

Inputs: `outline/...`, the files of a model's configuration and tokenizer. Leaves model/ and the rows that were taught.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

from pydantic import Field, field_validator

from r1kit.data.jsonl import RowWriter
from r1kit.pipeline import Context, Kind
from r1kit.settings import listed
from r1kit.stages.shared.given_conversations import GivenSettings, train_given
from r1kit.stages.shared.given_rows import Data, longest_row
from r1kit.stages.shared.sources import sources
from r1kit.tasks import TaskSpec, iterate, load_tasks
from r1kit.train.learner import OptimizerSettings
from r1kit.train.losses.next_token import next_token
from r1kit.train.preflight.references import reference_replies
from r1kit.types import Problem
from r1kit.verifiers import verify_all


class RehearseSettings(GivenSettings):
    """The problems to learn, and how: as SFT, with a learning rate for a small random model."""

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    epochs: int = Field(120, ge=1)
    batch_size: int = Field(8, ge=1, description="rows per update")
    optimizer: OptimizerSettings = OptimizerSettings(
        learning_rate=5e-3, warmup_steps=5, schedule="linear", final_ratio=0.1
    )

    _lists = field_validator("tasks", mode="before")(listed)


def run(context: Context) -> Mapping[str, Any]:
    """Build the model, write the rows, train."""
    from r1kit.models.load import load
    from r1kit.models.rehearsal import save_small

    settings: RehearseSettings = context.settings
    untaught = context.folder / "untaught"
    if not untaught.is_dir():
        save_small(next(iter(context.inputs("outline/").values())).parent, untaught, settings.seed)
    policy = load(str(untaught), device=settings.device, compute_dtype=settings.compute_dtype)
    path = context.folder / "taught.jsonl"
    path.unlink(missing_ok=True)
    task = load_tasks(settings.tasks, training=True)
    taught = [(problem, reply) for problem in iterate(task) if (reply := answer_by_heart(problem)) is not None]
    if not taught:
        raise ValueError(
            f"a rehearsal teaches its model the references of {task.name}, and none of them is an answer: rehearse "
            "with other problems, as in --data problems=tiny/reasoning"
        )
    with RowWriter(path) as rows:
        # of fewer problems than a batch holds, there would be too few updates to learn them
        for problem, reply in islice(cycle(taught), max(len(taught), settings.batch_size)):
            question = {"role": "user", "content": problem.prompt}
            rows.append({"messages": [question, {"role": "assistant", "content": reply}]})
    reading = settings.reading(policy, longest_row(settings.max_tokens, policy))
    tokens = reading.tokenise([path], context.folder / "tokens")
    return train_given(context, policy, Data(tokens, None), lambda samples: next_token)


def answer_by_heart(problem: Problem) -> str | None:
    """A response with the reference or the worked solution; None if the problem's verifier accepts neither."""
    replies = reference_replies(problem)
    return next(
        (reply for reply in replies if verify_all(problem.verifier, [reply], [problem.answer])[0].correct), None
    )


REHEARSE = Kind(
    name="rehearse",
    run=run,
    settings=RehearseSettings,
    version=2,
    sources=lambda settings: sources(settings.tasks),
    curves=True,
)
