"""The stage `rl`: R1-Zero, reasoning RL, RL for all scenarios and an expert's RL differ in prompts and rewards only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from r1kit.chat import ChatFormat
from r1kit.engines.engine_settings import DeviceSettings
from r1kit.engines.opening import open_policy_engine
from r1kit.engines.stage_policy import load_policy
from r1kit.pipeline import Context, External, Kind, Work
from r1kit.rewards import RewardSpec, build
from r1kit.rollout import column_names
from r1kit.settings import listed
from r1kit.stages.shared.costs import memory_of
from r1kit.stages.shared.fitting import Fitting, check_model
from r1kit.stages.shared.probe import ProbeSettings, check_probe, make_probe, probe_of, refuse_unread, with_models
from r1kit.stages.shared.sources import sources
from r1kit.stages.shared.trained import save_trained, with_lora
from r1kit.tasks import TaskSpec, load_tasks, say_readings
from r1kit.train.learner import OptimizerSettings
from r1kit.train.memory_settings import LoraSettings, MemorySettings, prepare
from r1kit.train.rl.algorithm import advantages_of, algorithm_files, loss_of
from r1kit.train.rl.loop import RLLoop
from r1kit.train.rl.loop_settings import LoopSettings
from r1kit.train.validation import Validation


class RLSettings(LoopSettings, MemorySettings, LoraSettings, DeviceSettings):
    """The loop's settings, with tasks, rewards, prompt format, optimiser and probe.

    `probe`: held-out problems, answered before the first step and every `probe_every` steps. `patience`: stop after
    that many probes without a better value of `probe.watch` (accuracy by default), and keep the best weights; 0 never
    stops early.
    """

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    rewards: tuple[RewardSpec, ...] = Field(min_length=1)
    chat: ChatFormat = ChatFormat()
    optimizer: OptimizerSettings = OptimizerSettings()
    max_prompt_tokens: int | None = Field(None, ge=1, description="leave longer prompts out; None: refuse them")
    probe: ProbeSettings = ProbeSettings()
    probe_every: int = Field(0, ge=0, description="steps between probes; 0: a tenth of the steps")
    patience: int = Field(0, ge=0)

    _lists = field_validator("tasks", "rewards", mode="before")(listed)

    @property
    def watch(self) -> str:
        """The probe's metric that early stopping follows."""
        return self.probe.watch or "accuracy"


def check(context: Context) -> None:
    """Refuse rewards, losses, devices, tasks and prompts that cannot work, before any stage starts."""
    from r1kit.train.optimizers import require_optimizer

    settings: RLSettings = context.settings
    scorer = build(rewards_of(context))
    require_optimizer(settings.optimizer)
    loss_of(settings.algorithm)
    advantages_of(settings.algorithm)
    # not a validator of the settings: `override` sets these two before probe.tasks
    unused = [name for name in ("probe_every", "patience") if getattr(settings, name)]
    if unused and not settings.probe.tasks:
        raise ValueError(f"{unused[0]} needs held-out problems: name at least one task in probe.tasks")
    remedy = "set max_prompt_tokens to leave longer prompts out"
    limit, nested = settings.max_prompt_tokens, scorer.has_own
    fitting = check_model(context, training=True, limit=limit, remedy=remedy, nested_columns=nested)
    scorer.check(column_names(fitting.problems) | {"log_metric", "trainer_state"})
    check_probe(context, follows=bool(settings.patience) and settings.watch == "accuracy")


def rewards_of(context: Context) -> tuple[RewardSpec, ...]:
    """The rewards; an input `reward/LABEL`, a reward model's folder, becomes the option `model` of the reward LABEL.

    Raises ValueError for an input that no reward of the stage or of its probe reads.
    """
    settings: RLSettings = context.settings
    refuse_unread(context, (*settings.rewards, *settings.probe.rewards))
    return with_models(settings.rewards, context.inputs("reward/"))


