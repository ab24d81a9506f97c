"""TRL's side of GRPO: its GRPOTrainer, configured for a CPU and timed. README.md explains the configuration."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import torch
from _transformers_side import cache
from _workload import TRAINER, Job, Result, Rollouts, Step, reward
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from r1kit.chat import end_ids
from r1kit.train.rl.collect import Draws


@dataclass(frozen=True)
class Variant:
    """A configuration, as differences from T1 (fp32, static generation)."""

    about: str
    dtype: torch.dtype = torch.float32
    matmul: str = "highest"
    autocast: bool = False
    continuous: bool = False
    compiled: bool = False


VARIANTS = {
    "t1": Variant("fp32 weights and arithmetic"),
    "t1m": Variant("fp32 with matmul precision medium", matmul="medium"),
    "t2": Variant("fp32 weights under bf16 autocast", autocast=True),
    "t3": Variant("bf16 weights, no fp32 copy of them", dtype=torch.bfloat16),
    "t4": Variant("fp32 with transformers' continuous batching", continuous=True),
    "t5": Variant("fp32, compiled, lengths padded to multiples of 64", compiled=True),
}


class Clocked(GRPOTrainer):
    """GRPOTrainer that records the time of sampling and scoring, and its output."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        start = time.perf_counter()
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        self.rollout_s = time.perf_counter() - start
        self.sampled = {name: output[name] for name in ("prompt_mask", "completion_mask", "advantages")}
        return output


class Clock(TrainerCallback):
    """Seconds from the start of a step (data at hand) to its end (weights updated)."""

    def __init__(self, trainer: Clocked, group: int) -> None:
        self.trainer, self.group = trainer, group
        self.steps: list[Step] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        whole, rollout = time.perf_counter() - self.start, self.trainer.rollout_s
        groups = _groups(self.trainer.sampled, self.group)
        seconds = {"rollout": rollout, "train": whole - rollout, "step": whole}
        self.steps.append(Step(seconds=seconds, tokens=sum(sum(g.lengths) for g in groups), groups=groups))


def _groups(sampled: dict[str, torch.Tensor], group: int) -> list[Rollouts]:
    prompts, lengths = (sampled[name].sum(1).tolist() for name in ("prompt_mask", "completion_mask"))
    advantages = sampled["advantages"].flatten().tolist()
    return [
        Rollouts(prompt=prompts[i], lengths=lengths[i : i + group], trained=any(advantages[i : i + group]))
        for i in range(0, len(lengths), group)
    ]


def config(job: Job, variant: Variant, prompt: int, folder: str) -> GRPOConfig:
    """The configuration of T1 with the variant's changes; `prompt` is the longest prompt in tokens."""
    parts = job.prompts * job.group // job.batch
    length: dict[str, Any] = {}
    if job.fixed:  # the continuous batcher ignores min_new_tokens, but accepts a missing end token
        length = {"eos_token_id": -1} if variant.continuous else {"min_new_tokens": job.max_tokens}
    return GRPOConfig(
        output_dir=folder,
        max_steps=job.warmup + job.steps,
        seed=job.seed,
        shuffle_dataset=False,
        bf16=variant.autocast,
        beta=0.0,
        num_iterations=1,
        loss_type="grpo",
        num_generations=job.group,
        per_device_train_batch_size=job.batch,
        gradient_accumulation_steps=parts,
        steps_per_generation=parts,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        max_completion_length=job.max_tokens,
        generation_kwargs=length or None,
        use_vllm=False,
        use_transformers_continuous_batching=variant.continuous,
        transformers_continuous_batching_config=cache(job.prompts * job.group, prompt + job.max_tokens)
        if variant.continuous
        else None,
        torch_compile=variant.compiled,
        pad_to_multiple_of=64 if variant.compiled else None,
        log_completions=False,
        **TRAINER,
    )


def trainer_for(job: Job, folder: str) -> Clocked:
    """A trainer on the job's model and prompts, with r1kit's end tokens and prompt ids."""
    variant, chat = VARIANTS[job.variant], job.format
    torch.set_float32_matmul_precision(variant.matmul)
    tokenizer = AutoTokenizer.from_pretrained(job.model, padding_side="left", trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=variant.dtype, attn_implementation="sdpa", trust_remote_code=False
    )
    model.generation_config.eos_token_id = list(end_ids(tokenizer))
    problems = Draws(job.task, job.seed).next(len(job.problems))
    texts = [chat.text(chat.messages(problem), tokenizer) + chat.prefill for problem in problems]
    sizes = []
    for problem, text in zip(problems, texts, strict=True):
        ids = tuple(tokenizer(text=[text])["input_ids"][0])
        sizes.append(len(ids))
        if ids != chat.render(problem, tokenizer).token_ids:
            raise ValueError("TRL's prompt ids differ from r1kit's: the sides would not do the same work")
    return Clocked(
        model=model,
        reward_funcs=reward,
        args=config(job, variant, max(sizes), folder),
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": texts}),
    )


def grpo(job: Job) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(job, folder)
        clock = Clock(trainer, job.group)
        trainer.add_callback(clock)
        trainer.train()
    return Result(steps=clock.steps[job.warmup :])
