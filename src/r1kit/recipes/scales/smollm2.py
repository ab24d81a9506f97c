"""The recipe on SmolLM2-135M and public data, small enough for an hour on two cores.

It shows that every stage runs on a real model, not what such a model can learn.
"""

from __future__ import annotations

from r1kit.chat import ChatFormat
from r1kit.curate.balance import BalanceSettings
from r1kit.curate.curation import CurateSettings
from r1kit.curate.filters import FilterSpec
from r1kit.recipes import exemplars
from r1kit.recipes.scale import Departures, ExpertSizes, R1Sizes, Scale, Sizes, V3Sizes
from r1kit.rewards import RewardSpec
from r1kit.tasks import TaskSpec
from r1kit.train.learner import OptimizerSettings
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.supervised import cosine

PROMPTS = 64


def gsm8k(limit: int) -> TaskSpec:
    """Single calculations of GSM8K's solutions: the model solves too few whole problems to learn from them."""
    return TaskSpec(name="gsm8k", calculations="alone", order="easiest", limit=limit)


def requests(name: str, **fields: float) -> TaskSpec:
    return TaskSpec.parse({"name": f"r1kit.tasks.public_requests:{name}", **fields})


def curated(*filters: str) -> CurateSettings:
    """Fewer filters than the paper's, which would leave none of 64 problems."""
    return CurateSettings(
        filters=tuple(FilterSpec(name=name) for name in filters), balance=BalanceSettings(per_problem=2)
    )


# The paper's prompt with a worked example in place of "reasoning process here", which the model would learn to repeat.
# It is an instruct model that never writes a tag by itself, so the prompt also opens the reasoning.
CHAT = ChatFormat(
    template="chat",
    system=(
        "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
        "reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
        "i.e., <think> 48 / 2 = 24 </think> <answer> 24 </answer>"
    ),
    prefill="<think>",
)
# Once trained, the model is asked without the opening tag, because requests are answered without one.
TALK = ChatFormat(template="chat", system=CHAT.system)
PREFILLED = Sizes(prefill="<think>")  # the same opening for prompts that are built from examples or instructions

RL = Sizes(
    optimizer=OptimizerSettings(learning_rate=1e-5, warmup_steps=1, schedule="linear", final_ratio=0.1),
    prompts_per_step=8,
    max_tokens=48,
    max_rows=256,
    tokens_per_batch=2048,
    checkpoint_every=5,
)
SHORT_RL = RL | Sizes(tasks=(gsm8k(200),), chat=TALK, steps=2, group_size=4)
SCENARIOS = SHORT_RL | Sizes(
    tasks=(gsm8k(200), requests("general", limit=PROMPTS, weight=0.5), requests("harmful", limit=PROMPTS, weight=0.5))
)
TRAINING = Sizes(chat=TALK, epochs=1, batch_size=8, max_tokens=512, tokens_per_batch=2048)
SFT = TRAINING | Sizes(optimizer=cosine(2e-5, 2e-6))
REWARD_MODEL = TRAINING | Sizes(optimizer=cosine(1e-5, 1e-6))
SAMPLING = Sizes(
    tasks=(gsm8k(PROMPTS),), samples=8, temperature=0.8, max_tokens=48, max_rows=128, max_prompt_tokens=320
)
COLD_START = SAMPLING | PREFILLED | Sizes(tasks=(gsm8k(PROMPTS // 2),), samples=4)
ASKED = SAMPLING | Sizes(chat=CHAT)
EVAL = Sizes(tasks=(TaskSpec(name="svamp"),), chat=CHAT, samples=2, max_tokens=48, max_rows=256)
KEPT = curated("not_correct", "truncated", "not_in_format", "repetition")

SMOLLM2 = Scale(
    name="smollm2",
    model="smollm2-135m",
    largest=3e8,
    zero=RL | Sizes(tasks=(gsm8k(8000),), chat=CHAT, steps=45, group_size=16),
    eval=EVAL,
    r1=R1Sizes(
        zero=SHORT_RL | Sizes(chat=CHAT),
        few_shot=COLD_START | Sizes(exemplars=exemplars.SMOLLM2, reply_format="think_answer"),
        reflect=COLD_START,
        cold_start=SAMPLING,
        review=Sizes(auto_accept=True),
        dev1=SFT,
        dev2=SHORT_RL,
        rejection=ASKED,
        requests=Sizes(rows=PROMPTS, max_chars=900),
        request_files={"general": "alpaca-demo", "preferences": "dpo-demo", "safety": "hh-harmless-test"},
        dev3=SFT,
        rules=SHORT_RL | Sizes(steps=1),
        helpfulness=REWARD_MODEL,
        safety=REWARD_MODEL,
        r1=SCENARIOS,
        student="smollm2-135m",  # there is no smaller model at hand
        student_rl=SHORT_RL | Sizes(chat=CHAT),
        student_sft=SFT,
        student_logits=SFT,
        eval=EVAL | Sizes(tasks=(TaskSpec(name="svamp", limit=32),), samples=1),
        everyday=Sizes(
            tasks=(requests("harmful", limit=16), requests("harmless", limit=16)), chat=TALK, samples=1, max_tokens=48
        ),
    ),
    v3=V3Sizes(
        experts={"math": ExpertSizes(original=ASKED, reflected=ASKED, start=SFT, rl=SHORT_RL, data=ASKED)},
        sft=SFT,
        rl=SCENARIOS,
    ),
    departures=Departures(
        zero_format={"tag_count": 0.1, "format": 0.1},  # a reward for each tag: the model never writes all by chance
        rule_weights=(1.0, 0.3, 0.3),
        language=RewardSpec(name="language_consistency", options={"detect": "script"}),
        requests_in_format=False,
        # Advantages are not divided by the group's deviation. In a group of wrong answers the format would otherwise be
        # worth as much as a right answer, not a fifth of it: docs/log.md.
        zero_algorithm=PRESETS["dr_grpo"],
        algorithm=PRESETS["dr_grpo"],
        v3_algorithm=PRESETS["dr_grpo"],
        temperature=0.9,
        balance_lengths=False,
        cold_start=KEPT,
        rejection=KEPT,
        general=curated("repetition"),
        reflection=CHAT.system + " Check each step.",
        original="own",
    ),
)
