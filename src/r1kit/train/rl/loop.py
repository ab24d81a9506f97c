"""The GRPO loop: sample, score, take advantages, update. The engine has the learner's weights, or those one step off.

What it takes from the paper (DeepSeek-R1 section 2.1; DeepSeekMath section 4.1):

1. G completions per prompt, and no value model. Sampling and the ratio rho use the same temperature.
2. A = (r - mean) / std of the group's rewards (R1 equation 3), the same for every token of a completion.
3. min(rho A, clip(rho, 1 - eps, 1 + eps) A) - beta KL with the k3 estimator, in the loss and not in the reward.
4. One rollout gives `minibatches` updates; the ratio is taken against the policy that sampled.
5. The reference model is replaced by the policy every `reference_refresh` updates (the paper: 400).

Where its defaults depart from the paper, and the setting that restores it:

1. No KL term by default, so no reference model: `algorithm=paper` sets beta 0.001 and the refresh.
2. One update per rollout by default: `minibatches=16`.
3. std is the sample's (over G - 1) plus 1e-4, as in TRL; the paper does not say which. `algorithm.baseline` takes a
   function of your own.
4. Ratios are per token, and the loss is a mean over tokens and then over sequences (DeepSeekMath; R1 does not say):
   `algorithm.ratio`, `algorithm.aggregate`.
5. A completion that no reward could judge is left out, and a group of equal rewards has no gradient. An update
   without any gradient does not change the weights; with `optimizer.skip_empty_updates=false`, momentum does.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch

from r1kit import ranks
from r1kit.chat import ChatFormat
from r1kit.data import step_rows
from r1kit.data.jsonl import RowWriter
from r1kit.engines import PolicyEngine
from r1kit.models.batch import Totals
from r1kit.models.load import named_weights
from r1kit.rewards.scorer import Scorer
from r1kit.rollout import column_names
from r1kit.tasks import Task, iterate
from r1kit.train import checkpoints
from r1kit.train.learner import Learner
from r1kit.train.rl.ahead import Ahead, Sampled, from_state, to_state
from r1kit.train.rl.audit import Audit
from r1kit.train.rl.collect import Collector, Draws, ScoredGroup, require_version
from r1kit.train.rl.log import sampled_hashes, write_rollouts
from r1kit.train.rl.loop_settings import RolloutSettings
from r1kit.train.rl.metrics import METRIC_NAMES, group_metrics, merge_parts, update_metrics
from r1kit.train.rl.monitors import Alarm, VerdictError, hack_metrics, verdict_metrics
from r1kit.train.rl.objective import LossBatches, Objective
from r1kit.train.validation import Best, EarlyStopping, Validation
from r1kit.types import Sample

T = TypeVar("T")
Log = Callable[[int, dict[str, float]], None]


@dataclass
class RLLoop:
    """The loop and everything it works on.

    `log` receives the metrics of each step, `show` its completions, and `note` messages for people. Steps are counted
    from 0 here, and from 1 in logs, checkpoints and messages: there a number says how many steps are done.
    """

    learner: Learner
    objective: Objective
    engine: PolicyEngine
    task: Task
    chat: ChatFormat
    scorer: Scorer
    settings: RolloutSettings
    folder: Path
    log: Log
    note: Callable[[str], None]
    validation: Validation | None = None
    show: Callable[[int, Sequence[ScoredGroup]], None] | None = None
    until: int | None = None  # a replay ends when so many steps are done
    hashes: dict[str, Any] = field(init=False, default_factory=dict)  # of the last step
    collect: Collector = field(init=False)
    stopping: EarlyStopping = field(init=False)
    ahead: Ahead = field(init=False, default_factory=Ahead)  # with `staleness`, the rollout of the next step

    def __post_init__(self) -> None:
        settings = self.settings
        columns = column_names(iterate(self.task)) if self.scorer.has_own else frozenset[str]()
        self.collect = Collector(self.engine, self.chat, self.scorer, self.objective, settings, columns)
        self.audit = Audit(self.folder, settings.audit_share, settings.audit_verifier, settings.seed)
        self.alarm = Alarm(settings.max_unknown_rate)

    @property
    def last(self) -> int:
        """The number of steps that are done when training ends."""
        return self.settings.steps if self.until is None else self.until

    def train(self) -> Best:
        """Run the remaining steps, from the newest checkpoint in the folder if any; returns the best validation.

        A resumed run gives the same result, bit for bit. If the validation has patience, the run may end early, and
        the learner then has the weights of the best validation. Raises `VerdictError` if no completion of a step got a
        reward or if too many of its verdicts are undecided, after saving a checkpoint of the step before.
        """
        settings, reference = self.settings, self.objective.moving_reference
        state = checkpoints.restore(self.folder, lambda folder: self.learner.load(folder, reference), self.note)
        state = state or {"step": 0, "position": 0}
        self.objective.state.update(state.get("objective", {}))
        first, draws = state["step"], Draws(self.task, settings.seed, state["position"])
        if "ahead" in state:
            self.ahead.resume(from_state(state["ahead"], draws, self.collect))
        self.stopping = EarlyStopping(self.validation, self.learner, self.folder, state)
        # rows of steps after the checkpoint go, because those steps are run again; a fresh start keeps nothing (-1),
        # not even a row of step 0, which is the validation before training
        for lost in checkpoints.keep_logs(self.folder, first or -1, state.get("logs", {})):
            if self.until is None:  # a replay begins without logs
                self.note(lost)
        self.audit.resume(first)
        metrics_file, hashes_file = self.folder / "metrics.jsonl", self.folder / step_rows.FILE
        with RowWriter(metrics_file) as metrics, RowWriter(hashes_file) as hashes, self.ahead:
            if not first:
                if measured := self.stopping.before():
                    metrics.append({"step": 0, **measured})
                hashes.append({"step": 0, "weights": [self.learner.fingerprint()], **self.learner.sharing()})
            for step in range(first, self.last):
                if self.stopping.is_over:
                    self.note(f"stops after step {step}: {self.stopping.reason}")
                    break
                row = self._step(step, draws, metrics)
                threads, sharing = torch.get_num_threads(), self.learner.sharing()
                hashes.append({"step": step + 1, "threads": threads, **self.hashes, **sharing})
                row |= self.stopping.after(step + 1, last=step + 1 == settings.steps)
                metrics.append({"step": step + 1, **row})
                self.log(step + 1, row)
                if settings.checkpoint_every and (step + 1) % settings.checkpoint_every == 0:
                    # a rollout in flight has drawn its problems already: wait for it, so that the checkpoint holds it
                    ahead = self.ahead.look()
                    metrics.sync()  # a power cut must not leave a checkpoint without the rows before it
                    hashes.sync()
                    self._checkpoint(step + 1, ahead.position if ahead else draws.position, ahead)
        return self.stopping.finish()

    def _load_weights(self) -> int:
        """Give the engine the learner's weights; returns their version."""
        self.engine.load_weights(named_weights(self.learner.whole_model()), version=self.learner.updates)
        return self.learner.updates

    def _sample(self, step: int, draws: Draws, version: int) -> Sampled:
        """Sample and score the rollout of a step with the weights that the engine has, which are of `version`."""
        started, position = time.perf_counter(), draws.position
        return Sampled(self.collect(step, draws), version, position, time.perf_counter() - started)

    def _step(self, step: int, draws: Draws, metrics: RowWriter) -> dict[str, float]:
        """Sample, score, update; returns the step's metrics. If an alarm fires, they are logged before it is raised."""
        started, updates = time.perf_counter(), self.learner.updates
        # without `staleness`, and at the first step, a rollout is sampled with the weights that it then updates
        rollout = self.ahead.take() or self._sample(step, draws, self._load_weights())
        collected = rollout.collected
        groups = collected.groups
        require_version(groups, rollout.version)
        row = group_metrics(collected, compares=self.objective.compares_groups)
        row |= verdict_metrics(groups) | hack_metrics(groups)
        row |= self.audit(step + 1, groups)
        self._check_verdicts(step, rollout, row, metrics)
        sampled = time.perf_counter()
        if self.settings.steps_ahead:
            # the engine gets the weights before they are updated, and samples with them meanwhile
            if step + 1 < self.last:
                self.ahead.begin(partial(self._sample, step + 1, draws, self._load_weights()))
            row |= {"sampler/staleness": float(updates - rollout.version), "time/sampling_s": rollout.seconds}
        samples = collected.samples + self.objective.given_samples(step)
        self.hashes = {**sampled_hashes(collected.scored), "gradient": [], "weights": []}
        row |= self.update(step, samples)
        if not samples and collected.left_out:  # nothing to learn from, but entropy and ratio can be measured
            totals = Totals.of(collected.left_out, self.settings.max_tokens)
            means = self._backward(self.objective.measure(collected.left_out), totals)
            known = [name for name in means if name in METRIC_NAMES and name != "loss"]
            row |= {METRIC_NAMES[name]: means[name] for name in known}
        self.objective.after_updates(updates)
        ended = time.perf_counter()
        row |= {
            "time/rollout_s": sampled - started,
            "time/rewards_s": collected.reward_seconds,  # a part of the rollout
            "time/rewards_share": collected.reward_seconds / (ended - started),
            "time/train_s": ended - sampled,
            "time/step_s": ended - started,
        }
        if step % self.settings.rollouts_every == 0 or step == self.settings.steps - 1:
            write_rollouts(self.folder, step + 1, collected.scored, self.engine.tokenizer)
        if self.show is not None:
            self.show(step + 1, collected.scored)
        return row

    def _check_verdicts(self, step: int, rollout: Sampled, row: dict[str, float], metrics: RowWriter) -> None:
        """Raise `VerdictError` if too few completions were judged, after writing what people need to go on."""
        if not self.objective.learns_from_rewards:
            return
        try:
            self.alarm.check(step + 1, rollout.collected.groups)
        except VerdictError:
            # people get this step's completions, and a checkpoint of the step before, from which this one is repeated.
            # With `staleness` one that is there already holds this rollout, and the new one holds none: the repeated
            # step must be judged again, not repeat the verdicts that stopped it.
            write_rollouts(self.folder, step + 1, rollout.collected.scored, self.engine.tokenizer)
            is_saved = checkpoints.latest(self.folder) == checkpoints.folder_of(self.folder, step)
            if step and (not is_saved or self.settings.steps_ahead):
                self._checkpoint(step, rollout.position)
            metrics.append({"step": step + 1, **row})  # for the report; a resumed run replaces it
            raise

    def update(self, step: int, samples: Sequence[Sample]) -> dict[str, float]:
        """All updates of one rollout, `minibatches` for each epoch; returns their metrics as one row."""
        settings, rows = self.settings, list[dict[str, float]]()
        for epoch in range(settings.epochs):
            minibatches = self._minibatches(samples, step, epoch)
            # lazily, each when its update is due, unless all must be prepared with the weights before the first update
            prepared: Iterable[list[LossBatches]] = map(self.objective.prepare, minibatches)
            if self.objective.prepares_ahead:
                prepared = list(prepared)
            for index, (samples_of_update, parts) in enumerate(zip(minibatches, prepared, strict=True)):
                # of the whole minibatch, so any packing and any number of ranks give the same gradient; samples that
                # get no backward pass count too: their zero is part of the paper's mean
                totals = Totals.of(samples_of_update, settings.max_tokens)
                means = self._backward(parts, totals)
                # its place among all planned updates, for the learning rate; with fewer groups than minibatches places
                # are skipped, so that the schedule still ends with the last step
                before = (step * settings.epochs + epoch) * settings.minibatches
                position = before + (index + 1) * settings.minibatches // len(minibatches) - 1
                num_trained = sum(batch.num_tokens for part in parts for batch in part.batches)
                tokens = {"tokens/train": float(sum(ranks.gather(num_trained)))}
                rows.append(means | self.learner.step(position) | self.objective.after_update(means) | tokens)
                self.hashes["gradient"].append(self.learner.gradient)
                self.hashes["weights"].append(self.learner.weights)
        return update_metrics(rows)

    def _minibatches(self, samples: Sequence[Sample], step: int, epoch: int) -> list[list[Sample]]:
        """The samples of each update of an epoch. Those of one prompt stay together: a row holds a prompt once."""
        settings = self.settings
        groups: dict[tuple[int, ...], list[Sample]] = {}
        for sample in samples:
            prompt_length = list(sample.loss_mask).index(True)
            groups.setdefault(tuple(sample.token_ids[:prompt_length]), []).append(sample)
        order = list(groups.values())
        if settings.minibatches > 1 or settings.epochs > 1:
            # by seed, step and epoch alone, so a resumed step makes the same minibatches
            random.Random(f"minibatches/{settings.seed}/{step}/{epoch}").shuffle(order)
        return [[sample for group in run for sample in group] for run in even_runs(order, settings.minibatches)]

    def _backward(self, parts: Sequence[LossBatches], totals: Totals) -> dict[str, float]:
        """Add the gradients of all parts; returns the means over their tokens, of all ranks."""
        means = [self.learner.forward_backward(part.batches, part.loss, totals, part.measured) for part in parts]
        own_tokens = [sum(len(batch.targets) for batch in (*part.batches, *part.measured)) for part in parts]
        return merge_parts(means, [sum(counts) for counts in zip(*ranks.gather(own_tokens), strict=True)])

    def _checkpoint(self, step: int, position: int, ahead: Sampled | None = None) -> None:
        """Save a checkpoint after `step` steps.

        `position` is the place among the draws where the problems of the next step begin, and `ahead` the rollout of
        that step if it was sampled already.
        """
        state = {"step": step, "position": position, "objective": self.objective.state, **self.stopping.state}
        state["logs"] = checkpoints.log_hashes(self.folder)
        if ahead is not None:
            state["ahead"] = to_state(ahead)
        self.learner.save(checkpoints.folder_of(self.folder, step), state, self.objective.moving_reference)
        checkpoints.prune(self.folder, self.settings.keep_checkpoints)


def even_runs(items: Sequence[T], count: int) -> list[Sequence[T]]:
    """Neighbours in `count` runs whose sizes differ by one at most: `even_runs([1, 2, 3], 2) == [[1, 2], [3]]`.

    Empty runs are left out, so fewer items than runs give one run each.
    """
    bounds = [round(index * len(items) / count) for index in range(count + 1)]
    return [items[start:stop] for start, stop in pairwise(bounds) if stop > start]
