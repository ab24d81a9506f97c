"""The gates: on one frozen batch in fp32, r1kit and its peers must compute the same."""

from __future__ import annotations

import gc
import random
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from _workload import Job, Training

from r1kit.engines.local import LocalEngine
from r1kit.models.batch import Totals
from r1kit.models.load import load
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.next_token import next_token
from r1kit.train.losses.policy_gradient import grpo
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.packing import pack
from r1kit.types import Completion, Prompt, Sample, SamplingParams

TOLERANCE = 1e-4
GROUP, MAX_TOKENS = 4, 16
GATE_DOCUMENTS = 6


@dataclass(frozen=True)
class Agreement:
    """Both losses, the cosine of the gradients, and the norm of their difference over the norm of TRL's gradient."""

    loss_r1kit: float
    loss_trl: float
    cosine: float
    relative_error: float

    @property
    def holds(self) -> bool:
        return self.relative_error <= TOLERANCE and abs(self.loss_r1kit - self.loss_trl) <= TOLERANCE

    def report(self, name: str) -> dict[str, float]:
        """Print the agreement; exit if there is none."""
        print(
            f"gate ({name}): loss {self.loss_r1kit:.7f} and {self.loss_trl:.7f}, gradients' cosine {self.cosine:.9f}, "
            f"relative error {self.relative_error:.2e}",
            flush=True,
        )
        if not self.holds:
            raise SystemExit("the gradients differ: a comparison of speed would mean nothing")
        gc.collect()  # a trainer refers to itself: without this, its model would stay in memory during the runs
        return asdict(self)


def grpo_gate(job: Job) -> dict[str, float]:
    """Two prompts x 4 completions of unequal length; old log-probs are slightly perturbed, so the clip acts."""
    policy = load(job.model, device="cpu", compute_dtype="fp32")  # to compare gradients to 1e-4
    prompts = [job.format.render(problem, policy.tokenizer) for problem in job.task.problems[:2]]
    params = SamplingParams(n=GROUP, max_tokens=MAX_TOKENS, seed=job.seed)
    answers = LocalEngine(policy).generate(prompts, params)
    samples = _samples(prompts, answers)
    learner = Learner(policy.model, OptimizerSettings(), steps=1)
    totals = Totals.of(samples, MAX_TOKENS)
    sums = learner.forward_backward(pack(samples, job.tokens_per_batch), grpo(PRESETS["grpo"]), totals)
    ours = {name: p.grad for name, p in learner.parameters.items()}
    loss, theirs = _trl(replace(job, variant="t1", batch=len(samples), prompts=2, group=GROUP), samples)
    return _compare(sums["loss"], loss, ours, theirs).report("GRPO")


def sft_gate(work: Training, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """The first documents, through each of the trainer's collators (padded, packed)."""
    from _r1kit_sft import samples_of
    from _trl_sft import loss_and_gradient

    documents = work.documents[:GATE_DOCUMENTS]
    learner = Learner(load(work.model, device="cpu", compute_dtype="fp32").model, OptimizerSettings(), steps=1)
    samples = samples_of(documents)
    sums = learner.forward_backward(pack(samples, work.tokens_per_batch), next_token, Totals.of(samples))
    ours = {name: p.grad for name, p in learner.parameters.items()}
    rows = {}
    for name in names:
        loss, theirs = loss_and_gradient(replace(work, variant=name, documents=documents))
        rows[name] = _compare(sums["loss"], loss, ours, theirs).report(name)
    return rows


def _samples(prompts: list[Prompt], answers: list[list[Completion]]) -> list[Sample]:
    rng, samples = random.Random(0), []
    for prompt, completions in zip(prompts, answers, strict=True):
        for completion in completions:
            size = rng.randint(1, len(completion.token_ids))
            old = tuple(value + rng.gauss(0, 0.15) for value in completion.logprobs[:size])
            zeros = (0.0,) * len(prompt.token_ids)
            samples.append(
                Sample(
                    token_ids=prompt.token_ids + completion.token_ids[:size],
                    logprobs=zeros + old,
                    loss_mask=(False,) * len(zeros) + (True,) * size,
                    advantages=zeros + (rng.gauss(0, 1),) * size,
                )
            )
    return samples


def _trl(job: Job, samples: list[Sample]) -> tuple[float, dict[str, Any]]:
    """Loss and gradient of the trainer's own `_compute_loss`, on padded tensors."""
    from _trl_side import trainer_for

    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(job, folder)
    model: Any = trainer.model
    model.train()
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(model, _padded(samples))
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}


def _padded(samples: list[Sample]) -> dict[str, torch.Tensor]:
    starts = [list(sample.loss_mask).index(True) for sample in samples]
    left, right = max(starts), max(len(s.token_ids) - start for s, start in zip(samples, starts, strict=True))
    shapes = {"prompt": left, "completion": right}
    inputs = {
        f"{name}_{kind}": torch.zeros(len(samples), width, dtype=torch.long)
        for name, width in shapes.items()
        for kind in ("ids", "mask")
    }
    old = torch.zeros(len(samples), right)
    for row, (sample, start) in enumerate(zip(samples, starts, strict=True)):
        size = len(sample.token_ids) - start
        inputs["prompt_ids"][row, left - start :] = torch.tensor(sample.token_ids[:start])
        inputs["prompt_mask"][row, left - start :] = 1
        inputs["completion_ids"][row, :size] = torch.tensor(sample.token_ids[start:])
        inputs["completion_mask"][row, :size] = 1
        old[row, :size] = torch.tensor(sample.logprobs[start:])
    return inputs | {"old_per_token_logps": old, "advantages": torch.tensor([s.advantages[-1] for s in samples])}


def _compare(ours_loss: float, trl_loss: float, ours: dict[str, Any], theirs: dict[str, Any]) -> Agreement:
    if ours.keys() != theirs.keys():
        raise ValueError(f"the sides train different weights: {sorted(ours.keys() ^ theirs.keys())[:4]}")
    pairs = [(ours[name].double(), theirs[name].double()) for name in ours]
    dot, mine, other, gap = (
        float(sum(values))
        for values in zip(
            *((torch.sum(a * b), a.square().sum(), b.square().sum(), (a - b).square().sum()) for a, b in pairs),
            strict=True,
        )
    )
    return Agreement(ours_loss, trl_loss, dot / (mine * other) ** 0.5, (gap / other) ** 0.5)
