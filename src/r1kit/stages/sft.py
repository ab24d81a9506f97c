"""The stage `sft`: cold-start SFT, SFT 2, distillation from traces and the V3 SFT are this with other data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from r1kit.pipeline import Context, Kind
from r1kit.stages import chat_format
from r1kit.stages.probe import ProbeSettings, make_probe
from r1kit.stages.shared import HIDDEN, ChatSettings
from r1kit.store import write_json
from r1kit.tasks import load_tasks
from r1kit.train.data import conversation
from r1kit.train.head import Objective
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.mask import excerpt
from r1kit.train.prepare import ConversationSettings, Reading, Split, conversation_samples
from r1kit.train.supervised import (
    NEXT_TOKEN,
    Epochs,
    TrainingSettings,
    Update,
    Validation,
    train_supervised,
    validation_loss,
)
from r1kit.train.tokens import TokenFile
from r1kit.types import Message, Sample

T = TypeVar("T")
LossOf = Callable[[list[Sample]], Objective]  # what an update's samples are trained for


class GivenSettings(TrainingSettings, ConversationSettings):
    """Training on conversations: what `TrainingSettings` and `ConversationSettings` say, from which prompt, where."""

    chat: ChatSettings = ChatSettings()
    probe: ProbeSettings = ProbeSettings()
    device: str = Field("auto", json_schema_extra=HIDDEN)


class SFTSettings(GivenSettings):
    """The defaults are the paper's for the cold start and for SFT 2 (V2 B.4.2); `SFT_PRESETS` has the others."""

    lora_rank: int = Field(0, ge=0, description="0 trains all weights")
    lora_alpha: int = Field(32, gt=0)
    lora_targets: tuple[str, ...] = Field((), description="names of linear layers; empty: all of them")


def _cosine(first: float, last: float) -> OptimizerSettings:
    """The paper names neither warm-up nor optimiser; 3 % is what open-r1 uses."""
    ratio = last / first
    return OptimizerSettings(learning_rate=first, schedule="cosine", final_ratio=ratio, warmup_ratio=0.03)


# V2 B.4.2: cosine 5e-5 -> 5e-6, 32,768 tokens, batch 128, two epochs on the 800k (V1) and 2-3 in general. V3 section
# 5.1: two epochs, 5e-6 -> 1e-6; its batch is not published. V2 B.4.3, table 6: students with batch 64, cosine to 1/10.
SFT_PRESETS: dict[str, SFTSettings] = {
    "cold-start": SFTSettings(epochs=2, optimizer=_cosine(5e-5, 5e-6)),
    "sft-2": SFTSettings(epochs=2, optimizer=_cosine(5e-5, 5e-6)),
    "v3": SFTSettings(epochs=2, optimizer=_cosine(5e-6, 1e-6)),
} | {
    f"distill-{student}": SFTSettings(epochs=2, batch_size=64, optimizer=_cosine(rate, rate / 10))
    for student, rate in {
        "qwen-1.5b": 1e-4, "qwen-7b": 8e-5, "qwen-14b": 7e-5, "qwen-32b": 6e-5, "llama-8b": 5e-5, "llama-70b": 2e-5,
    }.items()
}  # fmt: skip


def check(context: Context) -> None:
    """Refuse a stage without data, and tasks that cannot be read, before any work starts."""
    data_files(context, "data")
    if context.settings.probe.tasks:
        load_tasks(context.settings.probe.tasks, training=False)


def data_files(context: Context, name: str) -> list[Path]:
    """The inputs `data`, `data/...`; raises ValueError where there is none or one is a folder."""
    paths = list(context.inputs(name).values())
    if not paths:
        raise ValueError(f"stage {context.stage} has no data: give an input named {name!r}, or several as {name}/NAME")
    for path in paths:
        if path.is_dir():
            raise ValueError(f"input {name} of stage {context.stage} is the folder {path}: name one file in it")
    return paths


@dataclass(frozen=True)
class Data:
    """Tokenised rows to train on, and the ones that are held out."""

    rows: TokenFile
    held_out: TokenFile | None


def tokenised(context: Context, policy: Any, limit: int) -> Data:
    """Conversations from the inputs `data...`; held-out ones from `validation...` or a share of the data."""
    settings: GivenSettings = context.settings
    make = conversation_samples(settings, settings.chat.format(), policy.tokenizer, limit)
    return divided(context, Reading(settings, conversation, make), lambda row: row.messages)


