"""The size of a model, from the headers of its weights or from its config alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from r1kit.models.known import ModelError, first_line, shapes_in
from r1kit.pipeline import ModelSize
from r1kit.store import read_object

# the field's usual name, and those of GPT-2, MPT, GPT-Neo and OPT, which config.json keeps
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH = ("hidden_size", "n_embd", "d_model")
NOT_ADAPTED = ("embed", "lm_head", "conv", ".experts.", "score.")  # by LoRA on all linear layers
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
MLP_WIDTH = ("intermediate_size", "n_inner", "ffn_dim")

Shapes = Mapping[str, tuple[int, ...]]  # of all weights, by name


def size_of_model(folder: Path) -> ModelSize:
    """The size of the model in a folder, which needs no more than its config.json.

    Raises `ModelError` for an architecture that transformers does not know, if there are no weights to count.
    """
    config = read_object(folder / "config.json")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in folder.glob("*.safetensors"):
        shapes |= shapes_in(file)
    return size_of_shapes(shapes or shapes_of_config(folder), config.get("text_config") or config)


def size_of_shapes(shapes: Shapes, config: Mapping[str, Any]) -> ModelSize:
    """The size of a model with such weights and a configuration with the field names of transformers."""
    counts = {name: prod(shape) for name, shape in shapes.items()}
    parameters = sum(counts.values())
    routed = sum(count for name, count in counts.items() if ".experts." in name)  # not `.shared_experts.`
    experts = _first(config, "n_routed_experts", "num_experts", "num_local_experts")
    chosen = _first(config, "num_experts_per_tok", "experts_per_token", "moe_topk", "moe_top_k")
    active = parameters - routed * (1 - chosen / experts if experts else 0)
    layers, width = _first(config, *LAYERS), _first(config, *WIDTH)
    heads = heads_of(config)
    key_heads = _first(config, "num_key_value_heads") or heads
    key = _first(config, "head_dim") or width // heads
    queries, keys, values = heads * key, key_heads * key, key_heads * key
    if latent := _first(config, "kv_lora_rank"):  # MLA; r1kit caches the decompressed keys and values
        queries = keys = heads * (_first(config, "qk_nope_head_dim") + _first(config, "qk_rope_head_dim"))
        values = heads * _first(config, "v_head_dim")
    attended = queries + keys + values + (values if latent else queries)  # the last: attention's output
    matrices = {name: shape for name, shape in shapes.items() if len(shape) > 1}
    adapted = [shape for name, shape in matrices.items() if not any(part in name for part in NOT_ADAPTED)]
    return ModelSize(
        parameters=parameters,
        active=active,
        layers=layers,
        width=width,
        cached=keys + values,
        inner=attended + _kept_by_mlp(config, layers, width, chosen),
        vocabulary=_first(config, "vocab_size"),
        sides=sum(sum(shape[-2:]) for shape in adapted),
        choices=chosen * len({name.partition(".experts.")[0] for name in shapes if ".experts." in name}),
        routed=routed,
        chosen=chosen if experts else 0,
    )


def heads_of(config: Mapping[str, Any]) -> int:
    """The number of attention heads, 1 if the configuration does not say."""
    return _first(config, *HEADS) or 1


def _kept_by_mlp(config: Mapping[str, Any], layers: int, width: int, chosen: int) -> int:
    """Values that the MLP of a layer keeps per token, on average: gate, up, activation and product; routed inputs."""
    dense = 4 * (_first(config, *MLP_WIDTH) or 4 * width)  # GPT-2 and its heirs name a width only if it is another one
    if not chosen:
        return dense
    expert = _first(config, "moe_intermediate_size") or _first(config, "intermediate_size")
    shared = _first(config, "shared_expert_intermediate_size") or _first(config, "n_shared_experts") * expert
    routed = 4 * (chosen * expert + shared) + 2 * chosen * width  # each expert's input and output
    first = _first(config, "first_k_dense_replace")
    return (first * dense + (layers - first) * routed) // max(1, layers)


def _first(config: Mapping[str, Any], *names: str) -> int:
    """The first of these fields that the configuration has, otherwise 0; the largest of one value per layer."""
    value = next((config[name] for name in names if config.get(name)), 0)
    return int(max(value) if isinstance(value, list) else value)  # Gemma 3n lists the width of each layer's MLP


def shapes_of_config(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights that the folder's config describes; none of them is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    from r1kit.models.folder_code import code_options
    from r1kit.models.hub import config_of

    config = config_of(folder, str(folder))
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, **code_options(folder))
    except (ImportError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise ModelError(f"the size of {folder} cannot be counted ({first_line(error)}): give its weights") from error
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}
