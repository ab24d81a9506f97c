"""TRL's side of SFT: its SFTTrainer, configured for a CPU and timed. README.md explains the configuration."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from _workload import TRAINER, Result, Step, Training
from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.data_utils import pack_dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer


@dataclass(frozen=True)
class Variant:
    """Autocast to bf16, dtype of the weights, documents sorted by length, tokens per packed row (0: padded rows)."""

    autocast: bool = False
    dtype: torch.dtype = torch.float32
    by_length: bool = False
    packed: int = 0


VARIANTS = {
    "padded": Variant(),
    "padded-bf16": Variant(autocast=True),
    "padded-bf16w": Variant(dtype=torch.bfloat16),
    "padded-sorted": Variant(by_length=True),
    "padded-sorted-bf16": Variant(autocast=True, by_length=True),
    "packed": Variant(packed=1024),
    "packed-bf16": Variant(autocast=True, packed=1024),
    "packed-bf16w": Variant(dtype=torch.bfloat16, packed=1024),
}


class Clock(TrainerCallback):
    """Seconds from the start of an update (data at hand) to its end (weights updated), and its tokens."""

    def __init__(self, trainer: SFTTrainer) -> None:
        self.trainer, self.seen = trainer, 0
        self.steps: list[Step] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        seconds, seen = time.perf_counter() - self.start, int(self.trainer._total_train_tokens)
        self.steps.append(Step(seconds={"step": seconds}, tokens=seen - self.seen))
        self.seen = seen


def sft(work: Training) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(work, folder)
        clock = Clock(trainer)
        trainer.add_callback(clock)
        trainer.train()
    return Result(steps=clock.steps[work.warmup :])


def trainer_for(work: Training, folder: str) -> SFTTrainer:
    """A trainer whose updates each take all documents, in their order, sorted by length, or packed."""
    variant = VARIANTS[work.variant]
    tokenizer = AutoTokenizer.from_pretrained(work.model, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        work.model, dtype=variant.dtype, attn_implementation="sdpa", trust_remote_code=False
    )
    documents = sorted(work.documents, key=lambda d: len(d.token_ids)) if variant.by_length else work.documents
    data = Dataset.from_dict({"input_ids": [d.token_ids for d in documents], "labels": [d.labels for d in documents]})
    if variant.packed:  # here and not by the trainer, which would pack documents of several updates together
        data = pack_dataset(data, variant.packed)
    batch = 1 if variant.packed else work.batch
    return SFTTrainer(
        model=model,
        args=config(work, variant, batch, len(data) // batch, folder),
        train_dataset=concatenate_datasets([data] * (work.warmup + work.steps)),
        processing_class=tokenizer,
    )


def config(work: Training, variant: Variant, batch: int, passes: int, folder: str) -> SFTConfig:
    return SFTConfig(
        output_dir=folder,
        max_steps=work.warmup + work.steps,
        seed=work.seed,
        train_sampling_strategy="sequential",
        bf16=variant.autocast,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=passes,
        max_length=None,  # no document is cut
        padding_free=bool(variant.packed),
        **TRAINER,
    )


def loss_and_gradient(work: Training) -> tuple[float, dict[str, Any]]:
    """Loss and gradient of the trainer on all documents, through its own data preparation, collator and loss."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_for(replace(work, warmup=0, steps=1), folder)
        batches = list(trainer.get_train_dataloader())
    model: Any = trainer.model
    model.train()
    trainer.current_gradient_accumulation_steps = len(batches)
    items = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(model, trainer._prepare_inputs(batch), num_items_in_batch=torch.tensor(items))
        loss.backward()
        total += float(loss.detach())
    return total, {name: p.grad for name, p in model.named_parameters()}
