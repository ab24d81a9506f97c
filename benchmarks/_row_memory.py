"""A stage that measures what each rank adds to its memory for one long row (Linux)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit import ranks
from r1kit.models import attention
from r1kit.models.batch import Totals
from r1kit.pipeline import Context, Kind, Recipe, Stage, execute
from r1kit.settings import Settings
from r1kit.store import read_json
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.next_token import next_token
from r1kit.train.packing import pack
from r1kit.types import Sample

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class RowMemorySettings(Settings):
    tokens: int
    layers: int
    sequence_devices: int


def run(context: Context) -> Mapping[str, Any]:
    """One forward and backward pass over a row; `added_mb` and `loss` are of all ranks, in order."""
    settings: RowMemorySettings = context.settings
    learner = Learner(smollm2_shape(settings.layers, settings.tokens), OptimizerSettings(), steps=1)
    _train(learner, 64)  # from here on there are gradients, and buffers for gathered weights
    PEAK.write_text("5")  # the peak starts again from here
    before = _megabytes("VmRSS")
    loss = _train(learner, settings.tokens)
    return {"loss": loss, "added_mb": ranks.gather(_megabytes("VmHWM") - before)}


def smollm2_shape(layers: int, context: int) -> Any:
    """Layers, embeddings and head as wide as SmolLM2-135M's, with 12 heads in place of 9, which 4 ranks can share."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    attention.register()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        attn_implementation=attention.NAME,
    )
    return LlamaForCausalLM(config)


def _train(learner: Learner, tokens: int) -> float:
    """Returns the loss."""
    sample = Sample(token_ids=[number * 7919 % 49152 for number in range(tokens)], loss_mask=[True] * tokens)
    batches = pack([sample] if ranks.rank() < ranks.row_size() else [], tokens, learner.model)
    return learner.forward_backward(batches, next_token, Totals.of([sample]))["loss"]


def _megabytes(name: str) -> float:
    return int(STATUS.read_text().partition(f"{name}:")[2].split()[0]) / 1024


ROW_MEMORY = Kind(name="row-memory", run=run, settings=RowMemorySettings, shards=True)


def measure(folder: Path, tokens: int, layers: int, count: int) -> dict[str, Any]:
    """What `run` returns on `count` ranks that share the row."""
    settings = RowMemorySettings(tokens=tokens, layers=layers, sequence_devices=count)
    recipe = Recipe("memory", (Stage("row", ROW_MEMORY, settings),))
    finished = execute(recipe, folder / str(count), devices=count)
    return read_json(finished / "manifest.json")["metrics"]  # type: ignore[no-any-return]
