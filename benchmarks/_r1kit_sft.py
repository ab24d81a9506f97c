"""r1kit's side of SFT: the package's loop for given rows, from documents to updated weights."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _r1kit_side import facts_of
from _workload import LEARNING_RATE, Document, Result, Step, Training

from r1kit.models.load import load
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.supervised import Update, train_supervised
from r1kit.types import Sample


def samples_of(documents: Sequence[Document]) -> list[Sample]:
    masks = [[place >= each.prompt for place in range(len(each.token_ids))] for each in documents]
    return [Sample(token_ids=tuple(d.token_ids), loss_mask=tuple(m)) for d, m in zip(documents, masks, strict=True)]


def sft(work: Training) -> Result:
    """Updates of the loop that the stage `sft` runs; an update's time includes packing and the optimizer."""
    model = load(work.model, device="cpu", compute_dtype=work.compute_dtype).model  # type: ignore[arg-type]
    total = work.warmup + work.steps
    learner = Learner(model, OptimizerSettings(learning_rate=LEARNING_RATE), steps=total)
    samples = samples_of(work.documents)
    starts: list[float] = []
    steps: list[Step] = []

    def update_at(_: int) -> Update:
        starts.append(time.perf_counter())
        return Update.of(samples, work.tokens_per_batch, learner)

    def log(_: int, row: dict[str, float]) -> None:
        steps.append(Step(seconds={"step": time.perf_counter() - starts[-1]}, tokens=int(row["tokens/train"])))

    with tempfile.TemporaryDirectory() as folder:
        train_supervised(learner, update_at, Path(folder), checkpoint_every=0, log=log, note=print)
    return Result(steps=steps[work.warmup :], facts=facts_of(model))
