"""The stage `pretrain`: a small Llama from scratch on the tiny world's corpus, such as the package's base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from r1kit import ranks, tiny
from r1kit.chat import saved
from r1kit.pipeline import Context, External, Kind, ModelSize, Work
from r1kit.settings import unhashed
from r1kit.stages.shared.costs import memory_of
from r1kit.stages.shared.preflight import ROWS, check_rows
from r1kit.tiny.frame import TINY_CHAT
from r1kit.train.learner import OptimizerSettings
from r1kit.train.memory_settings import MemorySettings, apply_memory_settings
from r1kit.train.preflight.lines import SelfCheckSettings
from r1kit.types import Sample

DOCUMENT = 137  # mean tokens, measured
OPTIMIZER = OptimizerSettings(
    learning_rate=3e-3, schedule="cosine", warmup_steps=50, final_ratio=0.05, weight_decay=0.05, betas=(0.9, 0.98)
)


class PretrainSettings(MemorySettings, SelfCheckSettings):
    """The model's size and how many documents it sees."""

    steps: int = Field(1200, ge=1)
    documents_per_step: int = Field(60, ge=1)
    layers: int = Field(4, ge=1)
    width: int = Field(128, ge=16)
    heads: int = Field(4, ge=1)
    context: int = Field(1024, ge=64)
    optimizer: OptimizerSettings = OPTIMIZER
    seed: int = 0
    tokens_per_batch: int = unhashed(8192, ge=1)
    checkpoint_every: int = unhashed(200, ge=0)
    device: str = unhashed("auto")

    @model_validator(mode="after")
    def _check_heads(self) -> PretrainSettings:
        if self.width % (2 * self.heads):
            raise ValueError(f"width is {self.width} and heads {self.heads}: each head needs an even, equal width")
        if self.heads % self.sequence_devices:
            reason = f"sequence_devices is {self.sequence_devices}, and so many devices cannot share {self.heads} heads"
            raise ValueError(f"{reason}: give a divisor of {self.heads}")
        return self

    @property
    def model_size(self) -> ModelSize:
        parameters = self.layers * 12 * self.width**2
        inner = 4 * self.width + 4 * self.width * 8 // 3  # attention, and a SwiGLU of 8/3 the width
        return ModelSize(parameters, parameters, self.layers, self.width, 2 * self.width, inner)


def run(context: Context) -> Mapping[str, Any]:
    """Train the model; leaves metrics.jsonl, checkpoints/ and model/ (weights, config, tokenizer, prompt format)."""
    from r1kit.models.load import Policy, fresh_llama, place
    from r1kit.tiny.corpus import document
    from r1kit.tiny.tokenizer import make
    from r1kit.train.learner import Learner
    from r1kit.train.supervised import Update, train_supervised

    settings: PretrainSettings = context.settings
    tokenizer = make()
    model = fresh_llama(
        tokenizer,
        layers=settings.layers,
        width=settings.width,
        heads=settings.heads,
        context=settings.context,
        seed=settings.seed,
    )
    place(model, settings.device, "auto", settings.weights_dtype)
    model.compute_dtype = ranks.gather(model.compute_dtype)[0]  # `auto` measures, and ranks must not choose differently
    apply_memory_settings(model, settings)
    learner = Learner(model, settings.optimizer, steps=settings.steps, shard=settings.shard)

    def update_of(places: Sequence[int]) -> Update:
        texts = [document(index, settings.seed).text for index in places]
        samples = [Sample(token_ids=ids, loss_mask=[True] * len(ids)) for ids in tokenizer(texts)["input_ids"]]
        return Update.of(samples, settings.tokens_per_batch, learner)

    def update_at(step: int) -> Update:
        first = step * settings.documents_per_step
        return update_of(range(first, first + settings.documents_per_step))

    def log(step: int, row: dict[str, float]) -> None:
        rate = row["tokens/train"] / row["time/step_s"]
        context.progress.step(step, settings.steps, {"loss": row["optim/loss"], "tokens/s": rate})

    check_rows(context, learner, update_of, range(min(ROWS, settings.documents_per_step)))
    every, say = settings.checkpoint_every, context.progress.say
    train_supervised(learner, update_at, context.folder, checkpoint_every=every, log=log, note=say)
    if ranks.is_first():
        Policy(model, tokenizer, (tokenizer.eos_token_id,)).save(context.folder / "model")
        saved.save(TINY_CHAT, context.folder / "model")  # the corpus is written in it
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


PRETRAIN = Kind(
    name="pretrain",
    run=run,
    settings=PretrainSettings,
    version=1,
    sources=lambda settings: {
        f"code/{path.parent.name}/{path.name}": External(path)  # the code that writes the corpus
        for path in sorted(Path(tiny.__file__).parent.rglob("*.py"))
    },
    curves=True,
    shards=True,
    cost=lambda stage, rows: Work(
        samples=stage.settings.steps * stage.settings.documents_per_step,
        length=DOCUMENT,
        passes=6,
        prompts=0,
        update=stage.settings.documents_per_step,
        **memory_of(stage.settings),
        model=stage.settings.model_size,
    ),
)