def run(context: Context) -> Mapping[str, Any]:
    """Train the input "model", with reward models of the inputs "reward/..."; writes metrics.jsonl, rollouts/,
    checkpoints/, model/ and, with LoRA, adapter/."""
    from r1kit.train.learner import Learner

    settings: RLSettings = context.settings
    scorer, chat = build(rewards_of(context)), settings.chat
    policy = load_policy(context)
    context.progress.say(policy.turn(chat))
    task = load_tasks(settings.tasks, training=True, nested_columns=scorer.has_own)
    say_readings(task, context.progress.say)
    limit = settings.max_prompt_tokens
    fitting = Fitting(task, chat, policy, max_tokens=settings.max_tokens, limit=limit)
    if fitting.dropped:
        context.progress.say(f"{fitting.dropped} problems with prompts of over {limit} tokens left out")
    policy = with_lora(policy, settings)
    prepare(policy.model, settings)
    updates = settings.steps * settings.minibatches * settings.epochs
    learner = Learner(policy.model, settings.optimizer, steps=updates, temperature=settings.temperature)

    def log(step: int, row: dict[str, float]) -> None:
        keys = {"reward": "reward/mean", "length": "completion/length_mean", "entropy": "policy/entropy"}
        keys |= {settings.watch: f"probe/{settings.watch}"}
        context.progress.step(step, settings.steps, {name: row[key] for name, key in keys.items() if key in row})

    validation = None
    if settings.probe.tasks:
        measure, watch = make_probe(probe_of(context), policy, chat), f"probe/{settings.watch}"
        every = settings.probe_every or math.ceil(settings.steps / 10)
        validation = Validation(measure, every, watch=watch, higher_is_better=True, patience=settings.patience)
    engine, say = open_policy_engine(settings, policy), context.progress.say
    loop = RLLoop(learner, engine, fitting, chat, scorer, settings, context.folder, log, say, validation)
    require_memory(loop, settings, prompt=fitting.longest)
    context.progress.step(0, settings.steps)
    best = loop.train()
    save_trained(context, policy)
    counts = {"updates": learner.updates, "problems": len(fitting), "prompts_left_out": fitting.dropped}
    return {**counts, **best.facts("step")}


def require_memory(loop: RLLoop, settings: RLSettings, prompt: int) -> None:
    """Try the largest batch and the most completions that can occur, all with the longest `prompt`, before any step."""
    from r1kit.train.first_batch import longest_group, require_sampling, require_training

    learner, work, longest = loop.learner, work_of(settings), prompt + settings.max_tokens
    tokens = min(max(settings.tokens_per_batch, longest), work.update * longest)
    update_of = longest_group(prompt, settings.max_tokens, work.update, loop.loss, learner.model)
    require_training(learner, update_of, work, tokens=tokens, longest=longest)
    rows = min(settings.max_rows, settings.prompts_per_step * settings.group_size)
    require_sampling(learner, work, rows=rows, length=longest)


def work_of(settings: RLSettings) -> Work:
    """Each rollout is sampled, then trained on; a reference and recomputed log-probs cost a forward pass each."""
    return Work(
        samples=settings.steps * settings.prompts_per_step * settings.group_size,
        max_tokens=settings.max_tokens,
        rollouts=settings.steps,
        max_rows=settings.max_rows,
        passes=6 * settings.epochs + 2 * (bool(settings.algorithm.kl_coef) + settings.recompute_old_logprobs),
        prompts=1 / settings.group_size,
        update=-(-settings.prompts_per_step // settings.minibatches) * settings.group_size,
        reference=bool(settings.algorithm.kl_coef),
        idles_off=settings.offload_idle,
        **memory_of(settings),
    )


RL = Kind(
    name="rl",
    run=run,
    settings=RLSettings,
    version=4,
    check=check,
    sources=lambda settings: {
        **sources((*settings.tasks, *settings.probe.tasks), (*settings.rewards, *settings.probe.rewards)),
        **{f"code/algorithm.{name}": External(path) for name, path in algorithm_files(settings.algorithm).items()},
    },
    curves=True,
    cost=lambda stage, rows: work_of(stage.settings),
)
