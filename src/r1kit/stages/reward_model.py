"""The stage `reward-model`: pairwise helpfulness and point-wise safety, as standard sequence classifiers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from r1kit.models.classify import On, RewardModel, fresh_reward_model
from r1kit.models.recompute import recompute_activations
from r1kit.pipeline import Context, Kind
from r1kit.stages import chat_format
from r1kit.stages.sft import data_files, divided, logging, longest_row
from r1kit.stages.shared import HIDDEN, ChatSettings
from r1kit.store import RowWriter, write_json
from r1kit.train.batch import Totals, pack, pack_together
from r1kit.train.data import Labelled, labelled, preference
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.prepare import Reading, RowSettings, refuse_long
from r1kit.train.reward import OfScores, bradley_terry, label_metrics, pair_metrics, safety
from r1kit.train.supervised import Epochs, TrainingSettings, Update, Validation, train_supervised
from r1kit.train.tokens import TokenFile, Tokenised
from r1kit.types import PreferencePair

PART = 256  # rows that are scored at once


class RewardModelSettings(TrainingSettings, RowSettings):
    """The defaults are the paper's for both models (V2 section 3.1): batch 256, learning rate 6e-6, one epoch, 8,192
    tokens; its schedule is not published.

    `objective`: `helpfulness` learns from preference pairs by Bradley-Terry, `safety` from labelled responses. `on`:
    which part of a response is read; None is the paper's: the final answer for helpfulness, all of it for safety.
    """

    objective: Literal["helpfulness", "safety"] = "helpfulness"
    on: On | None = None
    center: float = Field(0.0, ge=0, description="pulls the sum of a pair's scores to 0 (TRL uses 0.01)")
    chat: ChatSettings = ChatSettings()
    device: str = Field("auto", json_schema_extra=HIDDEN)

    epochs: int = Field(1, ge=1)
    batch_size: int = Field(256, ge=1, description="pairs or responses per update")
    max_tokens: int | None = Field(8192, ge=2, description="longest prompt with answer; None: the model's context")
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=6e-6)
    validation_share: float = Field(0.1, ge=0, lt=1)

    @property
    def reads(self) -> On:
        return self.on or ("answer" if self.objective == "helpfulness" else "response")


def check(context: Context) -> None:
    """Refuse a stage without data before any work starts."""
    data_files(context, "data")


def pair_samples(model: RewardModel, limit: int) -> Callable[[PreferencePair], list[Tokenised]]:
    """Two samples of a pair, the chosen one first."""

    def make(pair: PreferencePair) -> list[Tokenised]:
        samples = [model.sample(pair.prompt, answer) for answer in (pair.chosen, pair.rejected)]
        if samples[0].token_ids == samples[1].token_ids:
            raise ValueError("what is judged of the two answers is the same")
        refuse_long(samples, limit)
        return [Tokenised(sample) for sample in samples]

    return make


def labelled_sample(model: RewardModel, limit: int) -> Callable[[Labelled], list[Tokenised]]:
    """One sample of a labelled response, with its label."""

    def make(row: Labelled) -> list[Tokenised]:
        samples = [model.sample(row.prompt, row.response)]
        refuse_long(samples, limit)
        return [Tokenised(sample, notes={"label": row.label}) for sample in samples]

    return make


class Pairs:
    """Preference pairs as updates and as a measure; row r is the samples 2r (chosen) and 2r + 1 (rejected)."""

    def __init__(self, tokens: TokenFile) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens) // 2

    def update(self, rows: Sequence[int], settings: RewardModelSettings, learner: Learner) -> Update:
        groups = [self.tokens[2 * row : 2 * row + 2] for row in rows]
        batches = pack_together(groups, settings.tokens_per_batch, learner.device)
        return Update(batches, Totals(0, len(groups)), OfScores(bradley_terry(settings.center), sequences=2))

    def measure(self, scores: Sequence[float]) -> dict[str, Any]:
        lengths = self.tokens.lengths()
        sizes = list(zip(lengths[::2], lengths[1::2], strict=True))
        return pair_metrics(list(zip(scores[::2], scores[1::2], strict=True)), sizes)

    def shown(self, scores: Sequence[float]) -> list[dict[str, Any]]:
        return [
            {"file": row["file"], "row": row["row"], "chosen": scores[2 * n], "rejected": scores[2 * n + 1]}
            for n, row in enumerate(list(self.tokens.rows())[::2])
        ]


class Responses:
    """Labelled responses, in the same shape as `Pairs`."""

    def __init__(self, tokens: TokenFile) -> None:
        self.tokens = tokens
        self.labels = [bool(row["label"]) for row in tokens.rows()]

    def __len__(self) -> int:
        return len(self.tokens)

    def update(self, rows: Sequence[int], settings: RewardModelSettings, learner: Learner) -> Update:
        samples = [self.tokens[row] for row in rows]
        batches = pack(samples, settings.tokens_per_batch, learner.device)
        return Update(batches, Totals(0, len(samples)), OfScores(safety([self.labels[row] for row in rows])))

    def measure(self, scores: Sequence[float]) -> dict[str, Any]:
        return label_metrics(scores, self.labels, self.tokens.lengths())

    def shown(self, scores: Sequence[float]) -> list[dict[str, Any]]:
        return [
            {"file": row["file"], "row": row["row"], "label": row["label"], "score": score}
            for row, score in zip(self.tokens.rows(), scores, strict=True)
        ]


def score_all(model: RewardModel, tokens: TokenFile, tokens_per_batch: int) -> list[float]:
    """The score of every sample, read from disk in parts."""
    found: list[float] = []
    for start in range(0, len(tokens), PART):
        found += model.scores([sample.token_ids for sample in tokens[start : start + PART]], tokens_per_batch)
    return found


def run(context: Context) -> Mapping[str, Any]:
    """Train a classifier from the language model of input "model" on the inputs "data..."; leaves metrics.jsonl,
    checkpoints/, tokens/, held_out.json with its rows in held_out.jsonl, and model/."""
    settings: RewardModelSettings = context.settings
    model = fresh_reward_model(
        str(context.input("model")), settings.chat.format(), settings.reads, device=settings.device, seed=settings.seed
    )
    limit = longest_row(settings.max_tokens, model)
    rows, held_out = _data(context, model, limit)
    if settings.activation_checkpointing:
        recompute_activations(model.model)
    learner = Learner(model.model, settings.optimizer, steps=settings.updates(len(rows)))
    epochs = Epochs(len(rows), settings)
    best = train_supervised(
        learner, lambda update: rows.update(epochs[update], settings, learner), context.folder,
        checkpoint_every=settings.checkpoint_every, log=logging(context, learner),
        validation=_validation(settings, model, rows, held_out),
    )  # fmt: skip
    model.save(context.folder / "model")
    chat_format.save(settings.chat, context.folder / "model")
    facts = {"updates": learner.updates, "rows": len(rows), "rows_left_out": rows.tokens.facts["dropped"]}
    if best.value is not None:
        facts["best_update"] = best.step
    return facts | _held_out(context, settings, model, held_out)


Rows = Pairs | Responses


def _data(context: Context, model: RewardModel, limit: int) -> tuple[Rows, Rows | None]:
    settings: RewardModelSettings = context.settings
    if settings.objective == "helpfulness":
        pairs = Reading(settings, preference, pair_samples(model, limit))
        data = divided(context, pairs, lambda pair: pair.prompt)
        return Pairs(data.rows), Pairs(data.held_out) if data.held_out else None
    responses = Reading(settings, labelled, labelled_sample(model, limit))
    data = divided(context, responses, lambda row: row.prompt)
    return Responses(data.rows), Responses(data.held_out) if data.held_out else None


def _validation(
    settings: RewardModelSettings, model: RewardModel, rows: Rows, held_out: Rows | None
) -> Validation | None:
    if held_out is None:
        if settings.patience:
            raise ValueError("patience needs held-out rows: set validation_share, or give the input 'validation'")
        return None

    def measure() -> dict[str, float]:
        found = held_out.measure(score_all(model, held_out.tokens, settings.tokens_per_batch))
        numbers = {name: value for name, value in found.items() if isinstance(value, float)}
        return {f"validation/{name}": value for name, value in numbers.items()}

    return Validation(measure, every=settings.between_validations(len(rows)), patience=settings.patience)


def _held_out(
    context: Context, settings: RewardModelSettings, model: RewardModel, held_out: Rows | None
) -> dict[str, Any]:
    """The finished model on the held-out rows: figures for the manifest, each row's scores on disk."""
    from r1kit.evaluate.intervals import critical, wilson

    if held_out is None:
        return {}
    scores = score_all(model, held_out.tokens, settings.tokens_per_batch)
    found = held_out.measure(scores)
    interval = wilson(found["accuracy"], len(held_out), critical(max(1, len(held_out) - 1)))
    write_json(context.folder / "held_out.json", found | {"accuracy_interval": interval})
    path = context.folder / "held_out.jsonl"
    path.unlink(missing_ok=True)
    with RowWriter(path) as file:
        for row in held_out.shown(scores):
            file.append(row)
    return {name: value for name, value in found.items() if name != "reliability"}


REWARD_MODEL = Kind(name="reward-model", run=run, settings=RewardModelSettings, version=1, check=check)
