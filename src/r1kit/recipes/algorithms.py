"""A bench of algorithms: an RL stage of a recipe again for each preset and seed, measured alike, in one table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from r1kit.pipeline import Recipe, Stage
from r1kit.recipes.controls import rl_settings, rl_stage
from r1kit.settings import SettingsError, nearest
from r1kit.stages.compare_algorithms import COMPARE_ALGORITHMS, CompareSettings
from r1kit.stages.evaluate import EVALUATE
from r1kit.stages.rl import RL, RLSettings
from r1kit.train.losses.policy_settings import PRESETS

NULL = "again"  # the arm that is the reference with other seeds
NOT_IN_NAMES = re.compile(r"[^a-z0-9._]+")
NULL_SEEDS = 1000  # away from those of all other arms
# All presets that differ when the engine is the learner itself; `short` and `pass_at_k` train for something else.
DEFAULT = (
    *("grpo", "paper", "v3_2", "dr_grpo", "dapo", "gspo", "gmpo", "sapo", "cispo", "rloo", "reinforce_pp"),
    *("reinforce_pp_baseline", "dual_clip", "clip_cov", "kl_cov", "entropy", "adaptive_entropy"),
)


def algorithm_bench(recipe: Recipe, presets: Sequence[str] = DEFAULT, seeds: int = 5, stage: str = "") -> Recipe:
    """The recipe up to an RL stage, which is trained and measured once per arm and seed, and a table of all arms.

    An arm is a preset, or a preset with other fields: "grpo+kl_coef=0.1". The first one is the reference, and it runs
    once more with other seeds: this null arm must not differ. Prompts, steps, learning rate and rollouts are equal:
    `dynamic_sampling`, which samples more, is off. Without a name, `stage` is `zero` or the only RL stage.

    Raises `SettingsError` for unknown presets and fields, fewer than two arms or seeds, and a stage whose model the
    recipe does not measure.
    """
    if len(set(presets)) < 2 or len(set(presets)) < len(presets):
        raise SettingsError(f"presets are {', '.join(presets) or 'none'}: give at least two different ones")
    if seeds < 2:
        raise SettingsError(f"seeds is {seeds}: differences need at least 2 seeds, and 5 show more")
    trained = rl_stage(recipe, stage)
    measured = [each for each in recipe.stages if each.kind.name == EVALUATE.name]
    evaluation = next((each for each in measured if each.inputs["model"] == trained / "model"), None)
    if evaluation is None:
        raise SettingsError(f"bench: recipe {recipe.name} does not measure the model of stage {trained.name}")
    before = rl_settings(trained)
    arms = [(preset, with_algorithm(before, preset), before.seed) for preset in presets]
    arms.insert(1, (f"{presets[0]}-{NULL}", arms[0][1], before.seed + NULL_SEEDS))
    stages, inputs = list[Stage](), dict[str, Any]()
    for arm, settings, first in arms:
        for seed in range(seeds):
            name = f"{NOT_IN_NAMES.sub('-', arm.lower()).strip('-')}-{seed}"
            training = Stage(name, RL, settings.replace(seed=first + seed), trained.inputs)
            measuring = replace(
                evaluation, name=f"eval-{name}", inputs={**evaluation.inputs, "model": training / "model"}
            )
            stages += [training, measuring]
            inputs[f"training/{arm}/{seed}"] = training / "."
            inputs[f"measured/{arm}/{seed}"] = measuring / "."
    compared = CompareSettings(reference=presets[0], null=arms[1][0])
    last = Stage("algorithms", COMPARE_ALGORITHMS, compared, inputs)
    length = recipe.lengths.get(trained.name)
    lengths = {**recipe.lengths, **({each.name: length for each in stages if each.kind is RL} if length else {})}
    title = f"Algorithms: {recipe.title}, {seeds} seeds"
    # no recipe file repeats a bench
    name = f"{recipe.name}-algorithms"
    return replace(recipe, name=name, stages=(*stages, last), title=title, lengths=lengths, file="")


def with_algorithm(settings: RLSettings, arm: str) -> RLSettings:
    """The settings with the algorithm of an arm, as many rollouts, and what that algorithm needs of the loop."""
    preset, *fields = arm.split("+")
    if preset not in PRESETS:
        raise SettingsError(f"bench: there is no algorithm {preset!r}: {nearest(preset, PRESETS)}")
    changes = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not (name and equals and value):
            raise SettingsError(f"bench: {field!r} of {arm!r} is not FIELD=VALUE, as in grpo+kl_coef=0.1")
        changes[name] = value
    algorithm = PRESETS[preset].override({"dynamic_sampling": 0, **changes}, prefix=f"bench.{preset}")
    needs = {"recompute_old_logprobs": True} if algorithm.weighs_importance else {}
    return settings.replace(algorithm=algorithm, **needs)
