"""The physical bound of a synchronous GRPO step, from the measured speed of matrix products and memory.

A roof is the best over libraries and precisions: `F.linear` and oneDNN's packed products, in fp32 and in bf16. int8 is
measured for information; it rounds weights and states, so it is no roof.

Only necessary arithmetic and memory traffic count: prompts once per group, nothing computed twice, the head at
completion tokens only; no reward, tokenisation or sampling.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from _workload import Rollouts
from torch import Tensor

from r1kit.models.compute import DTYPES, has_bf16_kernels
from r1kit.models.packed_weight import PackedWeight

HEAD_ROWS = 256  # the head's product is measured at this many rows at most: a cache-sized chunk
PRECISIONS = {"any": ("fp32", "bf16"), "fp32": ("fp32",)}  # whose products are a roof
BYTES = {"any": 2, "fp32": 4}  # per weight and per number in the KV cache
Speeds = dict[str, dict[str, float]]  # flop/s by place and kernel; "memory" holds bytes/s


@dataclass(frozen=True)
class Shapes:
    """A dense model's shapes: weights (out, in) of the trunk and the head, and attention."""

    trunk: tuple[tuple[int, int], ...]
    head: tuple[int, int]
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    parameters: int

    @staticmethod
    def of(folder: str) -> Shapes | None:
        """The shapes of a model; None if it has weights outside linear layers (mixtures of experts)."""
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        head = model.get_output_embeddings()
        linears = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        if any(p.ndim > 2 for p in model.parameters()) or not hasattr(config, "num_key_value_heads"):
            return None
        trunk = tuple((m.out_features, m.in_features) for m in linears)
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return Shapes(
            trunk,
            tuple(head.weight.shape),
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            width,
            sum(p.numel() for p in model.parameters()),
        )

    @property
    def trunk_size(self) -> int:
        return sum(rows * columns for rows, columns in self.trunk)

    @property
    def head_size(self) -> int:
        return self.head[0] * self.head[1]


Kernel = Callable[[Tensor], Tensor]  # states [rows, in] -> [rows, out]


def kernels(weight: Tensor) -> dict[str, tuple[torch.dtype, Kernel]]:
    """A product with a weight [out, in] by library and precision, with the dtype of its states."""
    products: dict[str, tuple[torch.dtype, Kernel]] = {}
    for name in ("fp32", "bf16") if has_bf16_kernels() else ("fp32",):
        dtype = DTYPES[name]
        products[f"F.linear {name}"] = dtype, partial(F.linear, weight=weight.to(dtype))
        products[f"packed {name}"] = dtype, PackedWeight([weight], dtype).product
    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")  # deprecated without a like for a CPU
    quantised = torch.quantize_per_tensor(weight, float(weight.abs().max()) / 127, 0, torch.qint8)
    pack = torch.ops.quantized.linear_prepack(quantised, None)
    products["int8"] = torch.float32, partial(torch.ops.quantized.linear_dynamic, W_prepack=pack)
    return products


@dataclass(frozen=True)
class Roofs:
    """The highest flop/s of the trunk's and the head's products at the row counts used here; bytes/s of reading memory.

    `width` is the size in bytes of a weight and of a number in the KV cache.
    """

    memory: float
    decode: float = math.nan  # a place that was not measured has no roof
    decode_head: float = math.nan
    prefill: float = math.nan
    prefill_head: float = math.nan
    train: float = math.nan
    train_head: float = math.nan
    width: int = 4

    @staticmethod
    def of(speeds: Speeds, precision: str) -> Roofs:
        """The fastest product of each place, in the precisions that count."""
        best = {
            place: max(row.values()) if place == "memory" else max(row[name] for name in counted(row, precision))
            for place, row in speeds.items()
        }
        return Roofs(**best, width=BYTES[precision])


def counted(row: dict[str, float], precision: str) -> list[str]:
    """The kernels that are roofs."""
    return [name for name in row if name.endswith(PRECISIONS[precision])]


def measure(
    shapes: Shapes, *, decode_rows: int = 0, prefill_rows: int = 0, train_rows: int = 0, quick: bool = False
) -> Speeds:
    """Flop/s of each kernel at the row counts used; places of 0 rows are left out.

    Cycles through all weights as a model does, so they come from the same level of the memory hierarchy.
    """
    trunk, head = [kernels(torch.randn(s)) for s in shapes.trunk], [kernels(torch.randn(shapes.head))]
    buffer = torch.ones((32 if quick else 512) * 2**18)
    least = 0.02 if quick else 0.3
    speeds = {"memory": {"sum": buffer.numel() * 4 / _seconds(buffer.sum, least)}}
    for place, rows in (("decode", decode_rows), ("prefill", prefill_rows), ("train", train_rows)):
        if rows:
            speeds[place] = _speeds(trunk, shapes.trunk, rows, least)
            speeds[f"{place}_head"] = _speeds(head, [shapes.head], min(rows, HEAD_ROWS), least)
    return speeds


