"""Training on conversations with any loss on their assistant tokens, for the stages sft and distill."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from pydantic import model_validator

from r1kit.chat import ChatFormat
from r1kit.data.conversations import Located, conversation, read, renamed
from r1kit.data.errors import DataError
from r1kit.data.mask_excerpt import excerpt
from r1kit.data.prepare import ConversationSettings, Reading, conversation_samples
from r1kit.engines.engine_settings import ComputeSettings
from r1kit.models.policy_net import AnyLoss
from r1kit.pipeline import Context, External
from r1kit.stages.shared.given_rows import Data, check_given, divided, train_rows
from r1kit.stages.shared.probe import ProbeSettings, check_probe, make_probe, probe_of, refuse_unread
from r1kit.stages.shared.sources import sources
from r1kit.stages.shared.trained import save_trained, with_lora
from r1kit.store import write_json
from r1kit.train.learner import Learner
from r1kit.train.memory_settings import LoraSettings
from r1kit.train.packing import rank_share
from r1kit.train.preflight.prompts import rows_line, turn_line
from r1kit.train.supervised import TrainingSettings, Update, validation_loss
from r1kit.train.validation import Validation
from r1kit.types import Conversation, Sample

FIRST_ROWS = 20  # of a file, which are read before anything starts
LossOf = Callable[[list[Sample]], AnyLoss]  # the loss of this rank's share of an update


class ChatDataSettings(ConversationSettings, ComputeSettings):
    """Conversations in the chat format of the model's prompts, and the device that the model runs on."""

    chat: ChatFormat = ChatFormat()

    @model_validator(mode="after")
    def _check_exemplars(self) -> ChatDataSettings:
        if self.chat.exemplars:
            raise ValueError(
                "chat.exemplars would be in every prompt, and the conversations have none: leave them out here and "
                "wherever the trained model is sampled"
            )
        return self

    def reading(self, policy: Any, limit: int) -> Reading[Conversation]:
        """How rows become samples of at most `limit` tokens for a policy."""
        make = conversation_samples(self, self.chat, policy.tokenizer, policy.end_ids, limit)
        return Reading(self, conversation, make)


class GivenSettings(TrainingSettings, LoraSettings, ChatDataSettings):
    """Training on conversations: all weights or LoRA.

    `probe`: held-out problems that the model answers at every validation.
    """

    probe: ProbeSettings = ProbeSettings()


def check(context: Context) -> None:
    """Raise ValueError for missing data, an unusable probe, and early stopping without a score to follow, and
    `DataError` for a file that does not begin with a conversation."""
    settings: GivenSettings = context.settings
    _check_first_rows(context)
    check_given(context, answers=bool(settings.probe.tasks))
    refuse_unread(context, settings.probe.rewards)
    has_loss = bool(settings.validation_share or context.inputs("validation"))
    follows = settings.probe.watch or ("" if has_loss else "accuracy")
    check_probe(context, follows=bool(settings.patience) and follows == "accuracy")


def _check_first_rows(context: Context) -> None:
    """Raise `DataError` for a file whose first rows are no conversations, or have no reply to learn from.

    Files that another stage has yet to write are left to the stage itself.
    """
    settings: GivenSettings = context.settings
    convert = renamed(conversation, settings.columns) if settings.columns else conversation
    for path in context.inputs("data").values():
        is_there = path.is_file() and path.stat().st_size > 0
        first = list(islice(read([path], convert), FIRST_ROWS)) if is_there and not settings.skip_invalid else []
        if error := next((row for row in first if isinstance(row, DataError)), None):
            raise error
        turns = [turn for row in first if isinstance(row, Located) for turn in row.record.messages]
        if first and not any(turn.role == "assistant" for turn in turns):
            reason = "the first rows have no reply to learn from; problems with references are for the recipe rl"
            raise DataError("wrong type", reason, str(path))


def probe_sources(settings: GivenSettings) -> Mapping[str, External]:
    """Files behind the held-out problems and their judges."""
    return sources(settings.probe.tasks, settings.probe.rewards)


def tokenised(context: Context, policy: Any, limit: int) -> Data:
    """Tokenised conversations of the inputs `data...`, and held-out ones; see `divided`."""
    context.progress.say(policy.turn(context.settings.chat))
    return divided(context, context.settings.reading(policy, limit), lambda row: row.messages)


def train_given(context: Context, policy: Any, data: Data, loss_of: LossOf) -> Mapping[str, Any]:
    """Train a policy on tokenised rows; leaves metrics.jsonl, checkpoints/, mask.json, model/ and adapter/."""
    settings: GivenSettings = context.settings
    write_json(context.folder / "mask.json", excerpt(data.rows, policy.tokenizer))
    policy = with_lora(policy, settings)

    def update_of(places: list[int], learner: Learner) -> Update:
        samples = [data.rows[place] for place in places]
        return Update.of(samples, settings.tokens_per_batch, learner, loss_of(rank_share(samples)))

    facts = train_rows(
        context,
        policy.model,
        data.rows.lengths(),
        update_of,
        lambda learner: _validation(context, policy, learner, data),
        lambda: [turn_line(settings.chat, policy), rows_line(data.rows, policy)],
    )
    save_trained(context, policy)
    return {**facts, "samples": len(data.rows), **data.rows.facts}


def _validation(context: Context, policy: Any, learner: Learner, data: Data) -> Validation | None:
    """The loss on held-out rows and the answers to held-out problems; None if there are neither."""
    settings: GivenSettings = context.settings
    held_out, probe = data.held_out, settings.probe
    if held_out is None and not probe.tasks:
        return None
    answers = make_probe(probe_of(context), policy, settings.chat)
    sources = [] if held_out is None else [row["source"] for row in held_out.rows()]

    def measure() -> dict[str, float]:
        if held_out is None:
            return answers()
        return validation_loss(learner, held_out, settings.tokens_per_batch, sources) | answers()

    follows = probe.watch or ("accuracy" if held_out is None else "")
    return Validation(
        measure,
        settings.between_validations(len(data.rows)),
        watch=f"probe/{follows}" if follows else "validation/loss",
        higher_is_better=bool(follows),
        patience=settings.patience,
    )
