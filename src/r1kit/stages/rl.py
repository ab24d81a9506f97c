"""The stage `rl`: R1-Zero, reasoning RL, RL for all scenarios and an expert's RL differ in prompts and rewards only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from r1kit.engines.stage_policy import load_policy
from r1kit.pipeline import Context, External, Kind, Work
from r1kit.rewards import RewardSpec, build
from r1kit.stages.shared.probe import refuse_unread, with_models
from r1kit.stages.shared.sampling_loop import SamplingSettings, check_sampling, sampling_and_training, train
from r1kit.stages.shared.sources import sources
from r1kit.train.rl.algorithm import algorithm_files, baseline_of, loss_of
from r1kit.train.rl.loop_settings import LoopSettings
from r1kit.train.rl.objective import PolicyGradient


class RLSettings(LoopSettings, SamplingSettings):
    """The settings of sampling and training, with those of GRPO and at least one reward."""

    rewards: tuple[RewardSpec, ...] = Field(min_length=1)


def check(context: Context) -> None:
    """Refuse rewards, losses, devices, tasks and prompts that cannot work, before any stage starts."""
    settings: RLSettings = context.settings
    scorer = build(rewards_of(context))
    # imports functions of the user's own, so that a mistake in them shows now
    loss_of(settings.algorithm)
    baseline_of(settings.algorithm)
    check_sampling(context, scorer)
    if settings.routing_replay:
        from r1kit.models.known import resolve
        from r1kit.models.size import size_of_model

        name = str(context.input("model"))
        if not size_of_model(resolve(name)).routed:
            raise ValueError(f"routing_replay is for mixtures of experts, and {name} has no experts: set it to false")


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
    settings: RLSettings = context.settings
    scorer, policy = build(rewards_of(context)), load_policy(context)
    if settings.routing_replay:
        from r1kit.models.routing_replay import require_replay

        require_replay(policy.model)
    return train(
        context,
        policy,
        scorer,
        work_of(settings),
        lambda learner, _: PolicyGradient(learner, settings.corrected),
        {"reward": "reward/mean"},
    )


def work_of(settings: RLSettings) -> Work:
    """A reference, recomputed log-probs and the choice of tokens by covariance cost a forward pass each."""
    has_reference, has_choice = bool(settings.algorithm.kl_coef), settings.algorithm.covariance is not None
    recomputes = settings.corrected.recompute_old_logprobs
    return sampling_and_training(
        settings,
        passes=6 * settings.epochs + 2 * (has_reference + recomputes + has_choice),
        reference=has_reference,
        teachers=int(settings.staleness and settings.servers is None),  # the copy that samples
        idles_off=settings.offload_idle,
        routing=settings.routing_replay,
    )


RL = Kind(
    name="rl",
    run=run,
    settings=RLSettings,
    version=5,
    check=check,
    sources=lambda settings: {
        **sources((*settings.tasks, *settings.probe.tasks), (*settings.rewards, *settings.probe.rewards)),
        **{f"code/algorithm.{name}": External(path) for name, path in algorithm_files(settings.algorithm).items()},
    },
    curves=True,
    shards=True,
    cost=lambda stage, rows: work_of(stage.settings),
)
