"""The networks that a GGUF file describes, and the numbers from which llama.cpp builds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from r1kit.export.gguf_tokenizer import REMEDY
from r1kit.models.known import ModelError


@dataclass(frozen=True)
class Shape:
    """A family as llama.cpp computes it: its name there, and whether rotary pairs are neighbours in each head."""

    name: str
    neighbours: bool


SHAPES = {"llama": Shape("llama", True), "qwen2": Shape("qwen2", False), "qwen3": Shape("qwen3", False)}


def shape_of(config: Any) -> Shape:
    """The shape of a model. Raises `ModelError` for a network that our GGUF files would not describe."""
    if config.model_type not in SHAPES:
        works = ", ".join(SHAPES)
        raise ModelError(f"the model is a {config.model_type}, and GGUF files are written for {works}: {REMEDY}")
    rope, reason = config.rope_parameters["rope_type"], ""
    if rope not in ("default", "linear") and (rope, config.model_type) != ("llama3", "llama"):
        reason = f"its positions are scaled by {rope}"
    elif getattr(config, "use_sliding_window", False):
        reason = "its attention has a sliding window"
    elif config.hidden_act != "silu":
        reason = f"its activation is {config.hidden_act}, not silu"
    if reason:
        raise ModelError(f"{reason}, which r1kit's GGUF files cannot express: {REMEDY}")
    return SHAPES[config.model_type]


def add_network(writer: Any, config: Any, context: int, vocabulary: int) -> None:
    """Write sizes, norms and positions."""
    from gguf import RopeScalingType

    heads, rope = config.num_attention_heads, config.rope_parameters
    width = head_width(config)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    writer.add_vocab_size(vocabulary)


def head_width(config: Any) -> int:
    """The width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
