"""Training on given tokens: pre-training and supervised fine-tuning are this loop with other samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from r1kit.store import RowWriter, keep_steps
from r1kit.train import checkpoints
from r1kit.train.batch import Totals, pack
from r1kit.train.learner import Learner
from r1kit.train.losses import next_token
from r1kit.types import Sample

Log = Callable[[int, dict[str, float]], None]


def train_supervised(
    learner: Learner,
    samples_at: Callable[[int], Sequence[Sample]],
    folder: Path,
    *,
    tokens_per_batch: int,
    checkpoint_every: int,
    log: Log,
) -> None:
    """Run the learner's remaining steps; step s trains on `samples_at(s)`, so a resumed run sees the same data.

    Writes `metrics.jsonl` and checkpoints below `folder`, and continues from the newest of them.
    """
    newest = checkpoints.latest(folder)
    if newest is not None:
        learner.load(newest)
    keep_steps(folder / "metrics.jsonl", learner.updates)
    with RowWriter(folder / "metrics.jsonl") as metrics:
        while learner.updates < learner.steps:
            started = time.perf_counter()
            samples = samples_at(learner.updates)
            totals = Totals.of(samples)
            batches = pack(samples, tokens_per_batch, learner.device)
            sums = learner.forward_backward(batches, next_token, totals)
            row = {"optim/loss": sums["loss"], "policy/entropy": sums["entropy"], **learner.step()}
            row |= {"tokens/train": totals.num_tokens, "time/step_s": time.perf_counter() - started}
            metrics.append({"step": learner.updates, **row})
            log(learner.updates, row)
            if checkpoint_every and learner.updates % checkpoint_every == 0 and learner.updates < learner.steps:
                learner.save(checkpoints.folder_of(folder, learner.updates), {})
                checkpoints.prune(folder, keep=2)
