"""r1kit's side: the package's own GRPO loop, timed by its own metrics. `python _r1kit_side.py JOB RESULT`."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from _workload import LEARNING_RATE, Job, Result, Rollouts, Step, peak_mb, read_job, write_result

from r1kit.engines.local import LocalEngine
from r1kit.models.batch import Totals
from r1kit.models.load import Policy, load
from r1kit.rewards import RewardSpec, build
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.policy_gradient import PRESETS, grpo
from r1kit.train.packing import pack
from r1kit.train.rl.loop import RLLoop
from r1kit.train.rl.loop_settings import LoopSettings
from r1kit.types import Completion, Prompt, Sample, SamplingParams


def policy_for(job: Job) -> Policy:
    """The model with r1kit's attention; without end tokens, every completion runs to `max_tokens`."""
    policy = load(job.model, device="cpu", seed=job.seed)
    return Policy(policy.model, policy.tokenizer, ()) if job.fixed else policy


def run(job: Job) -> Result:
    policy, total = policy_for(job), job.warmup + job.steps
    settings = LoopSettings(
        steps=total,
        prompts_per_step=job.prompts,
        group_size=job.group,
        max_tokens=job.max_tokens,
        seed=job.seed,
        tokens_per_batch=job.tokens_per_batch,
        checkpoint_every=0,
        rollouts_every=1,
    )
    learner = Learner(policy.model, OptimizerSettings(learning_rate=LEARNING_RATE), steps=total)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        engine, scorer = LocalEngine(policy, max_rows=job.max_rows), build((RewardSpec(name="_workload:reward"),))
        loop = RLLoop(
            learner,
            engine,
            job.task,
            job.format,
            scorer,
            settings,
            folder=Path(folder),
            log=lambda _, row: rows.append(row),
            note=print,
        )
        loop.train()
        files = sorted((Path(folder) / "rollouts").glob("*.jsonl"))
        groups = [_groups(job, policy, file) for file in files]
    steps = [
        Step(rollout_s=row["time/rollout_s"], train_s=row["time/train_s"], step_s=row["time/step_s"], groups=found)
        for row, found in zip(rows, groups, strict=True)
    ]
    return Result(steps=steps[job.warmup :], peak_mb=peak_mb())


def _groups(job: Job, policy: Policy, file: Path) -> list[Rollouts]:
    """A step's groups, read from its rollouts file, which is written after the clock stops."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    sizes = {p.id: len(job.format.render(p, policy.tokenizer).token_ids) for p in job.task.problems}
    return [
        Rollouts(
            prompt=sizes[part[0]["problem_id"]],
            lengths=[row["tokens"] for row in part],
            trained=any(row["advantage"] for row in part),
        )
        for part in (rows[start : start + job.group] for start in range(0, len(rows), job.group))
    ]


def ladder(job: Job) -> Result:
    """Seconds with and without each technique, on the same prompts and frozen samples."""
    policy = policy_for(job)
    engine = LocalEngine(policy, max_rows=job.max_rows)
    learner = Learner(policy.model, OptimizerSettings(learning_rate=LEARNING_RATE), steps=1)
    prompts = [job.format.render(problem, policy.tokenizer) for problem in job.task.problems[: job.prompts]]
    group = SamplingParams(n=job.group, max_tokens=job.max_tokens, seed=job.seed)
    single = SamplingParams(n=1, max_tokens=job.max_tokens, seed=job.seed)
    apart = [prompt for prompt in prompts for _ in range(job.group)]
    groups = [_samples(p, c, i) for i, (p, c) in enumerate(zip(prompts, engine.generate(prompts, group), strict=True))]
    shared = [sample for part in groups for sample in part]
    mixed = [
        part[i] for i in range(job.group) for part in groups
    ]  # neighbours have different prompts, so no prefix is shared
    seconds = {
        "rollout, prompt prefilled for each completion": _time(lambda: engine.generate(apart, single)),
        "rollout, prompt prefilled once per group": _time(lambda: engine.generate(prompts, group)),
        "train, prompt in each sequence": _train(job, learner, mixed, shared),
        "train, prompt once per group": _train(job, learner, shared, shared),
        "train, half of the groups without variance skipped": _train(job, learner, shared[: len(shared) // 2], shared),
    }
    return Result(steps=[], peak_mb=peak_mb(), extra=seconds)


def _samples(prompt: Prompt, completions: Sequence[Completion], index: int) -> list[Sample]:
    zeros, samples = (0.0,) * len(prompt.token_ids), []
    for number, completion in enumerate(completions):
        advantage = 1.0 if (number + index) % 2 else -1.0
        samples.append(
            Sample(
                token_ids=prompt.token_ids + completion.token_ids,
                logprobs=zeros + completion.logprobs,
                loss_mask=(False,) * len(zeros) + (True,) * len(completion.token_ids),
                advantages=zeros + (advantage,) * len(completion.token_ids),
            )
        )
    return samples


def _train(job: Job, learner: Learner, samples: list[Sample], whole: list[Sample]) -> float:
    totals, loss = Totals.of(whole, job.max_tokens), grpo(PRESETS["grpo"])

    def step() -> None:
        learner.forward_backward(pack(samples, job.tokens_per_batch), loss, totals)
        learner.optimizer.zero_grad(set_to_none=True)

    return _time(step)


def _time(work: Callable[[], Any], times: int = 2) -> float:
    """The fastest of `times` runs, which excludes the first one's warm-up."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def main() -> None:
    job = read_job(sys.argv[1])
    torch.set_num_threads(job.threads)
    write_result(sys.argv[2], ladder(job) if job.variant == "ladder" else run(job))


if __name__ == "__main__":
    main()