def highest(first: Speeds, second: Speeds) -> Speeds:
    """The higher of two measurements of each: a roof is an upper bound."""
    return {place: {name: max(row[name], second[place][name]) for name in row} for place, row in first.items()}


def _speeds(
    weights: Sequence[dict[str, Any]], shapes: Sequence[tuple[int, int]], rows: int, least: float
) -> dict[str, float]:
    flop = 2 * rows * sum(out * width for out, width in shapes)
    speeds = {}
    with torch.inference_mode():
        for name, (dtype, _) in weights[0].items():
            states = {width: torch.randn(rows, width).to(dtype) for _, width in shapes}
            work = [(products[name][1], states[width]) for products, (_, width) in zip(weights, shapes, strict=True)]
            speeds[name] = flop / _seconds(lambda work=work: [product(inputs) for product, inputs in work], least)
    return speeds


def _seconds(work: Callable[[], Any], least: float) -> float:
    """The fastest run, over at least four runs and `least` seconds."""
    best, started, runs = float("inf"), time.perf_counter(), 0
    while runs < 4 or time.perf_counter() - started < least:
        start = time.perf_counter()
        work()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def describe(speeds: Speeds, precision: str) -> str:
    """A line per place: the kernels' speeds, the roof marked."""
    lines = []
    for place, row in speeds.items():
        roof = max(counted(row, precision) or row, key=lambda name: row[name])
        cells = (f"{name} {speed / 1e9:.0f}{' (roof)' if name == roof else ''}" for name, speed in row.items())
        lines.append(f"  {place:12} {', '.join(cells)}")
    return "G/s, by place\n" + "\n".join(lines)


def bound(groups: Sequence[Rollouts], shapes: Shapes, roofs: Roofs, slots: int) -> dict[str, float]:
    """Seconds of rollout, training and step for the work in `groups` at the roofs, with `slots` rows at once."""
    attention = 4 * shapes.heads * shapes.head_dim * shapes.layers  # flop per query and key
    kv = 2 * shapes.layers * shapes.kv_heads * shapes.head_dim * roofs.width  # bytes per token
    prompts = sum(g.prompt for g in groups)
    completions = sum(sum(g.lengths) for g in groups)
    prompt_pairs = sum(g.prompt**2 / 2 for g in groups)
    pairs = sum(n * g.prompt + n**2 / 2 for g in groups for n in g.lengths)

    prefill = (prompts * 2 * shapes.trunk_size + attention * prompt_pairs) / roofs.prefill
    prefill += len(groups) * 2 * shapes.head_size / roofs.decode_head
    # the last token of a completion is sampled but never fed back
    fed = completions - sum(len(g.lengths) for g in groups)
    arithmetic = (fed * 2 * shapes.trunk_size + attention * pairs) / roofs.decode
    arithmetic += fed * 2 * shapes.head_size / roofs.decode_head
    steps = max(max(n for g in groups for n in g.lengths), completions / slots)
    own = sum(n**2 / 2 for g in groups for n in g.lengths) + sum(g.prompt * max(g.lengths) for g in groups)
    traffic = (steps * roofs.width * (shapes.trunk_size + shapes.head_size) + kv * own) / roofs.memory
    rollout = prefill + max(arithmetic, traffic)

    useful = [g for g in groups if g.trained]
    scored = sum(sum(g.lengths) for g in useful)
    seen = sum(g.prompt**2 / 2 + sum(n * g.prompt + n**2 / 2 for n in g.lengths) for g in useful)
    train = _training(scored + sum(g.prompt for g in useful), scored, seen, shapes, roofs)
    return {"rollout": rollout, "train": train, "step": rollout + train}


def training_bound(documents: Sequence[tuple[int, int]], shapes: Shapes, roofs: Roofs) -> float:
    """Seconds of an update on documents, each given as (tokens, trained tokens)."""
    pairs = sum(tokens**2 / 2 for tokens, _ in documents)
    return _training(sum(t for t, _ in documents), sum(n for _, n in documents), pairs, shapes, roofs)


def _training(tokens: int, scored: int, pairs: float, shapes: Shapes, roofs: Roofs) -> float:
    """Forward, backward and a step of the optimizer; `pairs` counts pairs of query and key."""
    attention = 4 * shapes.heads * shapes.head_dim * shapes.layers
    seconds = 3 * (tokens * 2 * shapes.trunk_size + attention * pairs) / roofs.train
    return seconds + 3 * scored * 2 * shapes.head_size / roofs.train_head + 28 * shapes.parameters / roofs.memory
