"""The loop for training on given data: pre-training, SFT, distillation and reward models."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from r1kit import ranks
from r1kit.data import step_rows
from r1kit.data.jsonl import RowWriter
from r1kit.models.batch import Batch, Totals
from r1kit.models.policy_net import AnyLoss
from r1kit.settings import unhashed
from r1kit.train import checkpoints, step_hashes
from r1kit.train.epoch_order import EpochOrder
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.next_token import next_token
from r1kit.train.memory_settings import MemorySettings
from r1kit.train.packing import pack, rank_share
from r1kit.train.preflight.lines import SelfCheckSettings
from r1kit.train.validation import Best, EarlyStopping, Validation
from r1kit.types import Sample

SAMPLES_AT_ONCE = 256  # held-out samples packed at once
METRIC_NAMES = {"loss": "optim/loss", "entropy": "policy/entropy"}  # all other sums of a loss become train/NAME
Log = Callable[[int, dict[str, float]], None]


def cosine(first: float, last: float) -> OptimizerSettings:
    """A cosine from one learning rate to another. The paper states no warm-up; open-r1's is 3 % of the updates."""
    return OptimizerSettings(learning_rate=first, schedule="cosine", final_ratio=last / first, warmup_ratio=0.03)


class TrainingSettings(MemorySettings, SelfCheckSettings):
    """Training on given rows: `epochs` passes, each in a different order, with `batch_size` rows per update.

    Rows longer than `max_tokens` are left out (None: the model's context). A share `validation_share` of the rows is
    held out by a hash of the prompt, so no prompt is on both sides; a separate file can be given instead. `patience`:
    stop after that many validations without a better score and keep the best weights; 0 never stops early.
    """

    epochs: int = Field(2, ge=1)
    batch_size: int = Field(128, ge=1, description="rows per update")
    max_tokens: int | None = Field(32_768, ge=2, description="longest row; None: the model's context")
    optimizer: OptimizerSettings = cosine(5e-5, 5e-6)
    validation_share: float = Field(0.0, ge=0, lt=1)
    validation_every: int = Field(0, ge=0, description="updates between validations; 0: once per epoch")
    patience: int = Field(0, ge=0)
    seed: int = 0
    tokens_per_batch: int = unhashed(8192, ge=1, description="packed tokens per forward pass; limits memory")
    checkpoint_every: int = unhashed(50, ge=0)

    def updates(self, rows: int) -> int:
        """The number of updates for `rows` rows."""
        return math.ceil(rows * self.epochs / self.batch_size)

    def between_validations(self, rows: int) -> int:
        """The number of updates between two validations."""
        return self.validation_every or max(1, math.ceil(rows / self.batch_size))


class RowsByUpdate:
    """The places of the rows of each update, `rows_by_update[0]` being the first, in the order of `EpochOrder`."""

    def __init__(self, rows: int, settings: TrainingSettings) -> None:
        self.batch_size, self.total = settings.batch_size, rows * settings.epochs
        self._order = EpochOrder("epochs", rows, settings.seed)

    def __getitem__(self, update: int) -> list[int]:
        # an update may end one epoch and begin the next; only the last update may be smaller
        first, last = update * self.batch_size, min((update + 1) * self.batch_size, self.total)
        return [self._order[position] for position in range(first, last)]


@dataclass(frozen=True)
class Update:
    """One update's share of this rank."""

    batches: Sequence[Batch]
    totals: Totals  # of all ranks, so that the ranks' gradients add up to that of one large batch
    loss: AnyLoss = next_token

    @staticmethod
    def of(samples: Sequence[Sample], tokens_per_batch: int, learner: Learner, loss: AnyLoss = next_token) -> Update:
        """The update for `samples`, those of all ranks; a batch's `order` refers to `rank_share(samples)`."""
        return Update(pack(rank_share(samples), tokens_per_batch, learner.model), Totals.of(samples), loss)


