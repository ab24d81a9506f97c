"""DeepSeek-R1: cold start, reasoning RL, rejection sampling with SFT 2, RL for all scenarios (section 2.3), and
distillation (section 2.4).

Each stage names what it is for: its base, rewards, temperature, prompting and filters. Its steps, lengths, rates and
data are in `recipes/scales/`, in the field of the same name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import External, Output, Recipe, Stage
from r1kit.recipes.builder import Builder, Model, Part
from r1kit.recipes.r1_zero import zero_stage
from r1kit.recipes.scale import Scale
from r1kit.recipes.scales import scale_for
from r1kit.rewards import RewardSpec, weighted
from r1kit.settings import SettingsError
from r1kit.stages.data_requests import DATA_REQUESTS
from r1kit.stages.distill import DISTILL
from r1kit.stages.generate import GENERATE
from r1kit.stages.mix import MIX
from r1kit.stages.on_policy import ON_POLICY
from r1kit.stages.preferences import PREFERENCES
from r1kit.stages.review import REVIEW
from r1kit.stages.reward_model import REWARD_MODEL
from r1kit.stages.rl import RL
from r1kit.stages.sft import SFT
from r1kit.stages.shared.sources import file_input
from r1kit.stages.tiny_requests import TINY_REQUESTS

REQUESTS = ("*/general", "*/harmful")  # sources of prompts that no rule can judge
REASONING_TO_GENERAL = {"reasoning": 3.0, "general": 1.0}  # 600k rows and 200k


def r1(
    *,
    overrides: Mapping[str, Any] | None = None,
    seed: int = 0,
    scale: str | None = None,
    model: str | None = None,
    student: str | None = None,
    data: Mapping[str, Any] | None = None,
    hardware: str | None = None,
    devices: int = 1,
    rehearse: bool = False,
) -> Recipe:
    """R1-Zero, Dev1 to Dev3, R1 and its students, each measured.

    `eval` and `everyday` in `overrides` stand for every measurement. `student` is the base of the students. `data` is
    by role (see `recipes.roles`), `hardware` the device that sizes are chosen for.
    """
    size = scale_for(
        "r1", scale, model, student=student, data=data, hardware=hardware, devices=devices, rehearse=rehearse
    )
    build = r1_builder("r1", size, overrides, seed, model, rehearse)
    reasoning = reasoner(build)
    if not build.scale.for_r1.student:
        return finish(build, "r1", reasoning)
    return finish(build, "r1", reasoning | students(build, reasoning.models["r1"], sft_2_data(reasoning)), teacher="r1")


def reasoner(build: Builder) -> Part:
    """From the base to R1.

    RL for all scenarios is two stages: `rules` has rule rewards only, and `r1` adds the preference rewards. The paper
    uses those in the last 400 of 1,700 steps only, because a policy learns to exploit a reward model. The review queue
    accepts all samples, or asks people with `review.auto_accept=false`.
    """
    scale, size, base = build.scale, build.scale.for_r1, build.base
    rl = {"rewards": rule_rewards(scale), "algorithm": scale.departures.algorithm}

    start = cold_start(build)
    drafts = {f"rows/{stage.name}": stage / "kept.jsonl" for stage in start if stage.kind is GENERATE}
    review = build("review", REVIEW, drafts, size.review)
    dev1 = build("dev1", SFT, {"model": base, "data": review / "kept.jsonl"}, size.dev1)

    dev2 = build("dev2", RL, {"model": dev1 / "model"}, size.dev2, **rl, temperature=scale.departures.temperature)
    rejection = rejection_sampling(build, "rejection", dev2 / "model")

    requests = requests_stage(build)
    general = general_data(build, requests)
    rows = {"rows/reasoning": rejection / "kept.jsonl", "rows/general": general / "kept.jsonl"}
    mix = build("mix", MIX, rows, size.mix, ratios=REASONING_TO_GENERAL)
    dev3 = build("dev3", SFT, {"model": base, "data": mix / "mixed.jsonl"}, size.dev3)  # from the base, not from Dev2

    rules = build("rules", RL, {"model": dev3 / "model"}, size.rules, **rl, temperature=0.7)
    *compared, helpfulness, safety = reward_models(build, dev3 / "model", requests)
    last = build(
        "r1",
        RL,
        {"model": rules / "model", **preference_rewards(helpfulness, safety)},
        size.r1,
        rewards=scenario_rewards(scale),
        algorithm=scale.departures.algorithm,
        temperature=0.7,
    )

    sampled = (*start, review, dev1, dev2, rejection, requests, general, mix)
    zero = {stage.name: stage for stage in start if stage.kind is RL}
    trained = {**zero, "dev1": dev1, "dev2": dev2, "dev3": dev3, "r1": last}
    models: dict[str, Model] = {"base": base} | {name: stage / "model" for name, stage in trained.items()}
    return Part((*sampled, dev3, rules, *compared, helpfulness, safety, last), models)


def cold_start(build: Builder) -> tuple[Stage, ...]:
    """R1-Zero with the samples of it, and given traces: beside these samples, or in place of them and R1-Zero.

    R1-Zero answers by itself (`cold-start`), after exemplars (`few-shot`), and asked to reflect and verify (`reflect`).
    The setting `engine` of these stages names another teacher.
    """
    size, keep = build.scale.for_r1, build.scale.departures.cold_start
    files = {f"requests/{number}": External(path) for number, path in enumerate(size.trace_files)}
    traces = (build("traces", GENERATE, files, size.traces, prompting="traces"),) if size.traces or files else ()
    if not size.from_zero:
        return traces
    zero = zero_stage(build, "zero", build.base, size.zero)
    source = {"model": zero / "model"}
    few_shot = build("few-shot", GENERATE, source, size.few_shot, prompting="few_shot", curate=keep, may_be_empty=True)
    reflect = build(
        "reflect",
        GENERATE,
        source,
        size.reflect,
        prompting="reflect",
        system=build.scale.departures.reflection,
        curate=keep,
        may_be_empty=True,
    )
    alone = build(
        "cold-start", GENERATE, source, size.cold_start, prompting="own", curate=keep, may_be_empty=bool(traces)
    )
    return zero, few_shot, reflect, alone, *traces


def students(build: Builder, teacher: Model, data: Output) -> Part:
    """A smaller base, trained by RL only and by SFT on the teacher's data; and if both have the same tokens, by the
    teacher's logits on that data, and by SFT and then its judgement of what the student itself samples.

    The last one is on-policy distillation, which the paper does not have: its figures come after those that it has.
    """
    size = build.scale.for_r1
    if not size.student:
        raise SettingsError("there is no model to learn from the teacher: name one, as in --student owner/name")
    base = build.model(size.student)
    alone = zero_stage(build, "student-rl", base, size.student_rl)
    traces = build("student-sft", SFT, {"model": base, "data": data}, size.student_sft)
    inputs = {"model": base, "teacher": teacher, "data": data}
    stages: tuple[Stage, ...] = (alone, traces)
    if size.logits:
        stages = (*stages, build("student-logits", DISTILL, inputs, size.student_logits))
    if size.logits and size.student_on_policy is not None:
        inputs = {"model": traces / "model", "teacher": teacher}
        watched = (RewardSpec(name="accuracy", skip=REQUESTS),)  # a curve; nothing learns from it
        stages = (*stages, build("student-on-policy", ON_POLICY, inputs, size.student_on_policy, rewards=watched))
    return Part(stages, {"student": base, **{stage.name: stage / "model" for stage in stages}})


def rule_rewards(scale: Scale) -> tuple[RewardSpec, ...]:
    """Accuracy, format and language consistency, added up (V2, equation 7)."""
    return weighted(("accuracy", "format", scale.departures.language), scale.departures.rule_weights)


def scenario_rewards(scale: Scale) -> tuple[RewardSpec, ...]:
    """Rules for problems, reward models for requests, language for both (V2, equations 8 to 10).

    Helpfulness is the raw score: a sigmoid sees no difference between replies that are all likely to be preferred.
    """
    rules = accuracy, form, language = rule_rewards(scale)
    preferences = (
        RewardSpec(
            name="reward_model",
            label="helpfulness",
            only=("*/general",),
            weight=0.2,
            options={"scale": "raw", "missing": -5.0},
        ),
        RewardSpec(name="reward_model", label="harmlessness", only=REQUESTS),
    )
    if scale.departures.requests_in_format:
        return accuracy.replace(skip=REQUESTS), *preferences, language, form
    spec = scale.departures.language
    reply_language = spec.replace(options={**spec.options, "part": "response"}, only=REQUESTS, label="reply_language")
    return *(rule.replace(skip=REQUESTS) for rule in rules), *preferences, reply_language


def rejection_sampling(build: Builder, name: str, model: Model) -> Stage:
    """Several samples per problem, of which correct and readable ones are kept."""
    sizes, keep = build.scale.for_r1.rejection, build.scale.departures.rejection
    return build(name, GENERATE, {"model": model}, sizes, prompting="own", curate=keep)


def requests_stage(build: Builder) -> Stage:
    """Files of general requests, preference pairs and safety labels, from the tiny world or from the data folder."""
    sizes = build.scale.for_r1
    if not sizes.request_files:
        return build("requests", TINY_REQUESTS, {}, sizes.requests)
    files = {
        name: External.planned(path) if build.planned else file_input(path)
        for name, path in sizes.request_files.items()
    }
    return build("requests", DATA_REQUESTS, files, sizes.requests)


def general_data(build: Builder, requests: Stage) -> Stage:
    """Requests with the responses that the data has: nobody samples."""
    keep = build.scale.departures.general
    inputs = {"requests": requests / "general.jsonl"}
    return build("general", GENERATE, inputs, build.scale.for_r1.general, prompting="reference", curate=keep)


def reward_models(build: Builder, model: Model, requests: Stage) -> tuple[Stage, ...]:
    """Helpfulness and safety, from an SFT checkpoint (V3, section 5.2.1): it knows what a good reply looks like.

    At a scale that cannot train all weights of `model`, they start from a smaller base. If the scale has a judge, pairs
    of the checkpoint's own replies stand beside the given ones: a reward model that never saw the policy's mistakes
    does not know them. The last two stages are the reward models.
    """
    size = build.scale.for_r1
    if size.judge is None:
        raise SettingsError(
            f"{build.scale.model} is too large to train all of its weights on this device, so it is trained with LoRA, "
            "and the reward models need a smaller base: name one, which is also the students' (--student "
            "owner/smaller), name the device of the run if it is not this one (--hardware h100), or train without "
            "reward models (recipe r1-zero)"
        )
    pairs, compared = {"data/given": requests / "preferences.jsonl"}, tuple[Stage, ...]()
    if size.replies:
        replies = build("replies", GENERATE, {"model": model}, size.replies, prompting="own", may_be_empty=True)
        judged = build(
            "preferences", PREFERENCES, {"rows": replies / "samples.jsonl"}, size.preferences, may_be_empty=True
        )
        pairs["data/own"], compared = judged / "preferences.jsonl", (replies, judged)
    model = build.model(size.judge) if size.judge else model
    helpfulness = build(
        "helpfulness",
        REWARD_MODEL,
        {"model": model, **pairs},
        size.helpfulness,
        objective="helpfulness",
        balance_lengths=build.scale.departures.balance_lengths,
    )
    inputs = {"model": model, "data": requests / "safety.jsonl"}
    return *compared, helpfulness, build("safety", REWARD_MODEL, inputs, size.safety, objective="safety")


def preference_rewards(helpfulness: Stage, safety: Stage) -> dict[str, Output]:
    """Reward models as inputs of RL for all scenarios."""
    return {"reward/helpfulness": helpfulness / "model", "reward/harmlessness": safety / "model"}


def r1_builder(
    title: str, size: Scale, overrides: Mapping[str, Any] | None, seed: int, model: str | None, rehearse: bool
) -> Builder:
    """A builder that measures all models by accuracy on problems and by replies to everyday requests."""
    measures = {"eval": size.for_r1.eval, "everyday": size.for_r1.everyday}
    return Builder(title, size, measures, overrides, seed, model, rehearse)


def sft_2_data(part: Part) -> Output:
    """The training data of SFT 2, which the students learn from too."""
    return next(stage for stage in part.stages if stage.name == "mix") / "mixed.jsonl"


def finish(build: Builder, folder: str, part: Part, *, teacher: str = "") -> Recipe:
    """The recipe of all stages with evaluations of all models; students are compared with the column `teacher`."""
    tables = build.measure(part.models)
    return build.recipe(f"{folder}-{build.scale.name}", (*part.stages, *tables.values()), tables, teacher=teacher)
