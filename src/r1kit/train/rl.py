"""The GRPO loop: sample, score, take advantages, update. Synchronous; the engine samples with the learner's own
weights."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from r1kit.chat import ChatFormat
from r1kit.data.jsonl import RowWriter, keep_steps
from r1kit.engines import PolicyEngine
from r1kit.models.batch import Batch, Totals
from r1kit.models.load import frozen_copy, named_weights
from r1kit.rewards import Scorer
from r1kit.rollout import rollout
from r1kit.settings import NOT_HASHED, Settings
from r1kit.tasks import Task
from r1kit.train import checkpoints
from r1kit.train.advantages import advantages
from r1kit.train.audit import Audit
from r1kit.train.learner import Learner, split
from r1kit.train.losses.policy_gradient import PRESETS, GRPOSettings, grpo
from r1kit.train.monitors import Alarm, hack_metrics, verdict_metrics
from r1kit.train.packing import pack
from r1kit.train.validation import Best, EarlyStopping, Validation
from r1kit.types import Group, Problem, Reward, Rollout, Sample, SamplingParams
from r1kit.verifiers import find

Log = Callable[[int, dict[str, float]], None]


class LoopSettings(Settings):
    """How much is sampled and updated per step: one rollout of `prompts_per_step` x `group_size` completions.

    `minibatches` x `epochs` is the number of updates that each rollout gives (the paper: 16 x 1). `truncated`:
    completions that hit `max_tokens` are trained on like all others (`keep`) or left out of the loss (`skip`, DAPO's
    overlong filter).
    """

    steps: int = Field(40, ge=1)
    prompts_per_step: int = Field(16, ge=1)
    group_size: int = Field(16, ge=2, description="G, completions per prompt; the baseline needs at least 2")
    minibatches: int = Field(1, ge=1)
    epochs: int = Field(1, ge=1)
    max_tokens: int = Field(256, ge=1, description="completion tokens")
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    truncated: Literal["keep", "skip"] = "keep"
    recompute_old_logprobs: bool = Field(False, description="take the ratio against the learner's own log-probs")
    algorithm: GRPOSettings = PRESETS["grpo"]
    seed: int = 0
    tokens_per_batch: int = Field(
        4096, ge=1, json_schema_extra=NOT_HASHED, description="packed tokens per forward pass; limits memory"
    )
    checkpoint_every: int = Field(10, ge=0, json_schema_extra=NOT_HASHED)
    rollouts_every: int = Field(5, ge=1, json_schema_extra=NOT_HASHED, description="readable samples on disk")
    max_unknown_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        json_schema_extra=NOT_HASHED,
        description="stop above this share of verdicts that cannot be given",
    )
    audit_share: float = Field(
        0.02, ge=0, le=1, json_schema_extra=NOT_HASHED, description="of the verdicts, given again"
    )
    audit_verifier: str = Field(
        "", json_schema_extra=NOT_HASHED, description="which gives them; '': math for numbers and text"
    )

    @model_validator(mode="after")
    def _computable(self) -> LoopSettings:
        if self.recompute_old_logprobs and self.epochs > 1:
            raise ValueError("recompute_old_logprobs works with epochs = 1: later epochs have no old policy to ask")
        if self.algorithm.truncated_importance is not None and not self.recompute_old_logprobs:
            raise ValueError(
                "truncated_importance compares the learner with the sampler: set recompute_old_logprobs to true"
            )
        if self.audit_verifier:
            find(self.audit_verifier)
        return self

    def sampling(self, step: int) -> SamplingParams:
        """The step's own random numbers: a resumed step draws what it would have drawn."""
        return SamplingParams(
            n=self.group_size,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            seed=self.seed * 1_000_003 + step,
        )


class Draws:
    """Problems in an order that depends on the seed alone; every epoch goes through all of them in another order."""

    def __init__(self, task: Task, seed: int, position: int = 0) -> None:
        self.task, self.seed, self.position = task, seed, position
        self._epoch, self._order = -1, list[int]()

    def next(self, count: int) -> list[Problem]:
        problems = []
        for _ in range(count):
            epoch, place = divmod(self.position, len(self.task))
            if epoch != self._epoch:
                self._epoch, self._order = epoch, list(range(len(self.task)))
                random.Random(f"draws/{self.seed}/{epoch}").shuffle(self._order)
            problems.append(self.task[self._order[place]])
            self.position += 1
        return problems