def train_supervised(
    learner: Learner,
    update_at: Callable[[int], Update],
    folder: Path,
    *,
    checkpoint_every: int,
    log: Log,
    note: Callable[[str], None],
    validation: Validation | None = None,
) -> Best:
    """Run the learner's remaining updates; returns the best validation.

    `update_at(s)` depends on s alone, so a resumed run sees the same data. Writes `metrics.jsonl`, step hashes and
    checkpoints in `folder`, and continues from the newest checkpoint there. `log` receives the metrics of each update,
    and `note` messages for people. With patience, the learner ends with the weights of the best validation.
    """
    state = checkpoints.restore(folder, learner.load, note)
    stopping = EarlyStopping(validation, learner, folder, state)
    # rows of updates after the checkpoint go, because those are run again; -1: all of them
    done, written = (-1, {}) if state is None else (learner.updates, state.get("logs", {}))
    for lost in checkpoints.keep_logs(folder, done, written):
        note(lost)
    with RowWriter(folder / "metrics.jsonl") as metrics, RowWriter(folder / step_rows.FILE) as hashes:
        if state is None:
            hashes.append({"step": 0, "weights": [learner.fingerprint()], **learner.sharing()})
        if state is None and (row := stopping.before()):
            metrics.append({"step": 0, **row})
        while learner.updates < learner.steps and not stopping.is_over:
            update = update_at(learner.updates)
            started = time.perf_counter()  # packing is not counted
            means = learner.forward_backward(update.batches, update.loss, update.totals)
            row = {METRIC_NAMES.get(name, f"train/{name}"): value for name, value in means.items()} | learner.step()
            rows = step_hashes.hash_batches(update.batches)
            updated = {"gradient": [learner.gradient], "weights": [learner.weights]}
            hashes.append({"step": learner.updates, "rows": rows, **updated, **learner.sharing()})
            row["tokens/train"] = sum(ranks.gather(sum(batch.num_tokens for batch in update.batches)))
            row["time/step_s"] = time.perf_counter() - started
            row |= stopping.after(learner.updates, last=learner.updates == learner.steps)
            metrics.append({"step": learner.updates, **row})
            log(learner.updates, row)
            if checkpoint_every and learner.updates % checkpoint_every == 0 and learner.updates < learner.steps:
                metrics.sync()  # a power cut must not leave a checkpoint without the rows before it
                hashes.sync()
                state = {"logs": checkpoints.log_hashes(folder), **stopping.state}
                learner.save(checkpoints.folder_of(folder, learner.updates), state)
                checkpoints.prune(folder, keep=2)  # two, in case the newest is damaged
    return stopping.finish()


def validation_loss(
    learner: Learner, samples: Sequence[Sample], tokens_per_batch: int, sources: Sequence[str] = ()
) -> dict[str, float]:
    """Cross-entropy per trained token of held-out samples and its exponential; also per source if there are several.

    A loss that rises for one source while others fall shows what the model forgets.
    """
    assert not sources or len(sources) == len(samples), "one source for each sample"
    own_losses: defaultdict[str, float] = defaultdict(float)  # by source, of this rank's share
    own_tokens = Counter[str]()
    for start in range(0, len(samples), SAMPLES_AT_ONCE):  # in parts: a large set need not be in memory at once
        places = range(start, min(start + SAMPLES_AT_ONCE, len(samples)))
        # each sample with its source, so that they stay together in a share
        pairs = [(samples[place], sources[place] if sources else "") for place in places]
        own_pairs = ranks.share_rows(pairs, lambda pair: len(pair[0].token_ids))
        batches = pack([sample for sample, _ in own_pairs], tokens_per_batch, learner.model)
        for batch, values in zip(batches, learner.all_logprobs(batches), strict=True):
            # in fp64: a sum over millions of tokens loses digits in fp32
            by_sample = values.double().split(list(batch.targets.lengths))  # [n] each
            for index, logprobs in zip(batch.order, by_sample, strict=True):
                _, source = own_pairs[index]
                own_losses[source] -= float(logprobs.sum())
                own_tokens[source] += len(logprobs)
    shares = ranks.gather_rows((dict(own_losses), own_tokens))
    tokens = sum((counts for _, counts in shares), Counter[str]())
    losses = {source: sum(own.get(source, 0.0) for own, _ in shares) for source in tokens}
    loss = sum(losses.values()) / tokens.total()
    row = {"validation/loss": loss, "validation/perplexity": math.exp(min(loss, 700.0))}  # exp(710) overflows
    several = [source for source in tokens if tokens[source]] if len(tokens) > 1 else []
    return row | {f"validation/loss/{source or 'unnamed'}": losses[source] / tokens[source] for source in several}
