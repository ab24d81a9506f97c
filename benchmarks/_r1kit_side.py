"""r1kit's sides: the package's own loops and engine, timed by their own metrics or around a call."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from _workload import LEARNING_RATE, TAIL, Generation, Job, Result, Rollouts, Step

from r1kit.engines.local import LocalEngine
from r1kit.models.compute import DTYPES, compute_dtype_of
from r1kit.models.load import Policy, load
from r1kit.rewards import RewardSpec, build
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.packing import pack
from r1kit.train.rl.loop import RLLoop
from r1kit.train.rl.loop_settings import LoopSettings
from r1kit.train.rl.objective import PolicyGradient
from r1kit.types import Prompt, Sample, SamplingParams


def policy_for(work: Generation) -> Policy:
    """The model as a run loads it; without end tokens, every completion runs to `max_tokens`."""
    policy = load(work.model, device="cpu", compute_dtype=work.compute_dtype, seed=work.seed)  # type: ignore[arg-type]
    return replace(policy, end_ids=(), end_texts=()) if work.fixed else policy


def facts_of(model: Any) -> dict[str, str]:
    """The precision that a run chose."""
    return {"compute_dtype": next(name for name, dtype in DTYPES.items() if dtype == compute_dtype_of(model))}


def grpo(job: Job) -> Result:
    """Steps of the loop of R1-Zero."""
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
            PolicyGradient(learner, settings),
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
    steps = []
    for row, rollouts in zip(rows, groups, strict=True):
        seconds = {phase: row[f"time/{phase}_s"] for phase in ("rollout", "train", "step")}
        steps.append(Step(seconds=seconds, tokens=sum(sum(g.lengths) for g in rollouts), groups=rollouts))
    return Result(steps=steps[job.warmup :], facts=facts_of(policy.model))


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


def generate(work: Generation) -> Result:
    """Completions of the local engine."""
    policy = policy_for(work)
    engine = LocalEngine(policy, max_rows=work.max_rows)
    prompts = [Prompt(problem_id=str(i), messages=(), token_ids=tuple(ids)) for i, ids in enumerate(work.prompt_ids)]
    steps = []
    for turn in work.repetitions():
        params = SamplingParams(n=turn.group, max_tokens=turn.max_tokens, seed=turn.seed)
        start = time.perf_counter()
        answers = engine.generate(prompts, params)
        lengths = [[len(completion.token_ids) for completion in completions] for completions in answers]
        steps.append(work.step(time.perf_counter() - start, lengths))
    return Result(steps=steps[work.warmup :], facts=facts_of(policy.model))


def tail_logprobs(work: Generation) -> Result:
    """Log-probs of each prompt's last tokens, for the gate."""
    policy = policy_for(work)
    learner = Learner(policy.model, OptimizerSettings(), steps=1)
    values = []
    for ids in work.prompt_ids:
        mask = (False,) * (len(ids) - TAIL) + (True,) * TAIL
        (batch,) = pack([Sample(token_ids=tuple(ids), loss_mask=mask)], len(ids))
        values.append(learner.logprobs(batch).tolist())
    return Result(steps=[], facts={"logprobs": values})
