"""How large a run is: which model, which tasks, how many steps. One recipe, several sizes."""

from __future__ import annotations

from dataclasses import dataclass

from r1kit.chat import ChatFormat
from r1kit.rewards import RewardSpec
from r1kit.settings import SettingsError
from r1kit.stages.evaluate import EvaluateSettings
from r1kit.stages.rl import RLSettings
from r1kit.tasks import TaskSpec
from r1kit.tiny.frame import TINY_SYSTEM
from r1kit.train.learner import OptimizerSettings
from r1kit.train.losses.policy_gradient import PRESETS


@dataclass(frozen=True)
class Scale:
    """A base model's name, and the settings of training and evaluation on it."""

    model: str
    rl: RLSettings
    evaluate: EvaluateSettings


ACCURACY, FORMAT = RewardSpec(name="accuracy"), RewardSpec(name="format")

TINY_CHAT = ChatFormat(system=TINY_SYSTEM)
TINY = Scale(
    model="tiny",
    rl=RLSettings(
        tasks=(TaskSpec(name="tiny/reasoning", limit=20_000),),
        rewards=(ACCURACY, FORMAT.replace(weight=0.2)),
        chat=TINY_CHAT,
        optimizer=OptimizerSettings(learning_rate=2e-4, schedule="linear", final_ratio=0.05),
        steps=70,
        prompts_per_step=32,
        group_size=8,
        max_tokens=160,
        max_rows=256,
        tokens_per_batch=8192,
    ),
    evaluate=EvaluateSettings(
        tasks=(TaskSpec(name="tiny/reasoning", limit=500),), chat=TINY_CHAT, samples=4, max_tokens=160, max_rows=256
    ),
)

# An instruct model of 135M parameters that never uses a tag by itself and calculates badly. It learns from single
# calculations of GSM8K's solutions, as whole problems give it nothing to learn from. The paper's prompt with a worked
# example in place of "reasoning process here", which it would learn to repeat; unscaled advantages, so that among wrong
# answers the format is worth a fifth of a right one and not as much: docs/log.md.
SMOLLM2_CHAT = ChatFormat(
    template="chat",
    system=(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
        "i.e., <think> 48 / 2 = 24 </think> <answer> 24 </answer>"
    ),
    prefill="<think>",
)
SMOLLM2 = Scale(
    model="smollm2-135m",
    rl=RLSettings(
        tasks=(TaskSpec(name="gsm8k", calculations=True, order="easiest", limit=8000),),
        rewards=(ACCURACY, *(RewardSpec(name=name, weight=0.1) for name in ("tag_count", "format"))),
        algorithm=PRESETS["dr_grpo"],
        chat=SMOLLM2_CHAT,
        optimizer=OptimizerSettings(learning_rate=1e-5, warmup_steps=1, schedule="linear", final_ratio=0.1),
        steps=45,
        prompts_per_step=8,
        group_size=16,
        temperature=0.9,
        max_tokens=48,
        max_rows=256,
        tokens_per_batch=2048,
        checkpoint_every=5,
    ),
    evaluate=EvaluateSettings(
        tasks=(TaskSpec(name="svamp"),), chat=SMOLLM2_CHAT, samples=2, max_tokens=48, max_rows=256
    ),
)

# Any causal language model on one GPU; what is trained on and measured on is usually set by its user.
GPU = Scale(
    model="Qwen/Qwen2.5-0.5B",
    rl=RLSettings(
        tasks=(TaskSpec(name="gsm8k"),),
        rewards=(ACCURACY, FORMAT.replace(weight=0.2)),
        optimizer=OptimizerSettings(learning_rate=1e-6, warmup_steps=5),
        steps=200,
        prompts_per_step=16,
        group_size=8,
        max_tokens=512,
        checkpoint_every=20,
    ),
    evaluate=EvaluateSettings(
        tasks=(TaskSpec(name="gsm8k", order="shuffled", limit=500),), samples=4, max_tokens=512, max_rows=256
    ),
)

# R1-Zero as the paper has it (section 2.1): 32 questions x 16 per update, 16 updates per rollout, beta 0.001, the
# reference replaced every 400 updates (= 25 rollouts), learning rate 3e-6, temperature 1, 32,768 tokens.
PAPER = Scale(
    model="deepseek-ai/DeepSeek-V3-Base",
    rl=RLSettings(
        tasks=(TaskSpec(name="math"),),
        rewards=(ACCURACY, FORMAT),
        optimizer=OptimizerSettings(learning_rate=3e-6),
        algorithm=PRESETS["paper"],
        steps=650,
        prompts_per_step=512,
        group_size=16,
        minibatches=16,
        max_tokens=32_768,
    ),
    evaluate=EvaluateSettings(tasks=(TaskSpec(name="aime24"),), samples=64, max_tokens=32_768),
)

SCALES = {"tiny": TINY, "smollm2": SMOLLM2, "gpu": GPU, "paper": PAPER}


def scale_of(name: str) -> Scale:
    """A scale by name; raises `SettingsError` that lists them."""
    if name not in SCALES:
        raise SettingsError(f"there is no scale {name!r}: give one of {', '.join(SCALES)}")
    return SCALES[name]


def scale_for(model: str | None) -> str:
    """The name of the scale that a model is trained at where its user names none."""
    return next((name for name, scale in SCALES.items() if model in (None, scale.model)), "gpu")
