"""The stage `reward-model`: pairwise helpfulness and point-wise safety, as standard sequence classifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from r1kit import ranks
from r1kit.chat import ChatFormat, saved
from r1kit.data.conversations import labelled, preference
from r1kit.data.jsonl import RowWriter
from r1kit.data.prepare import Reading, RowSettings
from r1kit.engines.engine_settings import ComputeSettings
from r1kit.engines.stage_policy import compute_dtype, keep_compute_dtype
from r1kit.models.classify import On, RewardModel, fresh_reward_model
from r1kit.pipeline import Context, Kind
from r1kit.stages.shared.costs import training_work
from r1kit.stages.shared.given_rows import check_given, divided, longest_row, train_rows
from r1kit.store import write_json
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.preference_pairs import Pairs, Responses, labelled_sample, pair_samples, score_all
from r1kit.train.supervised import TrainingSettings, Update
from r1kit.train.validation import Validation

Rows = Pairs | Responses


class RewardModelSettings(TrainingSettings, RowSettings, ComputeSettings):
    """The defaults are the paper's for both models (V2 section 3.1): batch 256, learning rate 6e-6, one epoch, 8,192
    tokens; its schedule is not published. `REWARD_MODEL_PRESETS` has the two by name.

    `objective`: `helpfulness` learns from preference pairs (Bradley-Terry), `safety` from labelled responses. `on`: the
    part of a response that the model reads; None is the paper's choice, the final answer for helpfulness and the whole
    response for safety. `balance_lengths`: drop pairs until the longer answer is chosen as often as rejected.
    """

    objective: Literal["helpfulness", "safety"] = "helpfulness"
    on: On | None = None
    balance_lengths: bool = False
    center: float = Field(0.0, ge=0, description="pulls the sum of a pair's scores to 0 (TRL uses 0.01)")
    chat: ChatFormat = ChatFormat()

    epochs: int = Field(1, ge=1)
    batch_size: int = Field(256, ge=1, description="pairs or responses per update")
    max_tokens: int | None = Field(8192, ge=2, description="longest prompt with answer; None: the model's context")
    optimizer: OptimizerSettings = OptimizerSettings(learning_rate=6e-6)
    validation_share: float = Field(0.1, ge=0, lt=1)

    @property
    def reads(self) -> On:
        return self.on or ("answer" if self.objective == "helpfulness" else "response")


REWARD_MODEL_PRESETS = {
    "helpfulness": RewardModelSettings(objective="helpfulness", balance_lengths=True),
    "safety": RewardModelSettings(objective="safety"),
}


def check(context: Context) -> None:
    """Raise ValueError for a stage without data, or for settings of pairs with labelled responses."""
    settings: RewardModelSettings = context.settings
    check_given(context)
    if settings.objective == "safety" and (settings.balance_lengths or settings.center):
        name = "balance_lengths" if settings.balance_lengths else "center"
        raise ValueError(f"{name} is about pairs, and the objective safety has none: leave it out")


def run(context: Context) -> Mapping[str, Any]:
    """Train a classifier from the language model of input "model" on the inputs "data..."; leaves metrics.jsonl,
    checkpoints/, tokens/, held_out.json with its rows in held_out.jsonl, and model/."""
    settings: RewardModelSettings = context.settings
    with ranks.in_turn():  # the first rank chooses the precision
        model = fresh_reward_model(
            str(context.input("model")),
            settings.chat,
            settings.reads,
            device=settings.device,
            compute_dtype=compute_dtype(context),
            weights_dtype=settings.weights_dtype,
            seed=settings.seed,
        )
        keep_compute_dtype(context, model.model)
    limit = longest_row(settings.max_tokens, model)
    rows: Rows
    held_out: Rows | None
    if settings.objective == "safety":
        data = divided(context, Reading(settings, labelled, labelled_sample(model, limit)), lambda row: row.prompt)
        rows, held_out = Responses(data.rows), Responses(data.held_out) if data.held_out else None
    else:
        data = divided(context, Reading(settings, preference, pair_samples(model, limit)), lambda pair: pair.prompt)
        rows = Pairs(data.rows, balance=settings.seed if settings.balance_lengths else None)
        held_out = Pairs(data.held_out) if data.held_out else None
        if unbalanced := len(data.rows) // 2 - len(rows):
            context.progress.say(f"{unbalanced} of {len(data.rows) // 2} pairs left out to balance lengths")
    rows.refuse_useless()  # after balancing, which may leave nothing

    def update_of(places: list[int], learner: Learner) -> Update:
        return rows.update(places, learner, settings.tokens_per_batch, settings.center)

    def measure() -> dict[str, float]:
        assert held_out is not None
        metrics = held_out.measure(score_all(model, held_out.tokens, settings.tokens_per_batch))
        return {f"validation/{name}": value for name, value in metrics.items() if isinstance(value, float)}

    every = settings.between_validations(len(rows))
    validation = Validation(measure, every=every, patience=settings.patience) if held_out is not None else None
    facts = train_rows(context, model.model, rows.lengths(), update_of, lambda _: validation)
    if ranks.is_first():
        model.save(context.folder / "model")
        saved.save(settings.chat, context.folder / "model")
    facts |= {"rows": len(rows), "dropped": rows.tokens.facts["dropped"], "contradictions": rows.contradictions()}
    return facts | _held_out(context, settings, model, held_out)


def _held_out(
    context: Context, settings: RewardModelSettings, model: RewardModel, held_out: Rows | None
) -> dict[str, Any]:
    """Score the held-out rows with the finished model; returns the metrics and writes the scores of each row."""
    from r1kit.evaluate.intervals import clustered_interval

    if held_out is None:
        return {}
    scores = score_all(model, held_out.tokens, settings.tokens_per_batch)
    metrics = held_out.measure(scores)
    by_prompt: dict[str, list[float]] = {}  # answers to the same prompt are not independent
    for prompt, value in zip(held_out.prompts(), held_out.right(scores), strict=True):
        by_prompt.setdefault(prompt, []).append(value)
    interval = {"accuracy_interval": clustered_interval(list(by_prompt.values())), "prompts": len(by_prompt)}
    write_json(context.folder / "held_out.json", metrics | interval)
    path = context.folder / "held_out.jsonl"
    if ranks.is_first():
        path.unlink(missing_ok=True)  # of an attempt that was killed while it wrote
    with RowWriter(path) as file:
        for row in held_out.held_out_rows(scores):
            file.append(row)
    return {name: value for name, value in metrics.items() if name != "reliability"}


REWARD_MODEL = Kind(
    name="reward-model",
    run=run,
    settings=RewardModelSettings,
    version=2,
    check=check,
    curves=True,
    cost=training_work,
    shards=True,
)
