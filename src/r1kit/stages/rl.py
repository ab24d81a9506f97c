"""The stage `rl`: R1-Zero, reasoning RL, RL for all scenarios and an expert's RL are this with other prompts and
rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from r1kit.pipeline import Context, Kind
from r1kit.rewards import RewardSpec, build
from r1kit.settings import listed
from r1kit.stages import chat_format
from r1kit.stages.shared import ChatSettings, DeviceSettings, Fitting, check_model
from r1kit.tasks import TaskSpec, load_tasks
from r1kit.train.learner import OptimizerSettings
from r1kit.train.rl import RL, LoopSettings


class RLSettings(LoopSettings, DeviceSettings):
    """What `LoopSettings` says, on which tasks, for which rewards, from which prompt."""

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    rewards: tuple[RewardSpec, ...] = Field(min_length=1)
    chat: ChatSettings = ChatSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    max_prompt_tokens: int | None = Field(None, ge=1, description="leave longer prompts out; None: refuse them")
    lora_rank: int = Field(0, ge=0, description="0 trains all weights")
    lora_alpha: int = Field(32, gt=0)
    lora_targets: tuple[str, ...] = Field((), description="names of linear layers; empty: all of them")

    _lists = field_validator("tasks", "rewards", mode="before")(listed)


def check(context: Context) -> None:
    """Refuse rewards, device, tasks and prompts that cannot work, before the stage or a stage before it starts."""
    settings: RLSettings = context.settings
    build(rewards_of(context))
    remedy = "set max_prompt_tokens to leave longer prompts out"
    check_model(context, training=True, limit=settings.max_prompt_tokens, remedy=remedy)


def rewards_of(context: Context) -> tuple[RewardSpec, ...]:
    """The rewards; an input `reward/LABEL`, a reward model's folder, becomes the option `model` of the one so labelled.

    Raises ValueError for an input that no reward reads.
    """
    settings: RLSettings = context.settings
    models = context.inputs("reward/")
    if unread := models.keys() - {spec.title for spec in settings.rewards if spec.name == "reward_model"}:
        raise ValueError(
            f"stage {context.stage} has the input reward/{min(unread)}, and no reward reads it: give one of the name "
            f"reward_model with label {min(unread)!r}"
        )
    return tuple(
        spec.model_copy(update={"options": {**spec.options, "model": str(models[spec.title])}})
        if spec.title in models else spec
        for spec in settings.rewards
    )  # fmt: skip


def run(context: Context) -> Mapping[str, Any]:
    """Train the model of input "model", with reward models of inputs "reward/..."; leaves metrics.jsonl, rollouts/,
    checkpoints/ and model/."""
    from r1kit.engines.local import LocalEngine
    from r1kit.models.load import add_lora, load
    from r1kit.train.learner import Learner

    settings: RLSettings = context.settings
    scorer, chat = build(rewards_of(context)), settings.chat.format()
    policy = load(str(context.input("model")), device=settings.device, seed=settings.seed)
    task = Fitting(
        load_tasks(settings.tasks, training=True), chat, policy,
        max_tokens=settings.max_tokens, limit=settings.max_prompt_tokens,
    )  # fmt: skip
    if task.dropped:
        context.progress.say(
            f"{task.dropped} problems with prompts of over {settings.max_prompt_tokens} tokens left out"
        )
    if settings.lora_rank:
        policy = add_lora(policy, settings.lora_rank, settings.lora_alpha, settings.lora_targets)
    updates = settings.steps * settings.minibatches * settings.epochs
    learner = Learner(policy.model, settings.optimizer, steps=updates, temperature=settings.temperature)

    def log(step: int, row: dict[str, float]) -> None:
        shown = {"reward": "reward/mean", "length": "completion/length_mean", "entropy": "policy/entropy"}
        context.progress.step(step, settings.steps, {name: row[key] for name, key in shown.items() if key in row})

    engine = LocalEngine(policy, max_rows=settings.max_rows)
    loop = RL(learner, engine, task, chat, scorer, settings, context.folder, log, context.progress.say)
    context.progress.step(0, settings.steps)
    loop.train()
    policy.save(context.folder / "model")
    chat_format.save(settings.chat, context.folder / "model")
    return {"updates": learner.updates, "problems": len(task), "prompts_left_out": task.dropped}


RL_STAGE = Kind(name="rl", run=run, settings=RLSettings, version=2, check=check)
