"""Training on rows of data files: held-out rows, progress, and the training loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from r1kit.data.jsonl import read_rows
from r1kit.data.prepare import Reading, Split
from r1kit.data.tokens import TokenFile
from r1kit.pipeline import Context, Work
from r1kit.stages.shared.alarm import HealthAlarm
from r1kit.stages.shared.costs import memory_of
from r1kit.stages.shared.input_files import input_files
from r1kit.stages.shared.preflight import ROWS, check_rows
from r1kit.stages.shared.trained import check_heads
from r1kit.train.learner import Learner
from r1kit.train.memory_settings import apply_memory_settings
from r1kit.train.preflight.lines import Line
from r1kit.train.supervised import RowsByUpdate, TrainingSettings, Update, train_supervised
from r1kit.train.validation import Validation
from r1kit.types import Message

T = TypeVar("T")
UpdateOf = Callable[[list[int], Learner], Update]  # builds an update from the indices of its rows


@dataclass(frozen=True)
class Data:
    """Tokenised rows to train on, and held-out ones."""

    rows: TokenFile
    held_out: TokenFile | None


def check_given(context: Context, *, answers: bool = False) -> None:
    """Raise ValueError for a stage without data, or without anything that early stopping can follow.

    `answers`: a probe answers held-out problems, which early stopping can follow too.
    """
    from r1kit.train.optimizers import require_optimizer

    settings: TrainingSettings = context.settings
    require_optimizer(settings.optimizer)
    check_heads(context)
    input_files(context, "data")
    watched = answers or settings.validation_share or context.inputs("validation")
    if not watched and (idle := [name for name in ("patience", "validation_every") if getattr(settings, name)]):
        raise ValueError(f"{idle[0]} needs held-out rows: set validation_share, or give the input 'validation'")


def divided(context: Context, reading: Reading[T], messages: Callable[[T], Sequence[Message]]) -> Data:
    """Tokenised rows of the inputs `data...`, and held-out ones from `validation...` or a share of the data.

    `messages` returns the messages of a record; its first question decides the side that it is on. An empty file beside
    others is of a stage that kept nothing: it is named and left out.
    """
    settings, folder = context.settings, context.folder / "tokens"
    files, held_out = input_files(context, "data"), list(context.inputs("validation").values())
    paths = [path for path in files.values() if path.stat().st_size] or list(files.values())
    if len(paths) < len(files):
        context.progress.say(f"no rows in {', '.join(str(path) for path in files.values() if path not in paths)}")
    split = Split(0.0 if held_out else settings.validation_share, settings.seed)
    rows = reading.tokenise(paths, folder / "train", lambda row: not split.holds_out(messages(row)))
    if dropped := rows.facts["dropped"]:
        file = folder / "train" / "dropped.jsonl"
        [(reason, count)] = Counter(row["reason"] for row in read_rows(file)).most_common(1)
        context.progress.say(f"{dropped} rows left out, {count} of them because: {reason}; all reasons are in {file}")
    if held_out:
        return Data(rows, reading.tokenise(held_out, folder / "validation"))
    if not split.share:
        return Data(rows, None)
    return Data(rows, reading.tokenise(paths, folder / "validation", lambda row: split.holds_out(messages(row))))


def longest_row(max_tokens: int | None, *models: Any) -> int:
    """The maximum number of tokens in a row: the setting, but at most the context of every model."""
    contexts = [int(model.context) for model in models]
    return min([*contexts, max_tokens or max(contexts)])


def train_rows(
    context: Context,
    model: Any,
    lengths: Sequence[int],
    update_of: UpdateOf,
    validation: Callable[[Learner], Validation | None],
    checked: Callable[[], Sequence[Line]] = tuple,
) -> dict[str, Any]:
    """Train on rows of these lengths with the stage's settings; leaves metrics.jsonl and checkpoints/.

    `checked` makes the caller's own checks before the first update (`tuple`: none). Returns the number of updates and
    the best validation.
    """
    from r1kit.train.first_batch import longest_rows, require_training

    settings: TrainingSettings = context.settings
    apply_memory_settings(model, settings)
    learner = Learner(model, settings.optimizer, steps=settings.updates(len(lengths)), shard=settings.shard)
    rows_by_update = RowsByUpdate(len(lengths), settings)

    def largest(tokens: int) -> Update:
        return update_of(longest_rows(lengths, tokens, settings.batch_size), learner)

    tokens = sum(lengths[row] for row in longest_rows(lengths, settings.tokens_per_batch, settings.batch_size))
    require_training(learner, largest, Work(**memory_of(settings)), tokens=tokens, longest=max(lengths))
    shortest = sorted(rows_by_update[0], key=lengths.__getitem__)[:ROWS]  # the check takes the least time with them
    check_rows(context, learner, lambda places: update_of(list(places), learner), shortest, checked)

    alarm = HealthAlarm(context)

    def log(step: int, row: Mapping[str, float]) -> None:
        rate = row["tokens/train"] / row["time/step_s"]
        held_out = {"validation": row["validation/loss"]} if "validation/loss" in row else {}
        context.progress.step(step, learner.steps, {"loss": row["optim/loss"], **held_out, "tokens/s": rate})
        alarm.look(step)

    held_out = validation(learner)
    best, facts = alarm.guard(
        lambda: train_supervised(
            learner,
            lambda update: update_of(rows_by_update[update], learner),
            context.folder,
            checkpoint_every=settings.checkpoint_every,
            log=log,
            note=context.progress.say,
            validation=held_out,
        ),
        learner,
    )
    return {"updates": learner.updates, **best.facts("update"), **facts}
