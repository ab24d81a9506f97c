"""How large a run is: which model, which tasks, how many steps. One recipe, several sizes."""

from __future__ import annotations

from dataclasses import dataclass

from r1kit.rewards import RewardSpec
from r1kit.settings import SettingsError
from r1kit.stages.evaluate import EvaluateSettings
from r1kit.stages.rl import RLSettings
from r1kit.stages.shared import ChatSettings
from r1kit.tasks import TaskSpec
from r1kit.tiny.format import TINY_SYSTEM
from r1kit.train.learner import OptimizerSettings
from r1kit.train.losses import PRESETS


@dataclass(frozen=True)
class Scale:
    """A base model's name, and the settings of training and evaluation on it."""

    model: str
    rl: RLSettings
    evaluate: EvaluateSettings


ACCURACY, FORMAT = RewardSpec(name="accuracy"), RewardSpec(name="format")

TINY_CHAT = ChatSettings(system=TINY_SYSTEM)
TINY = Scale(
    model="tiny",
    rl=RLSettings(
        tasks=(TaskSpec(name="tiny/reasoning", limit=20_000),),
        rewards=(ACCURACY, FORMAT.model_copy(update={"weight": 0.2})),
        chat=TINY_CHAT,
        optimizer=OptimizerSettings(learning_rate=2e-4, schedule="linear", final_ratio=0.05),
        steps=70, prompts_per_step=32, group_size=8, max_tokens=160, max_rows=256, tokens_per_batch=8192,
    ),
    evaluate=EvaluateSettings(
        tasks=(TaskSpec(name="tiny/reasoning", limit=500),), chat=TINY_CHAT, samples=4, max_tokens=160, max_rows=256
    ),
)  # fmt: skip

# An instruct model of 135M parameters never uses a tag by itself and calculates badly. One exemplar and the opening tag
# show it the format, which it then keeps half of the time; GSM8K with all but the last step given has the most right
# answers. A higher rate or more steps end in one calculation for everything: docs/log.md.
SMOLLM2_CHAT = ChatSettings(
    template="chat",
    system="Think step by step inside <think> </think>, then give only the final number inside <answer> </answer>.",
    exemplars=(
        (
            "Tim read 15 pages on Monday and 9 pages on Tuesday. How many more pages did he read on Monday?",
            "<think>15 - 9 = 6.</think> <answer>6</answer>",
        ),
    ),
    prefill="<think>",
)
SMOLLM2 = Scale(
    model="smollm2-135m",
    rl=RLSettings(
        tasks=(TaskSpec(name="gsm8k", calculations=True, order="easiest", limit=8000),),
        rewards=(ACCURACY, FORMAT.model_copy(update={"weight": 0.3})),
        chat=SMOLLM2_CHAT,
        optimizer=OptimizerSettings(learning_rate=5e-6, warmup_steps=1, schedule="linear", final_ratio=0.1),
        steps=16, prompts_per_step=8, group_size=16, temperature=0.8, max_tokens=48, max_rows=128,
        tokens_per_batch=4096, max_prompt_tokens=320, checkpoint_every=4,
    ),
    evaluate=EvaluateSettings(
        tasks=(TaskSpec(name="svamp"),), chat=SMOLLM2_CHAT, samples=4, max_tokens=48, max_rows=256
    ),
)  # fmt: skip

# R1-Zero as the paper has it (section 2.1): 32 questions x 16 per update, 16 updates per rollout, beta 0.001, the
# reference replaced every 400 updates (= 25 rollouts), learning rate 3e-6, temperature 1, 32,768 tokens.
PAPER = Scale(
    model="deepseek-ai/DeepSeek-V3-Base",
    rl=RLSettings(
        tasks=(TaskSpec(name="math"),),
        rewards=(ACCURACY, FORMAT),
        optimizer=OptimizerSettings(learning_rate=3e-6),
        algorithm=PRESETS["paper"],
        steps=650, prompts_per_step=512, group_size=16, minibatches=16, max_tokens=32_768,
    ),
    evaluate=EvaluateSettings(tasks=(TaskSpec(name="aime24"),), samples=64, max_tokens=32_768),
)  # fmt: skip

SCALES = {"tiny": TINY, "smollm2": SMOLLM2, "paper": PAPER}


def scale_of(name: str) -> Scale:
    """A scale by name; raises `SettingsError` that lists them."""
    if name not in SCALES:
        raise SettingsError(f"there is no scale {name!r}: give one of {', '.join(SCALES)}")
    return SCALES[name]
