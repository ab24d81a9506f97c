"""The tiny world on its own base model: the whole recipe in minutes on two cores."""

from __future__ import annotations

from r1kit.curate import presets
from r1kit.engines.engine_settings import OwnEngineSettings
from r1kit.recipes import exemplars
from r1kit.recipes.scale import Departures, ExpertSizes, R1Sizes, Scale, Sizes, V3Sizes, V4Sizes
from r1kit.rewards import RewardSpec
from r1kit.stages.shared.probe import ProbeSettings
from r1kit.tasks import TaskSpec
from r1kit.tiny.frame import TINY_CHAT, TINY_SYSTEM
from r1kit.train.learner import OptimizerSettings
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.supervised import cosine


def problems(limit: int, seed: int, *names: str) -> tuple[TaskSpec, ...]:
    """Problems for sampling; RL's have seed 0."""
    return tuple(TaskSpec(name=f"tiny/{name}", limit=limit, seed=seed) for name in names or ("reasoning",))


def linear(learning_rate: float, warmup_steps: int = 0) -> OptimizerSettings:
    return OptimizerSettings(
        learning_rate=learning_rate, warmup_steps=warmup_steps, schedule="linear", final_ratio=0.05
    )


RL = Sizes(
    tasks=problems(20_000, 0),
    chat=TINY_CHAT,
    prompts_per_step=32,
    group_size=8,
    max_tokens=160,
    max_rows=256,
    tokens_per_batch=2048,  # activations of a larger batch leave the cache
)
# Two updates per rollout: half of the samples, and half of the time, for a base that is as right. With four, the policy
# settles on one language, and R1-Zero no longer mixes them.
ZERO = RL | Sizes(steps=36, minibatches=2, optimizer=linear(2e-4))
# A policy that reasons already must begin with small updates: at 2e-4 without warm-up it loses ten points in 3 steps.
REFINE = RL | Sizes(optimizer=linear(1e-4, warmup_steps=3))
SFT = Sizes(chat=TINY_CHAT, epochs=2, batch_size=32, max_tokens=None, optimizer=cosine(5e-4, 5e-5))
REWARD_MODEL = Sizes(chat=TINY_CHAT, epochs=1, batch_size=32, max_tokens=None, optimizer=cosine(3e-4, 3e-5))
SAMPLING = Sizes(samples=4, max_tokens=160, max_rows=256)
EVAL = Sizes(
    tasks=(TaskSpec(name="tiny/reasoning", limit=500),), chat=TINY_CHAT, samples=4, max_tokens=160, max_rows=256
)

REPLIES = (TaskSpec(name="tiny/general", weight=0.6), TaskSpec(name="tiny/harmful", weight=0.4))
PRACTICE = TaskSpec(name="tiny/general", split="practice", limit=2100)  # all 2,091 requests that are in no row for SFT
# The tiny world's own judgement, on requests and problems that nothing else uses. A policy can fool reward models but
# not these rules, so they tell when to stop.
WATCHED = ProbeSettings(
    tasks=(
        TaskSpec(name="tiny/reasoning", split="train", seed=9, limit=60),
        TaskSpec(name="tiny/general", split="validation"),
        TaskSpec(name="tiny/harmful", split="validation"),
    ),
    max_tokens=160,
    max_rows=256,
)
SCENARIOS = REFINE | Sizes(
    steps=20,
    minibatches=2,
    prompts_per_step=48,
    tasks=(*RL["tasks"], *REPLIES, PRACTICE),
    probe=WATCHED,
    probe_every=5,
    patience=3,
)


def expert(*names: str) -> ExpertSizes:
    sampled = SAMPLING | Sizes(tasks=problems(200, 3, *names))
    return ExpertSizes(
        original=sampled,
        reflected=sampled,
        start=SFT,
        rl=REFINE | Sizes(steps=15, tasks=problems(10_000, 0, *names)),
        data=SAMPLING | Sizes(tasks=problems(300, 4, *names)),
    )


