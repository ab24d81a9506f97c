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

# An instruct model of 135M parameters never uses a tag by itself. Two exemplars show it how, and how short to be; the
# opening tag is given, and at temperature 0.8 it stays on the subject: see docs/log.md for what did not work.
SMOLLM2_CHAT = ChatSettings(
    template="chat",
    system="Think step by step inside <think> </think>, then give only the final number inside <answer> </answer>.",
    exemplars=(
        (
            "Ann has 4 pens. She buys 3 more and gives 2 away. How many pens does she have?",
            "<think>Ann has 4 pens. She buys 3 more: 4 + 3 = 7. She gives 2 away: 7 - 2 = 5.</think> "
            "<answer>5</answer>",
        ),
        (
            "A box holds 6 eggs. How many eggs are in 5 boxes?",
            "<think>Each box holds 6 eggs. 5 boxes hold 5 * 6 = 30 eggs.</think> <answer>30</answer>",
        ),
    ),
    prefill="<think>",
)
SMOLLM2 = Scale(
    model="smollm2-135m",
    rl=RLSettings(
        tasks=(TaskSpec(name="gsm8k", order="easiest", limit=2000),),
        rewards=(ACCURACY, FORMAT.model_copy(update={"weight": 0.5})),
        chat=SMOLLM2_CHAT,
        optimizer=OptimizerSettings(learning_rate=3e-5, warmup_steps=2, schedule="linear", final_ratio=0.1),
        steps=24, prompts_per_step=8, group_size=8, temperature=0.8, max_tokens=72, max_rows=64, tokens_per_batch=4096,
        max_prompt_tokens=320, checkpoint_every=4,
    ),
    evaluate=EvaluateSettings(
        tasks=(TaskSpec(name="svamp"),),
        chat=SMOLLM2_CHAT, samples=1, temperature=0.0, max_tokens=72,
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
