"""The memory of one device in training and in sampling, by formulas that a reader can check.

Bytes per weight: 4 for the weight and 4 for its gradient in fp32, 8 for AdamW's two moments in fp32 (Rajbhandari et
al., arXiv 1910.02054, section 3.1, count the same 16 for mixed precision). 8-bit moments take 2 and a scale of 4 bytes
per moment and block of 256 (Dettmers et al., arXiv 2110.02861).

What autograd keeps per token and layer, counted in a Llama: 6 d for the two norms (input, normalised and scaled, d
each) and `inner`: 4 f for the MLP (gate, up, activation, product) and the widths of q, k, v and attention's output.
With bf16 products, the norms keep 4 d in fp32, each of the five linear layers that read them its own d in bf16, and
`inner` is bf16.
"""

from __future__ import annotations

from collections.abc import Mapping

from r1kit.pipeline import ModelSize, Work

GIB = 2**30
PROCESS = {"cpu": 0.55 * GIB, "cuda": 0.6 * GIB}  # Python with torch; a CUDA context
CHUNK_BYTES = 3 * 32 * 2**20  # logits of a chunk of the head, their gradient, and a product (models/head.py)
# Measured on SmolLM2 (benchmarks/plan_check.py): malloc keeps freed blocks of up to 32 MB, and not all of them fit what
# comes next, because gradients that stay lie between activations that go.
FRAGMENTS = 0.25
ARRAY = 96  # bytes of a token's array of experts in Python, and of two lists that hold it
WEIGHT = {"fp32": 4.0, "bf16": 2.0}
MOMENTS = {"adamw": 8.0, "adamw-8bit": 2 * (1 + 4 / 256)}

Parts = Mapping[str, float]  # bytes by what they hold


def training_parts(size: ModelSize, work: Work, tokens: int, *, device: str, low: bool, batches: int = 2) -> Parts:
    """Bytes at the peak of a backward pass over `tokens`; `low`: linear layers compute in bf16.

    Devices that share the tokens have an equal part of them each. An update of one batch has no gradients from a batch
    before, and its activations leave as the gradients come.
    """
    adapters = work.lora_rank * size.sides
    trained = adapters or size.parameters
    tokens = -(-tokens // work.sequence_devices)
    each = 4.0 if adapters else WEIGHT[work.weights_dtype]  # adapters stay fp32
    gradients, activations = trained * each, tokens * _per_token(size, low=low, recomputes=work.recomputes)
    if batches == 1:
        gradients = max(0.0, gradients - activations)
    copies = _copies(size, work, device, low=low, training=True)
    return {
        **_resident(size, work, device),
        "copies": copies,
        "gradients": gradients,
        "activations": activations,
        "head": CHUNK_BYTES + (0.0 if adapters else 4.0 * size.vocabulary * size.width) if work.head else 0.0,
        "routing": _routing(size, work, tokens, device),
        "fragments": FRAGMENTS * (copies + gradients + activations) if device == "cpu" else 0.0,
    }


def sampling_parts(size: ModelSize, work: Work, rows: int, length: int, *, device: str, low: bool) -> Parts:
    """Bytes while `rows` completions run, each of `length` tokens with its prompt."""
    cached = rows * length * size.layers * size.cached * (2 if low else 4)
    return {
        **_resident(size, work, device),
        "copies": _copies(size, work, device, low=low, training=False),
        "cache": float(cached),
        "routing": _routing(size, work, 0, device),
    }


SHARDED = ("weights", "gradients", "optimizer")


def sharded(parts: Parts, size: ModelSize, devices: int, *, whole: bool) -> Parts:
    """The bytes of one of `devices` that share a stage, from those of a device alone.

    FSDP2 divides weights, gradients and moments, and holds in fp32 and one piece two layers (one computes while the
    next one arrives), the gradient of a third, and embeddings and head with their gradient. `whole`: each device also
    has the model in one piece, in fp32, to sample with, as r1kit's ranks have; other models are whole on each then.
    Without, engines over several devices sample, and everything that stays is divided.
    """
    outer = min(size.parameters, 2.0 * size.vocabulary * size.width)
    layer = (size.parameters - outer) / max(1, size.layers)
    divided = SHARDED if whole else (*SHARDED, "reference", "other models", "copies")
    shared = {name: count / devices if name in divided else count for name, count in parts.items()}
    shared["gathered"] = 4.0 * (3 * layer + 2 * outer) if "gradients" in parts else 0.0
    return shared | ({"whole model": 4.0 * size.parameters} if whole else {})


def _resident(size: ModelSize, work: Work, device: str) -> dict[str, float]:
    """Bytes that a stage holds from its first update to its end."""
    adapters = work.lora_rank * size.sides
    parts = {"process": PROCESS[device], "weights": size.parameters * WEIGHT[work.weights_dtype] + 4.0 * adapters}
    if work.passes:
        parts["optimizer"] = (adapters or size.parameters) * MOMENTS[work.optimizer]
    # under LoRA the reference is the model without its adapters; on a CPU there is no other place to wait
    has_copy = work.reference and not adapters and not (work.idles_off and device == "cuda")
    if beside := work.teachers + has_copy:
        parts["reference"] = beside * size.parameters * WEIGHT[work.weights_dtype]
    return parts


def _routing(size: ModelSize, work: Work, tokens: int, device: str) -> float:
    """Bytes of the experts of a batch's `tokens`, as int16 and as ids, and in main memory of those of a rollout."""
    if not work.routing:
        return 0.0
    rollout = work.samples / max(1, work.rollouts) * work.max_tokens if device == "cpu" else 0.0
    return tokens * size.choices * (2.0 + 8.0) + rollout * (2.0 * size.choices + ARRAY)


def _copies(size: ModelSize, work: Work, device: str, *, low: bool, training: bool) -> float:
    """Bytes of the weights in a kernel's own form: autocast's bf16 on a GPU, oneDNN's packs on a CPU."""
    if device == "cuda":
        return 2.0 * size.parameters if low and work.weights_dtype == "fp32" else 0.0
    head = size.vocabulary * size.width  # in fp32
    linear = max(0.0, size.parameters - head)
    if training:  # with the transposes, for the gradient by the input
        return 2.0 * 2 * linear + 4.0 * head if low else 0.0
    return (2.0 if low else 4.0) * linear + 4.0 * head


def _per_token(size: ModelSize, *, low: bool, recomputes: bool) -> float:
    """Bytes of activations for one token."""
    layer = 26 * size.width + 2 * size.inner if low else 24 * size.width + 4 * size.inner
    # recomputed: each layer's input, and all of one layer; beside them the last norm and the gradient in flight
    return (4 * size.width * size.layers + layer if recomputes else layer * size.layers) + 4 * 5 * size.width
