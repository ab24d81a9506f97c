"""The loop of the stages that sample from the policy that they train: `rl` and `on-policy`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from r1kit.chat import ChatFormat
from r1kit.engines import PolicyEngine
from r1kit.engines.engine_settings import DeviceSettings
from r1kit.engines.opening import open_policy_engine, open_pool
from r1kit.engines.remote.pool_settings import ServerPoolSettings
from r1kit.pipeline import Context, Work
from r1kit.rewards import RewardSpec
from r1kit.rewards.scorer import Scorer
from r1kit.rollout import column_names
from r1kit.settings import added, listed
from r1kit.stages.shared.alarm import HealthAlarm
from r1kit.stages.shared.costs import memory_of
from r1kit.stages.shared.fitting import Fitting, check_model
from r1kit.stages.shared.preflight import check_sampling_loop
from r1kit.stages.shared.probe import ProbeSettings, check_probe, make_probe, probe_of
from r1kit.stages.shared.trained import check_heads, save_trained, with_lora
from r1kit.tasks import TaskSpec, load_tasks, say_readings
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.memory_settings import LoraSettings, MemorySettings, apply_memory_settings
from r1kit.train.preflight.lines import SelfCheckSettings
from r1kit.train.rl.collect import ScoredGroup
from r1kit.train.rl.loop import RLLoop
from r1kit.train.rl.loop_settings import RolloutSettings
from r1kit.train.rl.objective import Objective
from r1kit.train.rl.samples import sample_table
from r1kit.train.validation import Validation

if TYPE_CHECKING:
    from r1kit.models.load import Policy


class SamplingSettings(RolloutSettings, MemorySettings, LoraSettings, DeviceSettings, SelfCheckSettings):
    """A rollout's settings with tasks, rewards, prompt format, optimiser and probe.

    `probe`: held-out problems, answered before the first step and every `probe_every` steps. `patience`: stop after
    that many probes without a better value of `probe.watch` (accuracy by default), and keep the best weights; 0 never
    stops early. `servers` sample in place of this process, which then only trains and answers probes.
    """

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    rewards: tuple[RewardSpec, ...] = ()
    chat: ChatFormat = ChatFormat()
    optimizer: OptimizerSettings = OptimizerSettings()
    max_prompt_tokens: int | None = Field(None, ge=1, description="leave longer prompts out; None: refuse them")
    probe: ProbeSettings = ProbeSettings()
    probe_every: int = Field(0, ge=0, description="steps between probes; 0: a tenth of the steps")
    patience: int = Field(0, ge=0)
    servers: ServerPoolSettings | None = added(None, description="servers that sample; None: this process samples")

    _lists = field_validator("tasks", "rewards", mode="before")(listed)

    @property
    def watch(self) -> str:
        """The probe's metric that early stopping follows."""
        return self.probe.watch or "accuracy"


def check_sampling(context: Context, scorer: Scorer) -> Fitting:
    """Refuse devices, optimizers, tasks, prompts and probes that cannot work. Raises ValueError."""
    from r1kit.train.optimizers import require_optimizer

    settings: SamplingSettings = context.settings
    require_optimizer(settings.optimizer)
    check_heads(context)
    # not a validator of the settings: `override` sets these two before probe.tasks
    unused = [name for name in ("probe_every", "patience") if getattr(settings, name)]
    if unused and not settings.probe.tasks:
        raise ValueError(f"{unused[0]} needs held-out problems: name at least one task in probe.tasks")
    if settings.servers and (settings.top_p < 1 or settings.top_k):
        raise ValueError("servers do not say which tokens top_p and top_k left, and training needs them: unset both")
    if settings.steps_ahead:
        name = "lora_rank" if settings.lora_rank else "weights_dtype" if settings.weights_dtype != "fp32" else ""
        if name and settings.servers is None:
            raise ValueError(f"staleness=1 samples from a copy of weights in fp32: leave {name} out, or name servers")
    remedy = "set max_prompt_tokens to leave longer prompts out"
    limit, nested = settings.max_prompt_tokens, scorer.has_own
    fitting = check_model(context, training=True, limit=limit, remedy=remedy, nested_columns=nested)
    scorer.check(column_names(fitting.problems) | {"log_metric", "trainer_state"})
    check_probe(context, follows=bool(settings.patience) and settings.watch == "accuracy")
    return fitting


