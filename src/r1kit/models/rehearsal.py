"""A small random model of the same architecture as another one, from its configuration and tokenizer."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from r1kit.chat import end_ids
from r1kit.models.hub import NO_CODE, config_of, listed_ends, reading, tokenizer_of
from r1kit.models.known import ModelError
from r1kit.models.load import set_ends
from r1kit.store import atomic_folder

NARROWEST = 64  # width of the residual stream
# Divided by one factor, so that products such as heads x head width keep their ratio to the width.
WIDTHS = (
    *("hidden_size", "intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size"),
    *("num_attention_heads", "linear_num_key_heads", "linear_num_value_heads", "mamba_num_heads", "mamba_n_heads"),
    *("mamba_d_ssm", "conv_dim", "block_dim", "block_ff_dim", "q_lora_rank", "hidden_size_per_layer_input"),
)
COUNTS = ("num_key_value_heads", "mamba_n_groups", "n_groups")  # divided too, but at least 1


def save_small(outline: Path, folder: Path, seed: int) -> None:
    """Write a random model with the layers of the model in `outline`, which needs only a configuration and a tokenizer.

    Raises `ModelError` if the architecture cannot be built.
    """
    from transformers import AutoModelForCausalLM

    name = str(outline)
    tokenizer = tokenizer_of(outline, name)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(small_config(config_of(outline, name), name), **NO_CODE).float()
    set_ends(model, end_ids(tokenizer, listed_ends(outline)))
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


def small_config(config: Any, name: str) -> Any:
    """The configuration with few and narrow layers of all kinds that the model has, as few as a model can run with."""
    kinds = kinds_of(config, name)
    for candidate in candidates(config):
        try:
            if kinds_of(candidate, name) == kinds and runs(candidate):
                return candidate
        except (ModelError, ValueError, RuntimeError, AssertionError, IndexError, TypeError, ZeroDivisionError):
            continue  # a size that this architecture does not allow
    raise ModelError(f"{name}: a model of its configuration does not run, not even at its own size")


def candidates(config: Any) -> Iterator[Any]:
    """Smaller configurations, the smallest first, and the configuration itself."""
    layers = config.num_hidden_layers
    widths = [config.hidden_size // factor for factor in (64, 32, 16, 8, 4, 2, 1)]
    for factor in [config.hidden_size // width for width in widths if width >= NARROWEST] or [1]:
        for count in [*range(2, min(layers, 9)), layers]:
            yield reduced(config, factor, count)


def reduced(config: Any, factor: int, layers: int) -> Any:
    """The configuration with widths divided by `factor` and the first `layers` layers."""
    small = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        if name in WIDTHS and isinstance(value, int) and value % factor == 0:
            setattr(small, name, value // factor)
        elif name in COUNTS and isinstance(value, int):
            setattr(small, name, max(1, value // factor))
        elif isinstance(value, list | str) and len(value) == config.num_hidden_layers:  # what each layer is
            setattr(small, name, value[:layers])
    small.num_hidden_layers = layers
    return small


def kinds_of(config: Any, name: str) -> frozenset[str]:
    """The classes of all parts of a model, for which no memory is taken."""
    from transformers import AutoModelForCausalLM

    with reading(name, "cannot be built from its configuration"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, **NO_CODE)
    return frozenset(type(module).__name__ for module in model.modules())


def runs(config: Any) -> bool:
    """Whether a model of this configuration computes finite logits."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, **NO_CODE).eval()
    with torch.no_grad():
        return bool(torch.isfinite(model(torch.tensor([[1, 2, 3, 4, 5]])).logits).all())