@dataclass(frozen=True)
class Collected:
    """What one step sampled: all groups for the log, and the samples to train on with their totals."""

    groups: list[Group]
    advantages: list[list[float | None]]
    samples: list[Sample]
    reported: dict[str, float]  # what reward functions said of themselves; the mean of their calls


@dataclass
class RL:
    """The loop and what it works on."""

    learner: Learner
    engine: PolicyEngine
    task: Task
    chat: ChatFormat
    scorer: Scorer
    settings: LoopSettings
    folder: Path
    log: Log
    note: Callable[[str], None]
    validation: Validation | None = None

    def train(self) -> Best:
        """Run the remaining steps; continues from the newest checkpoint in the folder, with the same result.

        With a validation that has patience the run may end early, and the learner ends with the weights that were best
        on it. Returns which those were.
        Raises ValueError where a whole step gave no reward at all, and `VerdictError` where too many verdicts of a step
        could not be given: then nothing could be learned from any more. The last step's result is saved before.
        """
        settings = self.settings
        self.audit = Audit(self.folder, settings.audit_share, settings.audit_verifier, settings.seed)
        self.alarm = Alarm(settings.max_unknown_rate)
        self.reference = frozen_copy(self.learner.model) if settings.algorithm.kl_coef else None
        first, draws = self._resume()
        with RowWriter(self.folder / "metrics.jsonl") as metrics:
            if not first and (measured := self.stopping.before()):
                metrics.append({"step": 0, **measured})
            for step in range(first, settings.steps):
                if self.stopping.is_over:
                    self.note(f"stops after step {step}: {self.stopping.words}")
                    break
                row = self._step(step, draws, metrics)
                row |= self.stopping.after(step + 1, last=step + 1 == settings.steps)
                metrics.append({"step": step + 1, **row})
                self.log(step + 1, row)
                if settings.checkpoint_every and (step + 1) % settings.checkpoint_every == 0:
                    self._checkpoint(step + 1, draws.position)
        return self.stopping.finish()

    def _step(self, step: int, draws: Draws, metrics: RowWriter) -> dict[str, float]:
        """Sample, score, update; returns the step's metrics. After an alarm they are in the log before it is raised."""
        started = time.perf_counter()
        updates = self.learner.updates
        self.engine.load_weights(named_weights(self.learner.model), version=updates)
        position = draws.position
        collected = self.collect(step, draws)
        row = group_metrics(collected) | self.watch(step + 1, collected)
        try:
            self.alarm.check(step + 1, collected.groups)
            self._require_rewards(step + 1, collected)
        except ValueError:
            self._stop(step, position, collected)
            metrics.append({"step": step + 1, **row})  # for the report; a resume writes it anew
            raise
        sampled = time.perf_counter()
        row |= self.update(step, collected.samples)
        self._refresh_reference(since=updates)
        row |= {
            "time/rollout_s": sampled - started,
            "time/train_s": time.perf_counter() - sampled,
            "time/step_s": time.perf_counter() - started,
        }
        if step % self.settings.rollouts_every == 0 or step == self.settings.steps - 1:
            self._write_rollouts(step + 1, collected)
        return row

    def collect(self, step: int, draws: Draws) -> Collected:
        """Groups of scored completions. With dynamic sampling (DAPO section 3.2), groups in which all rewards are equal
        give way to new ones until the step is full or the rounds are used up."""
        settings = self.settings
        groups: list[Group] = []
        reported: dict[str, list[float]] = {}
        useful = 0

        def note(name: str, value: float) -> None:
            reported.setdefault(name, []).append(float(value))

        for extra in range(settings.algorithm.dynamic_sampling + 1):
            wanted = settings.prompts_per_step - useful
            problems = draws.next(wanted)
            prompts = [self.chat.render(problem, self.engine.tokenizer) for problem in problems]
            params = replace(settings.sampling(step), seed=settings.sampling(step).seed + extra * 7_919)
            groups += rollout(self.engine, problems, prompts, self.chat, self.scorer, params, log_metric=note)
            useful = sum(_varies(group) for group in groups)
            if useful >= settings.prompts_per_step:
                break
        kept = [group for group in groups if _varies(group)] if settings.algorithm.dynamic_sampling else groups
        values = [advantages([r.reward.total for r in group.rollouts], settings.algorithm.baseline) for group in groups]
        by_group = dict(zip(map(id, groups), values, strict=True))
        samples = [
            to_sample(scored, advantage)
            for group in kept
            for scored, advantage in zip(group.rollouts, by_group[id(group)], strict=True)
            if advantage is not None and (settings.truncated == "keep" or scored.completion.finish_reason == "stop")
        ]
        means = {name: statistics.fmean(values) for name, values in reported.items()}
        return Collected(groups, values, samples, means)

    def update(self, step: int, samples: Sequence[Sample]) -> dict[str, float]:
        """All updates of one rollout; returns the means of their metrics."""
        settings = self.settings
        rows: list[dict[str, float]] = []
        loss = grpo(settings.algorithm)
        for epoch in range(settings.epochs):
            groups = _by_prompt(samples)
            if settings.minibatches > 1 or settings.epochs > 1:
                random.Random(f"minibatches/{settings.seed}/{step}/{epoch}").shuffle(groups)
            parts = [[s for group in part for s in group] for part in split(groups, settings.minibatches)]
            totals = [Totals.of(part, settings.max_tokens) for part in parts]
            packed = [self._prepare(part) for part in parts]
            for index, (batches, total) in enumerate(zip(packed, totals, strict=True)):
                sums = self.learner.forward_backward(batches, loss, total)
                # a step with fewer groups than minibatches still ends where the schedule planned it
                done = (step * settings.epochs + epoch) * settings.minibatches
                position = done + (index + 1) * settings.minibatches // len(packed) - 1
                tokens = {"tokens/train": float(sum(b.num_tokens for b in batches))}
                rows.append(sums | self.learner.step(position) | tokens)
        return update_metrics(rows)

    def _prepare(self, samples: Sequence[Sample]) -> list[Batch]:
        """Packed batches with the reference's and, if asked for, the learner's own log-probs.

        Without a KL term a sample with advantage 0 has no gradient: it stays in the totals but is not computed.
        """
        settings = self.settings
        if not settings.algorithm.kl_coef:
            samples = [sample for sample in samples if sample.advantages[-1] != 0.0]
        batches = pack(samples, settings.tokens_per_batch, self.learner.device) if samples else []
        for index, batch in enumerate(batches):
            targets = batch.targets
            if self.reference is not None:
                targets = replace(targets, ref_logprobs=self.learner.logprobs(batch, self.reference))
            if settings.recompute_old_logprobs:
                targets = replace(targets, old_logprobs=self.learner.logprobs(batch))
            batches[index] = replace(batch, targets=targets)
        return batches

    def watch(self, step: int, collected: Collected) -> dict[str, float]:
        """Metrics of the verdicts, of a second opinion on some of them, and of the known ways to cheat."""
        groups, complete = collected.groups, self.chat.complete
        return verdict_metrics(groups) | hack_metrics(groups, complete) | self.audit(step, groups, complete)

    def _stop(self, done: int, position: int, collected: Collected) -> None:
        """Leave what a person needs after an alarm: the step's completions, and the result of the step before."""
        self._write_rollouts(done + 1, collected)
        if done and checkpoints.latest(self.folder) != checkpoints.folder_of(self.folder, done):
            self._checkpoint(done, position)

    def _require_rewards(self, step: int, collected: Collected) -> None:
        if all(rollout.reward.total is None for group in collected.groups for rollout in group.rollouts):
            raise ValueError(
                f"step {step}: no completion got a reward (all parts gave None): the verifier failed or the rewards "
                f"do not apply to this task; see rollouts/step-{step:06d}.jsonl in the stage's folder"
            )

    def _refresh_reference(self, since: int) -> None:
        """Let the reference catch up whenever another `reference_refresh` updates are full (the paper: 400)."""
        every = self.settings.algorithm.reference_refresh
        if self.reference is not None and every and self.learner.updates // every > since // every:
            self.reference = frozen_copy(self.learner.model)

    @property
    def _moving_reference(self) -> Any:
        """The reference, if it can have become another than the policy of the start: then checkpoints must hold it."""
        return self.reference if self.settings.algorithm.reference_refresh else None

    def _resume(self) -> tuple[int, Draws]:
        newest = checkpoints.latest(self.folder)
        state: dict[str, Any] = {"step": 0, "position": 0}
        if newest is not None:
            state = self.learner.load(newest, self._moving_reference)
            self.note(f"goes on from step {state['step']}")
        self.stopping = EarlyStopping(self.validation, self.learner, self.folder, state)
        keep_steps(self.folder / "metrics.jsonl", state["step"] or -1)  # what is measured before step 1 is step 0's row
        self.audit.resume(state["step"])
        return state["step"], Draws(self.task, self.settings.seed, state["position"])

    def _checkpoint(self, step: int, position: int) -> None:
        state = {"step": step, "position": position, **self.stopping.state}
        self.learner.save(checkpoints.folder_of(self.folder, step), state, self._moving_reference)
        checkpoints.prune(self.folder, keep=2)

    def _write_rollouts(self, step: int, collected: Collected) -> None:
        path = self.folder / "rollouts" / f"step-{step:06d}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        with RowWriter(path) as rows:
            for group, values in zip(collected.groups, collected.advantages, strict=True):
                for one, advantage in zip(group.rollouts, values, strict=True):
                    rows.append(
                        {
                            "step": step,
                            "problem_id": group.problem.id,
                            "question": group.problem.prompt,
                            "completion": self.chat.complete(one.completion.text),
                            "answer": group.problem.answer,
                            "reward": one.reward.total,
                            "parts": dict(one.reward.parts),
                            "advantage": advantage,
                            "notes": _shown_notes(one.reward),
                            "finish_reason": one.completion.finish_reason,
                            "tokens": len(one.completion.token_ids),
                        }
                    )


