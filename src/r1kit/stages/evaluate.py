"""The stage `evaluate`: k samples of every held-out problem, judged by the verifiers that training uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from r1kit.chat import ChatFormat
from r1kit.engines.engine_settings import DeviceSettings
from r1kit.engines.opening import open_policy_engine
from r1kit.engines.stage_policy import load_policy
from r1kit.evaluate.measurement import check_verifiers, measure
from r1kit.pipeline import Context, Kind
from r1kit.settings import Temperature, listed
from r1kit.stages.shared.costs import sampling_work
from r1kit.stages.shared.fitting import Fitting, check_model
from r1kit.stages.shared.sources import sources
from r1kit.store import write_json
from r1kit.tasks import TaskSpec, load_tasks, say_readings
from r1kit.types import SamplingParams

ROUNDS = 4  # rows are written after `ROUNDS` x `max_rows` completions: a kill loses that many, fewer idle the engine


class EvaluateSettings(DeviceSettings):
    """The paper's sampling (section 3): temperature 0.6, top-p 0.95, k samples, pass@1 as their mean."""

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    chat: ChatFormat = ChatFormat()
    samples: int = Field(4, ge=1, description="k, completions per problem")
    temperature: Temperature = 0.6
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    seed: int = 0

    _lists = field_validator("tasks", mode="before")(listed)

    def sampling(self) -> SamplingParams:
        return SamplingParams(
            n=self.samples, temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens, seed=self.seed
        )


def check(context: Context) -> None:
    """Refuse a device, tasks, prompts or verifiers that cannot work, before any stage starts."""
    check_verifiers(check_model(context, training=False).problems)


def run(context: Context) -> Mapping[str, Any]:
    """Write completions.jsonl and results.json."""
    settings: EvaluateSettings = context.settings
    policy = load_policy(context)
    context.progress.say(policy.turn(settings.chat))
    task = load_tasks(settings.tasks, training=False)
    say_readings(task, context.progress.say)
    summary = measure(
        open_policy_engine(settings, policy),
        Fitting(task, settings.chat, policy, max_tokens=settings.max_tokens).problems,
        settings.chat,
        settings.sampling(),
        context.folder / "completions.jsonl",
        context.progress.step,
        tokenizer=policy.tokenizer,
        batch=ROUNDS * settings.max_rows,
    )
    write_json(context.folder / "results.json", summary.to_json())
    return {name: estimate.mean for name, estimate in summary.overall.items()}


EVALUATE = Kind(
    name="evaluate",
    run=run,
    settings=EvaluateSettings,
    version=4,
    check=check,
    sources=lambda settings: sources(settings.tasks),
    cost=lambda stage, rows: sampling_work(stage),
)