def divided(context: Context, reading: Reading[T], messages: Callable[[T], Sequence[Message]]) -> Data:
    """Tokenised training and held-out rows; `messages` gives a record's, whose question decides its side."""
    settings, folder = context.settings, context.folder / "tokens"
    paths, held_out = data_files(context, "data"), list(context.inputs("validation").values())
    split = Split(0.0 if held_out else settings.validation_share, settings.seed)
    rows = reading.tokenise(paths, folder / "train", lambda row: not split.holds_out(messages(row)))
    if dropped := rows.facts["dropped"]:
        context.progress.say(f"{dropped} rows left out, with reasons in {folder / 'train' / 'dropped.jsonl'}")
    if held_out:
        return Data(rows, reading.tokenise(held_out, folder / "validation"))
    if not split.share:
        return Data(rows, None)
    return Data(rows, reading.tokenise(paths, folder / "validation", lambda row: split.holds_out(messages(row))))


def longest_row(max_tokens: int | None, *policies: Any) -> int:
    """The most tokens that a row may have: the setting, and what all models take."""
    contexts = [int(policy.context) for policy in policies]
    return min([*contexts, max_tokens or max(contexts)])


def validating(settings: GivenSettings, policy: Any, learner: Learner, data: Data) -> Validation | None:
    """Loss on held-out rows and answers to held-out problems, as far as there are any.

    Raises ValueError where early stopping has nothing to follow.
    """
    held_out, probe = data.held_out, settings.probe
    if probe.watch and not probe.tasks:
        raise ValueError("probe.watch follows the answers to probe.tasks: name at least one task")
    if held_out is None and not probe.tasks:
        if settings.patience:
            raise ValueError("patience needs held-out rows: set validation_share, or give the input 'validation'")
        return None
    answers = make_probe(probe, policy, settings.chat.format())
    sources = [] if held_out is None else [row["source"] for row in held_out.rows()]

    def measure() -> dict[str, float]:
        if held_out is None:
            return answers()
        return validation_loss(learner, held_out, settings.tokens_per_batch, sources) | answers()

    follows_answers = probe.watch or held_out is None
    return Validation(
        measure, settings.between_validations(len(data.rows)),
        watch="probe/accuracy" if follows_answers else "validation/loss",
        higher_is_better=follows_answers, patience=settings.patience,
    )  # fmt: skip


def logging(context: Context, learner: Learner) -> Any:
    """Shows loss and speed of each update."""

    def log(step: int, row: dict[str, float]) -> None:
        rate = row["tokens/train"] / row["time/step_s"]
        held_out = {"validation": row["validation/loss"]} if "validation/loss" in row else {}
        context.progress.step(step, learner.steps, {"loss": row["optim/loss"], **held_out, "tokens/s": rate})

    return log


def train_given(context: Context, policy: Any, data: Data, loss_of: LossOf) -> Mapping[str, Any]:
    """Train a policy on tokenised rows; leaves metrics.jsonl, checkpoints/, mask.json and model/."""
    from r1kit.models.recompute import recompute_activations

    settings: GivenSettings = context.settings
    write_json(context.folder / "mask.json", excerpt(data.rows, policy.tokenizer))
    if settings.activation_checkpointing:
        recompute_activations(policy.model)
    learner = Learner(policy.model, settings.optimizer, steps=settings.updates(len(data.rows)))
    epochs = Epochs(len(data.rows), settings)

    def update_at(update: int) -> Update:
        samples = [data.rows[index] for index in epochs[update]]
        return Update.of(samples, settings.tokens_per_batch, learner, loss_of(samples))

    best = train_supervised(
        learner, update_at, context.folder, checkpoint_every=settings.checkpoint_every,
        log=logging(context, learner), validation=validating(settings, policy, learner, data),
    )  # fmt: skip
    policy.save(context.folder / "model")
    chat_format.save(settings.chat, context.folder / "model")
    at_best = {"best_update": best.step, "best_validation": best.value} if best.value is not None else {}
    return {"updates": learner.updates, "samples": len(data.rows), **data.rows.facts, **at_best}


def run(context: Context) -> Mapping[str, Any]:
    """Train the model of input "model" on the inputs "data..." (see `train_given`)."""
    from r1kit.models.load import add_lora, load

    settings: SFTSettings = context.settings
    policy = load(str(context.input("model")), device=settings.device, seed=settings.seed)
    data = tokenised(context, policy, longest_row(settings.max_tokens, policy))
    if settings.lora_rank:
        policy = add_lora(policy, settings.lora_rank, settings.lora_alpha, settings.lora_targets)
    return train_given(context, policy, data, lambda samples: NEXT_TOKEN)


SFT = Kind(name="sft", run=run, settings=SFTSettings, version=1, check=check)
