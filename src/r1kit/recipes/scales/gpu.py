"""Any causal language model on one device, on data by role: sizes follow from the model and the device (`sizing`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from glob import escape

from r1kit.models.facts import ModelFacts, facts_of
from r1kit.recipes import exemplars
from r1kit.recipes.roles import Data, at_hand, data_by_role, limited
from r1kit.recipes.scale import Departures, ExpertSizes, Fit, R1Sizes, Scale, Sizes, V3Sizes, V4Sizes
from r1kit.recipes.sizing import GROUP, Device, Sizing, device_for, sizing, trains_fully
from r1kit.rewards import RewardSpec
from r1kit.settings import SettingsError
from r1kit.tasks import TaskSpec
from r1kit.train.learner import OptimizerSettings
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.supervised import cosine


@dataclass(frozen=True, slots=True)
class Amounts:
    """Steps of RL stages, problems that are sampled, and rows of requests."""

    zero: int
    reasoning: int
    rules: int
    scenarios: int
    student: int
    prompted: int
    cold_start: int
    rejection: int
    traces: int
    requests: int


ON_GPU = Amounts(200, 200, 40, 40, 100, 400, 4000, 4000, 4000, 4000)
ON_CPU = Amounts(40, 30, 5, 5, 20, 40, 200, 200, 400, 200)  # hours for SmolLM2-135M on two cores


def fitted(fit: Fit) -> Scale:
    """The scale for a model, a device and data. Raises `SettingsError` for a model or student that does not fit."""
    device, facts, data = device_for(fit.hardware, rehearse=fit.rehearse), facts_of(fit.model), data_by_role(fit.data)
    if fit.rehearse:
        data = at_hand(data)
    size = sizing(fit.model, facts, device, fit.devices)
    build = GpuSizes(size, facts, data, ON_CPU if device.is_cpu else ON_GPU)
    return replace(
        GPU,
        model=fit.model,
        zero=build.rl(build.amounts.zero),
        eval=build.eval,
        r1=build.r1(fit, device),
        v3=build.v3(),
        v4=build.v4(),
        notes=(size.as_text(fit.model, facts), *data.notes),
    )


class GpuSizes:
    """Builds the sizes of stages from the sizing of a model."""

    def __init__(self, size: Sizing, facts: ModelFacts, data: Data, amounts: Amounts) -> None:
        self.size, self.facts, self.data, self.amounts, self.chat = size, facts, data, amounts, facts.chat
        # some templates drop <think> blocks of earlier answers, and with them the point of exemplars
        self.reply_format = "think_answer" if facts.keeps_reasoning else "special_token"
        self.lora = Sizes(lora_rank=size.lora_rank, lora_alpha=2 * size.lora_rank) if size.lora_rank else Sizes()
        if size.lora_rank and not size.device.is_cpu:
            self.lora["weights_dtype"] = "bf16"  # they are frozen
        self.shared = Sizes() if size.shard or size.devices == 1 else Sizes(shard=False)
        self.eval = self.sampled(()) | Sizes(tasks=data.eval, chat=self.chat, samples=4)
        del self.eval["max_prompt_tokens"]

    def rl(self, steps: int, *more: TaskSpec) -> Sizes:
        size = self.size
        shared = self.lora | self.shared
        return shared | Sizes(
            tasks=(*self.data.problems, *more),
            chat=self.chat,
            optimizer=OptimizerSettings(learning_rate=size.rl_rate, warmup_steps=min(5, steps // 2)),
            steps=steps,
            prompts_per_step=size.row.prompts,
            group_size=GROUP,
            max_tokens=size.max_tokens,
            max_prompt_tokens=size.prompt_tokens,
            max_rows=size.max_rows,
            tokens_per_batch=size.tokens_per_batch,
            activation_checkpointing=size.recompute,
            checkpoint_every=max(1, steps // 10),
        )

    def scenarios(self, steps: int) -> Sizes:
        """RL for all scenarios: as many requests and harmful prompts together as problems."""
        share = len(self.data.problems) / 2
        requests = TaskSpec(name=f"requests:{self.data.requests}", limit=4 * self.amounts.requests, weight=share)
        harmful = TaskSpec(name=f"harmful:{self.data.safety}", limit=4 * self.amounts.requests, weight=share)
        return self.rl(steps, requests, harmful)

    def training(self, rate: float) -> Sizes:
        size = self.size
        return self.shared | Sizes(
            chat=self.chat,
            optimizer=cosine(rate, rate / 10),
            epochs=2,
            batch_size=32,
            max_tokens=size.row_tokens,
            tokens_per_batch=size.tokens_per_batch,
            activation_checkpointing=size.recompute,
        )

    @property
    def sft(self) -> Sizes:
        return self.training(self.size.sft_rate) | self.lora | Sizes(plain_rows="close")

    def sampled(self, tasks: tuple[TaskSpec, ...], samples: int = 4) -> Sizes:
        size = self.size
        return Sizes(
            tasks=tasks,
            samples=samples,
            max_tokens=size.max_tokens,
            max_prompt_tokens=size.prompt_tokens,
            max_rows=size.max_rows,
        )

    def own(self, count: int, seed: int, samples: int = 4) -> Sizes:
        """Sampling in the format of RL's prompts."""
        return self.sampled(self.problems(count, seed), samples) | Sizes(chat=self.chat)

    def problems(self, count: int, seed: int) -> tuple[TaskSpec, ...]:
        """`count` training problems, the same number from each set."""
        each = max(1, count // len(self.data.problems))
        return tuple(limited(spec, each, seed) for spec in self.data.problems)

    def r1(self, fit: Fit, device: Device) -> R1Sizes:
        data, many = self.data, self.amounts
        judge = fit.student if self.size.lora_rank else ""
        if judge and not trains_fully(facts_of(judge), device, fit.devices):
            raise SettingsError(
                f"the student {judge} is too large for {device.name}: reward models start from it when {fit.model} "
                "itself is trained with LoRA, and all of their weights are trained, so name a smaller student"
            )
        rewards = self.training(self.size.row.sft_rate / 2) | Sizes(epochs=1)
        return R1Sizes(
            traces=Sizes(tasks=tuple(limited(spec, many.traces) for spec in data.traces)) if data.traces else Sizes(),
            trace_files=data.trace_files,
            from_zero=data.from_zero,
            zero=self.rl(many.zero),
            few_shot=self.sampled(self.problems(many.prompted, 5))
            | Sizes(exemplars=exemplars.MATH, reply_format=self.reply_format),
            reflect=self.sampled(self.problems(many.prompted, 6)),
            cold_start=self.own(many.cold_start, 1, samples=2),
            review=Sizes(auto_accept=True),
            dev1=self.sft,
            dev2=self.rl(many.reasoning),
            rejection=self.own(many.rejection, 2),
            requests=Sizes(rows=many.requests, max_chars=3 * self.size.row_tokens),
            request_files={"general": data.requests, "preferences": data.preferences, "safety": data.safety},
            dev3=self.sft,
            rules=self.rl(many.rules),
            judge=judge,
            helpfulness=rewards,
            safety=rewards,
            r1=self.scenarios(many.scenarios),
            student=fit.student or "",
            logits=fit.student is not None
            and facts_of(fit.student).tokens == facts_of(fit.teacher or fit.model).tokens,
            student_rl=self.rl(many.student),
            student_sft=self.sft,
            student_logits=self.sft,
            student_on_policy=self.on_policy(many.student),
            eval=self.eval,
            everyday=self.eval | Sizes(tasks=data.everyday, samples=1),
        )

    def v3(self) -> V3Sizes:
        scenarios = self.scenarios(self.amounts.scenarios)
        return V3Sizes(experts={"reasoning": self.expert()}, sft=self.sft, rl=scenarios)

    def v4(self) -> V4Sizes:
        """An expert for each set or file of problems."""
        many = self.amounts
        domains: dict[str, list[TaskSpec]] = {}
        for spec in self.data.problems:
            domains.setdefault(spec.source.problem_source(spec), []).append(spec)
        labels = dict(zip(domains, domain_labels(domains), strict=True))
        return V4Sizes(
            experts={labels[source]: self.expert(tuple(specs)) for source, specs in domains.items()},
            domains={label: (escape(source),) for source, label in labels.items()} if len(labels) > 1 else {},
            start=self.sft,
            merge=self.on_policy(many.student),
            sft=self.sft,
            rl=self.rl(many.student),
        )

    def on_policy(self, steps: int) -> Sizes:
        """One completion per prompt: the teacher judges each token, so there is no group to compare."""
        size = self.size
        return self.rl(steps) | Sizes(
            group_size=1,
            prompts_per_step=4 * size.row.prompts,
            optimizer=OptimizerSettings(learning_rate=size.sft_rate, warmup_steps=min(5, steps // 2)),
        )

    def expert(self, problems: tuple[TaskSpec, ...] = ()) -> ExpertSizes:
        """An expert on some problems, or on all."""
        data = replace(self.data, problems=problems or self.data.problems)
        build = GpuSizes(self.size, self.facts, data, self.amounts)
        return ExpertSizes(
            original=build.own(self.amounts.rejection, 3),
            reflected=build.own(self.amounts.rejection, 3),
            start=build.sft,
            rl=build.rl(self.amounts.reasoning),
            data=build.own(self.amounts.rejection, 4),
        )


def domain_labels(sources: Iterable[str]) -> list[str]:
    """Short names, all different, for the sources of problems: "mine" for "data/mine"."""
    labels: list[str] = []
    for source in sources:
        short = re.sub(r"[^\w.-]+", "-", source.rpartition("/")[2]).strip("-") or "problems"
        labels.append(short if short not in labels else f"{short}-{len(labels)}")
    return labels


GPU = Scale(
    name="gpu",
    model="Qwen/Qwen2.5-0.5B",
    zero=Sizes(),
    eval=Sizes(),
    departures=Departures(
        zero_format={"format": 0.2},
        rule_weights=(1.0, 0.2, 0.2),
        language=RewardSpec(name="language_consistency", options={"detect": "script"}),
        requests_in_format=False,  # public replies come without reasoning
        zero_algorithm=PRESETS["grpo"],
        # A group of wrong answers must not learn as much from the format as others from a right answer: docs/log.md.
        algorithm=PRESETS["dr_grpo"],
        v3_algorithm=PRESETS["dr_grpo"],
        original="own",
    ),
    fit=fitted,
)
