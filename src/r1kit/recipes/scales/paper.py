"""The recipe as DeepSeek ran it, for `r1kit plan`: too large to run from here.

Numbers are the paper's (V2, sections 2 and 3, B.4) if it gives them. The following are assumed, because nobody
published them: lengths of completions between the points of the figures, the steps of RL stage 1, samples per problem,
and how much of the cold start came from prompting.
"""

from __future__ import annotations

from r1kit.recipes import exemplars
from r1kit.recipes.scale import ExpertSizes, R1Sizes, Scale, Sizes, V3Sizes
from r1kit.stages.sft import SFT_PRESETS
from r1kit.tasks import TaskSpec
from r1kit.train.learner import OptimizerSettings
from r1kit.train.supervised import cosine

UPDATES = 16  # per rollout of 8,192 completions


def problems(count: int) -> tuple[TaskSpec, ...]:
    """Stand-ins for the prompts of the paper, which are not public."""
    return (TaskSpec(name="tiny/reasoning", limit=count),)


def rl(updates: int) -> Sizes:
    """Section 2.1: 32 questions x 16 per update, 16 updates per rollout, learning rate 3e-6, 32,768 tokens."""
    return Sizes(
        tasks=problems(80_000),
        optimizer=OptimizerSettings(learning_rate=3e-6),
        steps=updates // UPDATES,
        prompts_per_step=512,
        group_size=16,
        minibatches=UPDATES,
        max_tokens=32_768,
        activation_checkpointing=True,
    )


# Rejection sampling: assumed that a quarter of 16 samples of each of 150,000 problems is kept, which gives 600k rows.
# 16 engines of 32 devices with 80 GiB each hold the model on all 512.
SAMPLING = Sizes(tasks=problems(150_000), samples=16, max_tokens=32_768, engines=16)
COLD_START = SAMPLING | Sizes(tasks=problems(1_000), samples=4)
EVAL = Sizes(tasks=(TaskSpec(name="aime24"),), samples=64, max_tokens=32_768, max_rows=8)
RECOMPUTED = Sizes(activation_checkpointing=True)
EXPERT = ExpertSizes(
    original=Sizes(tasks=problems(150_000)),
    reflected=SAMPLING | Sizes(samples=1),
    start=Sizes(SFT_PRESETS["v3"]) | RECOMPUTED,
    rl=rl(400),
    data=SAMPLING,
)

PAPER = Scale(
    name="paper",
    model="deepseek-ai/DeepSeek-V3-Base",
    planned=True,
    zero=rl(10_400) | Sizes(tasks=(TaskSpec(name="math"),)),
    eval=EVAL,
    r1=R1Sizes(
        zero=rl(10_400),
        few_shot=COLD_START | Sizes(exemplars=exemplars.MATH),
        reflect=COLD_START,
        cold_start=SAMPLING | Sizes(tasks=problems(5_000)),
        dev1=Sizes(SFT_PRESETS["cold-start"]) | RECOMPUTED,
        dev2=rl(3_000),
        rejection=SAMPLING,
        requests=Sizes(rows=200_000),
        request_files={"general": "general", "preferences": "preferences", "safety": "safety"},
        mix=Sizes(size=804_745),
        dev3=Sizes(SFT_PRESETS["sft-2"]) | RECOMPUTED,
        rules=rl(1_300),
        helpfulness=RECOMPUTED,
        safety=RECOMPUTED,
        r1=rl(400),
        student="Qwen/Qwen2.5-32B",
        student_rl=rl(10_000) | Sizes(max_rows=8),  # of 32,768 tokens: 64 GB
        student_sft=Sizes(SFT_PRESETS["distill-qwen-32b"]) | RECOMPUTED,
        student_logits=RECOMPUTED | Sizes(epochs=2, optimizer=cosine(6e-5, 6e-6)),
        eval=EVAL,
        everyday=Sizes(
            tasks=(TaskSpec(name="r1kit.tasks.public_requests:harmful", limit=1_120),), max_tokens=8192, max_rows=8
        ),
    ),
    v3=V3Sizes(
        experts=dict.fromkeys(("math", "code", "logic"), EXPERT),
        mix=Sizes(size=1_500_000),
        sft=Sizes(SFT_PRESETS["v3"]) | RECOMPUTED,
        rl=rl(1_600),
    ),
    # Means over a stage, read from V1's figure 3 and V2's table 5.
    lengths={
        "rl": 5_800,
        "zero": 5_800,
        "few-shot": 5_800,
        "reflect": 5_800,
        "cold-start": 5_800,
        "dev1": 5_800,
        "dev2": 6_000,
        "rejection": 5_900,
        "dev3": 5_355,
        "rules": 6_000,
        "r1": 5_000,
        "helpfulness": 1_500,
        "safety": 1_500,
        "student-rl": 4_000,
        "student-sft": 5_355,
        "student-logits": 5_355,
        "eval": 8_800,
        "everyday": 1_500,
    },
)
