"""llama.cpp's side of generation: the same weights as a GGUF file, and one batch of all running sequences per step.

Needs the package llama-cpp-python; README.md says how to get it. Sampling is r1kit's, which is faster than its own.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import torch
from _workload import TAIL, Generation, Result
from torch import Tensor

from r1kit.engines.local.sampling import sample
from r1kit.types import SamplingParams

TYPES = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0"}
FILE = "{variant}.gguf"


def write_gguf(work: Generation) -> Result:
    """Write the model of `work` in precision `work.variant` into the folder `work.target`; without a vocabulary."""
    import gguf
    from safetensors.torch import load_file
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(work.model, trust_remote_code=False)
    if config.model_type != "llama":
        raise ValueError(f"the model is a {config.model_type}: only llama is written as GGUF here")
    kind = gguf.GGMLQuantizationType[TYPES[work.variant]]
    writer = gguf.GGUFWriter(Path(work.target) / FILE.format(variant=work.variant), "llama")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for file in sorted(Path(work.model).glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            weight = tensor.float().numpy()
            if ".q_proj." in name or ".k_proj." in name:
                weight = _interleaved(weight, heads if ".q_proj." in name else kv_heads)
            stored = kind if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
            data = gguf.quants.quantize(np.ascontiguousarray(weight), stored)
            writer.add_tensor(names.get_name(name, (".weight",)), data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Result(steps=[])


def _interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs (i, i + half) of Hugging Face's layout as llama.cpp's (2i, 2i + 1)."""
    shape = (heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return weight.reshape(shape).swapaxes(1, 2).reshape(weight.shape)


class Decoder:
    """A model and a context for `rows` sequences of at most `longest` tokens."""

    def __init__(self, work: Generation, rows: int, longest: int) -> None:
        self.silence = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self.silence, None)
        llama_cpp.llama_backend_init()
        file = str(Path(work.target) / FILE.format(variant=work.variant))
        self.model = llama_cpp.llama_model_load_from_file(file.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot read {file}")
        settings = llama_cpp.llama_context_default_params()
        per_row = -(-longest // 256) * 256  # llama.cpp rounds the cache of a sequence up
        settings.n_ctx, settings.n_seq_max, settings.kv_unified = rows * per_row, rows, False
        settings.n_batch = max(2048, sum(map(len, work.prompt_ids)))
        settings.n_threads = settings.n_threads_batch = work.threads
        if work.variant == "fp32":
            settings.type_k = settings.type_v = llama_cpp.GGML_TYPE_F32
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise RuntimeError("llama.cpp made no context")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(settings.n_batch, 0, 1)

    def decode(self, rows: list[tuple[int, int, int, bool]]) -> Tensor:
        """Logits [wanted, V] in place, for (token, position, sequence, whether its logits are wanted) of each input."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for place, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[place], batch.pos[place], batch.logits[place] = token, position, wanted
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
        if status := llama_cpp.llama_decode(self.context, batch):
            raise RuntimeError(f"llama_decode returned {status}")
        wanted = sum(row[3] for row in rows)
        floats = ctypes.cast(llama_cpp.llama_get_logits(self.context), ctypes.POINTER(ctypes.c_float))
        return torch.from_numpy(np.ctypeslib.as_array(floats, shape=(wanted, self.vocabulary)))

    def free(self, slot: int, last: int) -> None:
        """End a sequence; the last one takes its place, because llama.cpp splits a batch at gaps."""
        if slot != last:
            llama_cpp.llama_memory_seq_rm(self.memory, slot, -1, -1)
            llama_cpp.llama_memory_seq_cp(self.memory, last, slot, -1, -1)
        llama_cpp.llama_memory_seq_rm(self.memory, last, -1, -1)


def generate(work: Generation) -> Result:
    """Prompts once per group, copied to its other sequences; then a token of all running sequences at a time."""
    rows = len(work.prompt_ids) * work.group
    decoder = Decoder(work, rows, max(map(len, work.prompt_ids)) + work.max_tokens)
    steps = []
    for turn in work.repetitions():
        torch.manual_seed(turn.seed)
        llama_cpp.llama_memory_clear(decoder.memory, False)
        start = time.perf_counter()
        lengths = _answer(decoder, turn)
        seconds = time.perf_counter() - start
        steps.append(work.step(seconds, [lengths[i : i + work.group] for i in range(0, rows, work.group)]))
    return Result(steps=steps[work.warmup :], facts={"dtype": work.variant})


def _answer(decoder: Decoder, work: Generation) -> list[int]:
    """Lengths of the completions of all prompts."""
    inputs = []
    for index, ids in enumerate(work.prompt_ids):
        last = len(ids) - 1
        inputs += [(token, place, index * work.group, place == last) for place, token in enumerate(ids)]
    logits = decoder.decode(inputs)  # [prompts, V]
    for index in range(len(work.prompt_ids)):
        for copy in range(1, work.group):
            first = index * work.group
            llama_cpp.llama_memory_seq_cp(decoder.memory, first, first + copy, -1, -1)
    starts = [len(ids) for ids in work.prompt_ids for _ in range(work.group)]
    lengths = [1] * len(starts)
    ends = set() if work.fixed else set(work.end_ids)
    running = list(range(len(starts)))  # the row that each sequence of the cache holds
    tokens = _sampled(logits.repeat_interleave(work.group, dim=0))
    while True:
        for slot in reversed(range(len(running))):  # backwards: a row that moves into `slot` was checked
            if lengths[running[slot]] == work.max_tokens or tokens[slot] in ends:
                decoder.free(slot, last=len(running) - 1)
                running[slot], tokens[slot] = running[-1], tokens[-1]
                running.pop()
                tokens.pop()
        if not running:
            return lengths
        inputs = zip(running, tokens, strict=True)
        logits = decoder.decode(
            [(t, starts[row] + lengths[row] - 1, slot, True) for slot, (row, t) in enumerate(inputs)]
        )
        tokens = _sampled(logits)
        for row in running:
            lengths[row] += 1


def _sampled(logits: Tensor) -> list[int]:
    uniform = torch.rand(len(logits), dtype=torch.float64)
    return sample(logits, uniform, SamplingParams())[0].tolist()  # type: ignore[no-any-return]


def tail_logprobs(work: Generation) -> Result:
    """Log-probs of each prompt's last tokens, for the gate."""
    decoder = Decoder(work, len(work.prompt_ids), max(map(len, work.prompt_ids)))
    values: list[Any] = []
    for index, ids in enumerate(work.prompt_ids):
        logits = decoder.decode([(token, place, index, True) for place, token in enumerate(ids)])  # [T, V]
        chosen = logits[:-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]  # [T - 1]
        values.append(chosen[-TAIL:].tolist())
    return Result(steps=[], facts={"logprobs": values})
