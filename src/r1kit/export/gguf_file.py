"""A model as one GGUF file: the network, its weights, the tokenizer and the chat template."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from r1kit.export.gguf_network import add_network, head_width, shape_of
from r1kit.export.gguf_tokenizer import add_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from r1kit.models.load import Policy

Quant = Literal["f16", "q8_0"]


def write_gguf(policy: Policy, template: str, name: str, quant: Quant, file: Path) -> None:
    """Write the file, tensor by tensor, so that it takes little memory beside the model's own.

    Raises `ModelError` for a network or tokenizer that llama.cpp would read in another way.
    """
    import gguf
    import numpy as np

    config = policy.model.config
    shape = shape_of(config)
    writer = gguf.GGUFWriter(file, shape.name)
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quant.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    # without the ids behind the last token, which pad many embeddings: r1kit gives them no probability, llama.cpp would
    size = max(policy.tokenizer.get_vocab().values()) + 1
    add_network(writer, config, policy.context, size)
    add_tokenizer(writer, policy.tokenizer, policy.end_ids, size)
    writer.add_chat_template(template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[shape.name.upper()], config.num_hidden_layers)
    tensors = []
    for key, weight in _weights(policy.model, shape.neighbours, size):
        kind = gguf.GGMLQuantizationType["F32" if weight.dim() == 1 else quant.upper()]
        if weight.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
            kind = gguf.GGMLQuantizationType.F16  # rows that fill no whole blocks
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        bytes_stored = prod(weight.shape) // block * block_bytes
        stored_name = names.get_name(key, (".weight", ".bias")) or key
        writer.add_tensor_info(stored_name, weight.shape, np.dtype(np.float32), bytes_stored, kind)
        tensors.append((weight, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for weight, kind in tensors:
        writer.write_tensor_data(gguf.quants.quantize(weight.float().contiguous().numpy(), kind))
    writer.close()


def _weights(model: Any, neighbours: bool, size: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the file, adapters merged in: rows of queries and keys in llama.cpp's order, `size` embeddings."""
    import torch

    from r1kit.models.load import named_weights

    config = model.config
    heads = {".q_proj.": config.num_attention_heads, ".k_proj.": config.num_key_value_heads}
    # llama.cpp reads the embeddings twice if the file has no head
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, weight in named_weights(model):
        if tied and name == "lm_head.weight":
            continue
        is_embedding = name in ("model.embed_tokens.weight", "lm_head.weight")
        weight = weight.detach()[:size] if is_embedding else weight.detach()
        count = next((count for part, count in heads.items() if part in name), 0)
        yield name, permuted(weight, count) if neighbours and count else weight
    if config.rope_parameters["rope_type"] == "llama3":
        # by how much the rotary frequencies [width / 2] are lower than those of their base alone
        width = head_width(config)
        exponents = torch.arange(0, width, 2, dtype=torch.float32) / width
        plain = 1.0 / config.rope_parameters["rope_theta"] ** exponents
        yield "rope_freqs.weight", plain / model.base_model.rotary_emb.inv_freq.cpu().float()


def permuted(weight: Tensor, heads: int) -> Tensor:
    """Rows [heads * width, ...] with rotary pairs (i, i + width / 2) of each head as neighbours (2i, 2i + 1)."""
    rows: Tensor = weight.unflatten(0, (heads, 2, -1))  # [heads, 2, width / 2, ...]
    return rows.transpose(1, 2).flatten(0, 2)