def _shown_notes(reward: Reward) -> dict[str, Any]:
    """The reward functions' notes; `verdict`, `extracted` and `detail` among them are those of the reward's verdict."""
    notes, verdict = dict(reward.notes), reward.verdict
    if verdict is not None:
        notes |= {"verdict": verdict.outcome, "extracted": verdict.extracted or "", "detail": verdict.detail}
    return notes


def to_sample(scored: Rollout, advantage: float) -> Sample:
    """Prompt and completion ids as they were sampled; nothing is decoded and encoded again."""
    prompt, completion = scored.prompt.token_ids, scored.completion
    zeros = (0.0,) * len(prompt)
    return Sample(
        token_ids=(*prompt, *completion.token_ids),
        loss_mask=(False,) * len(prompt) + (True,) * len(completion.token_ids),
        logprobs=(*zeros, *completion.logprobs),
        advantages=zeros + (advantage,) * len(completion.token_ids),
    )


def group_metrics(collected: Collected) -> dict[str, float]:
    """What the completions of a step were like; shares are between 0 and 1, lengths in tokens."""
    rollouts = [rollout for group in collected.groups for rollout in group.rollouts]
    totals = [r.reward.total for r in rollouts if r.reward.total is not None]
    lengths = [len(r.completion.token_ids) for r in rollouts]
    row = {"reward/mean": statistics.fmean(totals)} if totals else {}
    row |= {
        "reward/std": statistics.fmean(
            statistics.pstdev([r.reward.total for r in group.rollouts if r.reward.total is not None] or [0.0])
            for group in collected.groups
        ),
        "groups/zero_variance": statistics.fmean(not _varies(group) for group in collected.groups),
        "completion/length_mean": statistics.fmean(lengths),
        "completion/length_max": float(max(lengths)),
        "completion/truncated": statistics.fmean(r.completion.finish_reason == "length" for r in rollouts),
        "tokens/rollout": float(sum(lengths)),
    }
    for name in rollouts[0].reward.parts:
        values = [value for r in rollouts if (value := r.reward.parts[name]) is not None]
        if values:
            row[f"reward/{name}"] = statistics.fmean(values)
    return row | collected.reported