def train(
    context: Context,
    policy: Policy,
    scorer: Scorer,
    work: Work,
    objective_of: Callable[[Learner, Policy], Objective],
    progress_metrics: Mapping[str, str],
) -> dict[str, Any]:
    """Train the policy; leaves metrics.jsonl, rollouts/, checkpoints/, model/ and, with LoRA, adapter/.

    `progress_metrics`: those that the progress line shows, by the name that it gives them.
    """
    settings: SamplingSettings = context.settings
    chat, limit, say = settings.chat, settings.max_prompt_tokens, context.progress.say
    say(policy.turn(chat))
    task = load_tasks(settings.tasks, training=True, nested_columns=scorer.has_own)
    say_readings(task, say)
    fitting = Fitting(task, chat, policy, max_tokens=settings.max_tokens, limit=limit)
    if fitting.dropped:
        say(f"{fitting.dropped} problems with prompts of over {limit} tokens left out")
    policy = with_lora(policy, settings)  # before all that looks at the model's layers and weights
    apply_memory_settings(policy.model, settings)
    updates = settings.steps * settings.minibatches * settings.epochs
    learner = Learner(
        policy.model, settings.optimizer, steps=updates, temperature=settings.temperature, shard=settings.shard
    )

    alarm = HealthAlarm(context)

    def log(step: int, row: dict[str, float]) -> None:
        keys = {**progress_metrics, "length": "completion/length_mean", "entropy": "policy/entropy"}
        keys |= {settings.watch: f"probe/{settings.watch}"}
        context.progress.step(step, settings.steps, {name: row[key] for name, key in keys.items() if key in row})
        alarm.look(step)

    def show(step: int, scored: Sequence[ScoredGroup]) -> None:
        if settings.samples_every and step % settings.samples_every == 0:
            context.progress.table(f"step {step}", sample_table(scored))

    validation = None
    if settings.probe.tasks and context.until is None:  # a replay needs no probe, which changes no weights
        measure, watch = make_probe(probe_of(context), policy, chat), f"probe/{settings.watch}"
        every = settings.probe_every or math.ceil(settings.steps / 10)
        validation = Validation(measure, every, watch=watch, higher_is_better=True, patience=settings.patience)
    with _engine(context, policy) as engine:
        objective = objective_of(learner, policy)  # before a checkpoint is loaded: its reference is the first policy
        loop = RLLoop(
            learner=learner,
            objective=objective,
            engine=engine,
            task=fitting,
            chat=chat,
            scorer=scorer,
            settings=settings,
            folder=context.folder,
            log=log,
            note=say,
            validation=validation,
            show=show,
            until=context.until,
        )
        if context.until is not None:  # a replay compares hashes: it makes no checks and saves no model
            loop.train()
            return {}
        _require_memory(loop, settings, work, prompt=fitting.longest)
        check_sampling_loop(context, loop, policy)
        context.progress.step(0, settings.steps)
        best, facts = alarm.guard(loop.train, learner, objective.moving_reference)
    save_trained(context, policy)
    counts = {"updates": learner.updates, "problems": len(fitting), "prompts_left_out": fitting.dropped}
    return {**counts, **best.facts("step"), **facts}


@contextlib.contextmanager
def _engine(context: Context, policy: Policy) -> Iterator[PolicyEngine]:
    """A block with an engine: of the learner's own weights or a copy, or servers that get them before each rollout."""
    settings: SamplingSettings = context.settings
    if settings.servers is None:
        if settings.steps_ahead:  # the engine samples while the learner changes its own weights
            from r1kit.models.load import frozen_copy

            policy = replace(policy, model=frozen_copy(policy.model))
        yield open_policy_engine(settings, policy)
        return
    with open_pool(settings.servers, policy, context.folder, context.progress.say) as pool:
        pairs = zip(pool.servers, pool.facts, strict=True)
        names = ", ".join(f"{server.name} ({facts.engine})" for server, facts in pairs)
        context.progress.say(f"{names} sample in {pool.dtype}")
        yield pool


def _require_memory(loop: RLLoop, settings: SamplingSettings, work: Work, prompt: int) -> None:
    """Try the largest batch and the most completions that can occur, all with the longest `prompt`, before any step."""
    from r1kit.train.first_batch import longest_group, require_sampling, require_training

    learner, sampled = loop.learner, prompt + settings.max_tokens
    longest = max(sampled, loop.objective.longest_given)
    tokens = min(max(settings.tokens_per_batch, longest), work.update * longest)
    update_of = longest_group(prompt, settings.max_tokens, work.update, loop.objective.loss, learner.model)
    require_training(learner, update_of, work, tokens=tokens, longest=longest)
    if settings.servers is None:
        rows = min(settings.max_rows, settings.prompts_per_step * settings.group_size)
        require_sampling(learner, work, rows=rows, length=sampled)


def sampling_and_training(settings: SamplingSettings, **changes: Any) -> Work:
    """Each rollout is sampled, then trained on; `changes` are the fields of `Work` that differ."""
    work = {
        "samples": settings.steps * settings.prompts_per_step * settings.group_size,
        "max_tokens": settings.max_tokens,
        "rollouts": settings.steps,
        "max_rows": settings.max_rows,
        "passes": 6 * settings.epochs,
        "prompts": 1 / settings.group_size,
        "update": -(-settings.prompts_per_step // settings.minibatches) * settings.group_size,
    }
    return Work(**work | memory_of(settings) | changes)
