"""R1-Zero for any causal language model on one GPU. Its user usually sets the tasks of training and evaluation."""

from __future__ import annotations

from r1kit.recipes.scale import Departures, Scale, Sizes
from r1kit.tasks import TaskSpec
from r1kit.train.learner import OptimizerSettings
from r1kit.train.losses.policy_gradient import PRESETS

GPU = Scale(
    name="gpu",
    model="Qwen/Qwen2.5-0.5B",
    zero=Sizes(
        tasks=(TaskSpec(name="gsm8k"),),
        optimizer=OptimizerSettings(learning_rate=1e-6, warmup_steps=5),
        steps=200,
        prompts_per_step=16,
        group_size=8,
        max_tokens=512,
        checkpoint_every=20,
    ),
    eval=Sizes(tasks=(TaskSpec(name="gsm8k", order="shuffled", limit=500),), samples=4, max_tokens=512, max_rows=256),
    departures=Departures(zero_format={"format": 0.2}, zero_algorithm=PRESETS["grpo"]),
)
