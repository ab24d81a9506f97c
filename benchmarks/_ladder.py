"""r1kit technique by technique, on frozen prompts and samples: what each one is worth on this machine.

Every rung keeps those before it. Rungs that the package has no switch for are built here from its parts, so nothing in
the package is slowed down for a benchmark. Continuous batching (finished rows leave) cannot be taken apart: compare
`generate.py`, whose transformers side runs until the longest row ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from _r1kit_side import policy_for
from _workload import LEARNING_RATE, Job, Result
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from r1kit.engines.local import LocalEngine
from r1kit.models import attention, compute
from r1kit.models.batch import Batch, Totals
from r1kit.models.head import Head
from r1kit.models.recompute import recompute_activations
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.policy_gradient import grpo
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.packing import pack
from r1kit.types import Prompt, Sample, SamplingParams

LOSS = grpo(PRESETS["grpo"])


def ladder(job: Job) -> Result:
    """Seconds of each rung."""
    policy = policy_for(job)
    low = compute.compute_dtype_of(policy.model) == torch.bfloat16
    policy.model.compute_dtype = torch.float32
    prompts = [job.format.render(problem, policy.tokenizer) for problem in job.problems[: job.prompts]]
    engine = LocalEngine(policy, max_rows=job.max_rows)
    seconds = _rollout(job, engine, prompts, low)
    policy.model.compute_dtype = torch.float32
    params = SamplingParams(n=job.group, max_tokens=job.max_tokens, seed=job.seed)
    groups = [_samples(p, c, i) for i, (p, c) in enumerate(zip(prompts, engine.generate(prompts, params), strict=True))]
    learner = Learner(policy.model, OptimizerSettings(learning_rate=LEARNING_RATE), steps=1)
    return Result(steps=[], facts=seconds | _train(job, learner, groups, low))


def _rollout(job: Job, engine: LocalEngine, prompts: Sequence[Prompt], low: bool) -> dict[str, float]:
    params = SamplingParams(n=job.group, max_tokens=job.max_tokens, seed=job.seed)
    single = SamplingParams(n=1, max_tokens=job.max_tokens, seed=job.seed)
    apart = [prompt for prompt in prompts for _ in range(job.group)]
    with unpacked():
        seconds = {
            "rollout: fp32, weights packed at every call, a prompt per completion": _time(
                lambda: engine.generate(apart, single)
            ),
            "rollout: + each prompt once per group": _time(lambda: engine.generate(prompts, params)),
        }
    if sum(weight.numel() for weight in engine.policy.model.parameters()) >= compute.SMALL:
        seconds["rollout: + weights packed once"] = _time(lambda: engine.generate(prompts, params))
    if low:
        engine.policy.model.compute_dtype = torch.bfloat16
        seconds["rollout: + bf16"] = _time(lambda: engine.generate(prompts, params))
    return seconds


def _train(job: Job, learner: Learner, groups: Sequence[Sequence[Sample]], low: bool) -> dict[str, float]:
    shared = [sample for group in groups for sample in group]
    # neighbours have different prompts, so no prefix is shared
    apart = [group[index] for index in range(job.group) for group in groups]
    useful = [sample for sample in shared if any(sample.advantages)]
    totals = Totals.of(shared, job.max_tokens)
    seconds = {}

    def time_rung(label: str, samples: Sequence[Sample], work: Callable[[Batch], Any]) -> None:
        def step() -> None:
            for batch in pack(samples, job.tokens_per_batch):
                work(batch)
            learner.optimizer.zero_grad(set_to_none=True)

        seconds[f"train: {label}"] = _time(step)

    def whole_logits(batch: Batch) -> None:
        _whole_logits(learner, batch, totals)

    def two_passes(batch: Batch) -> None:
        learner.logprobs(batch)
        whole_logits(batch)

    with unpacked():
        seconds["train: padded, activations recomputed, old log-probs in a pass of their own"] = _time(
            lambda: _padded(learner, apart, totals, job.batch)
        )
        with recomputed(learner.model):
            time_rung("+ packed, head at completion tokens only", apart, two_passes)
        time_rung("+ no recomputation", apart, two_passes)
        time_rung("+ no pass for old log-probs", apart, whole_logits)
        time_rung("+ each prompt once per group", shared, whole_logits)
        time_rung("+ groups without variance skipped (here half)", useful, whole_logits)
        time_rung("+ fused head", useful, lambda batch: learner.forward_backward([batch], LOSS, totals))
    if low:
        learner.model.compute_dtype = torch.bfloat16
        time_rung("+ bf16, weights packed once", useful, lambda batch: learner.forward_backward([batch], LOSS, totals))
    return seconds


def _whole_logits(learner: Learner, batch: Batch, totals: Totals) -> None:
    """The loss as autograd computes it, with the logits of all targets in memory."""
    hidden = learner.net.hidden_states(batch)  # [T, d]
    logits = Head.of(learner.model).logits(hidden[batch.targets.positions])  # [N, V]
    chosen = logits.log_softmax(-1).gather(1, batch.targets.token_ids[:, None])[:, 0]  # [N]
    LOSS(chosen, batch.targets, totals).loss.backward()


def _padded(learner: Learner, samples: Sequence[Sample], totals: Totals, rows: int) -> None:
    """Plain transformers: padded rows, logits at every position, activation checkpointing, a pass for old log-probs."""
    model = learner.model
    model.set_attn_implementation("sdpa")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()  # transformers recomputes in training mode alone
    try:
        for start in range(0, len(samples), rows):
            part = samples[start : start + rows]
            with torch.no_grad():
                _padded_logprobs(model, part)
            advantages = _pad([torch.tensor(sample.advantages) for sample in part])[:, 1:]  # [rows, T - 1]
            logprobs = _padded_logprobs(model, part)
            (-(advantages * (logprobs - logprobs.detach()).exp()).sum() / totals.num_tokens).backward()
    finally:
        model.eval()
        model.gradient_checkpointing_disable()
        model.set_attn_implementation(attention.NAME)
    learner.optimizer.zero_grad(set_to_none=True)


def _padded_logprobs(model: Any, samples: Sequence[Sample]) -> Tensor:
    """[rows, T - 1]"""
    ids = _pad([torch.tensor(sample.token_ids) for sample in samples])  # [rows, T]
    mask = _pad([torch.ones(len(sample.token_ids), dtype=torch.long) for sample in samples])
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]  # [rows, T - 1, V]
    return logits.float().log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]  # type: ignore[no-any-return]


def _pad(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True)


@contextmanager
def unpacked() -> Iterator[None]:
    """Linear layers as torch computes them."""
    small, compute.SMALL = compute.SMALL, 1 << 62  # no model is large enough to be packed
    try:
        yield
    finally:
        compute.SMALL = small


@contextmanager
def recomputed(model: Any) -> Iterator[None]:
    """Activation checkpointing in all layers."""
    recompute_activations(model)
    try:
        yield
    finally:
        for module in model.modules():
            module.__dict__.pop("forward", None)


def _samples(prompt: Prompt, completions: Sequence[Any], index: int) -> list[Sample]:
    """Samples of one prompt; every other prompt's advantages are all zero."""
    zeros, samples = (0.0,) * len(prompt.token_ids), []
    for number, completion in enumerate(completions):
        advantage = 0.0 if index % 2 else (1.0, -1.0)[number % 2]
        samples.append(
            Sample(
                token_ids=prompt.token_ids + completion.token_ids,
                logprobs=zeros + completion.logprobs,
                loss_mask=(False,) * len(zeros) + (True,) * len(completion.token_ids),
                advantages=zeros + (advantage,) * len(completion.token_ids),
            )
        )
    return samples


def _time(work: Callable[[], Any], short: float = 10.0) -> float:
    """Seconds of a run; of two the faster, if the first was short enough to be mostly warm-up."""
    start = time.perf_counter()
    work()
    first = time.perf_counter() - start
    return min(first, _time(work, short=0.0)) if first < short else first