# V3's and V4's experts: arithmetic, and looking at things one by one.
DOMAINS = {"math": ("sums", "words"), "logic": ("compare", "count", "cups")}
EXPERTS = {domain: expert(*names) for domain, names in DOMAINS.items()}
ON_POLICY = Sizes(
    tasks=problems(20_000, 0),
    chat=TINY_CHAT,
    optimizer=linear(2e-4, warmup_steps=2),
    prompts_per_step=64,
    max_tokens=160,
    max_rows=256,
    tokens_per_batch=2048,
)

TINY = Scale(
    name="tiny",
    model="tiny",
    light=True,
    largest=2e6,
    zero=ZERO,
    eval=EVAL,
    r1=R1Sizes(
        zero=ZERO,
        few_shot=SAMPLING
        | Sizes(tasks=problems(60, 5), exemplars=exemplars.TINY, system=TINY_SYSTEM, reply_format="think_answer"),
        reflect=SAMPLING | Sizes(tasks=problems(60, 6)),
        cold_start=SAMPLING | Sizes(tasks=problems(2000, 1), samples=2),
        review=Sizes(auto_accept=True),
        dev1=SFT | Sizes(epochs=3),
        dev2=REFINE | Sizes(steps=24, minibatches=2),
        rejection=SAMPLING | Sizes(tasks=problems(600, 2)),
        requests=Sizes(),
        dev3=SFT,
        rules=REFINE | Sizes(steps=5),
        replies=SAMPLING | Sizes(tasks=(PRACTICE,), samples=8, max_tokens=32),
        preferences=Sizes(
            judge=OwnEngineSettings(model="tiny", path="r1kit.judges.tiny_judge:TinyJudge"), pairs_per_request=6
        ),
        helpfulness=REWARD_MODEL | Sizes(chat=TINY_CHAT.replace(system="")),  # two thirds of a row would be system line
        safety=REWARD_MODEL,
        r1=SCENARIOS,
        student="tiny-half",
        student_rl=RL | Sizes(steps=28, minibatches=2, optimizer=linear(2e-4)),
        student_sft=SFT | Sizes(epochs=4),
        student_logits=SFT,
        student_on_policy=ON_POLICY | Sizes(steps=30, tasks=(*problems(20_000, 0), *REPLIES)),
        eval=EVAL | Sizes(samples=2),  # ten models; two samples are enough, since the intervals are by problem
        everyday=Sizes(
            tasks=tuple(TaskSpec(name=f"tiny/{name}") for name in ("general", "instructions", "harmful", "harmless")),
            chat=TINY_CHAT,
            samples=2,
            max_tokens=64,
            max_rows=256,
        ),
    ),
    v3=V3Sizes(experts=EXPERTS, sft=SFT, rl=SCENARIOS),
    v4=V4Sizes(
        experts=EXPERTS,
        domains={domain: tuple(f"tiny/{name}" for name in names) for domain, names in DOMAINS.items()},
        start=SFT,
        merge=ON_POLICY | Sizes(steps=30),
        sft=SFT | Sizes(epochs=4),
        rl=REFINE | Sizes(steps=15),
    ),
    departures=Departures(
        zero_format={"format": 0.2},
        # With weight 1 each the tiny policy gives up accuracy for language: in 15 steps accuracy falls from 0.89 to
        # 0.78 while its language rises from 0.88 to 0.97.
        rule_weights=(1.0, 0.2, 0.3),
        language=RewardSpec(name="language_consistency", options={"detect": "script"}),
        requests_in_format=False,  # the tiny world's requests are answered without reasoning
        zero_algorithm=PRESETS["grpo"],
        # Advantages are not divided by the group's deviation. Otherwise a group of right answers learns as much from a
        # stray word of another language as other groups learn from a wrong answer.
        algorithm=PRESETS["dr_grpo"],
        v3_algorithm=PRESETS["dr_grpo"],
        balance_lengths=False,
        # All requests of the tiny world are alike ("say cat", "say dog"): most would be dropped as near duplicates.
        general=presets.GENERAL.replace(near_duplicates=()),
        reflection="think, check each step, then answer: <think> steps </think> <answer> number </answer>",
        original="own",  # the base model's answers, if they are right
    ),
    lengths=dict.fromkeys(
        ("rl", "zero", "few-shot", "reflect", "cold-start", "dev2", "rejection", "rules", "student-rl"), 50
    )
    | {"r1": 40},
)