NAMES = {
    "loss": "optim/loss",
    "entropy": "policy/entropy",
    "kl": "policy/kl",
    "ratio": "policy/ratio_mean",
    "clip_fraction": "policy/clip_fraction",
    "logprob_gap": "sampler/logprob_gap_mean",
}


def update_metrics(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over the updates of a step, but the sampler's gap of the first (on-policy) and the rate of the last."""
    names = {name: None for row in rows for name in row}
    means = {NAMES.get(n, n): statistics.fmean(row[n] for row in rows if n in row) for n in names}
    if rows and "logprob_gap" in rows[0]:
        means["sampler/logprob_gap_mean"] = rows[0]["logprob_gap"]
    if rows:
        means["optim/learning_rate"] = rows[-1]["optim/learning_rate"]
    means["tokens/train"] = sum(row["tokens/train"] for row in rows)
    return means


def _varies(group: Group) -> bool:
    """Whether the group's rewards differ, without which it teaches nothing."""
    totals = {r.reward.total for r in group.rollouts if r.reward.total is not None}
    return len(totals) > 1


def _by_prompt(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples of one prompt stay together, so that the packed row holds the prompt once."""
    groups: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        groups.setdefault(tuple(sample.token_ids[: list(sample.loss_mask).index(True)]), []).append(sample)
    return list(groups.values())
