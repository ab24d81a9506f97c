"""The physical bound of one synchronous GRPO step, from the measured speed of matrix products and memory.

Only necessary arithmetic and memory traffic count: prompts once per group, nothing computed twice, the head at
completion tokens only; no reward, tokenisation or sampling.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from _workload import Rollouts

HEAD_ROWS = 256  # the head's product is measured at this many rows at most: a cache-sized chunk


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


@dataclass(frozen=True)
class Roofs:
    """Measured flop/s of the trunk's and the head's products at the row counts used here; bytes/s of reading memory."""

    decode: float
    decode_head: float
    prefill: float
    train: float
    train_head: float
    bandwidth: float

    def best(self, other: Roofs) -> Roofs:
        """The higher of two measurements of each: a roof is an upper bound."""
        return Roofs(*(max(a, b) for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def measure(shapes: Shapes, *, decode_rows: int, prefill_rows: int, train_rows: int, megabytes: int = 512) -> Roofs:
    """Cycles through all weights as a model does, so they come from the same level of the memory hierarchy."""
    trunk = [torch.randn(shape) for shape in shapes.trunk]
    head = [torch.randn(shapes.head)]
    buffer = torch.ones(megabytes * 2**18)
    return Roofs(
        decode=_products(trunk, decode_rows),
        decode_head=_products(head, min(decode_rows, HEAD_ROWS)),
        prefill=_products(trunk, prefill_rows),
        train=_products(trunk, train_rows),
        train_head=_products(head, min(train_rows, HEAD_ROWS)),
        bandwidth=buffer.numel() * 4 / _seconds(buffer.sum),
    )


def _products(weights: Sequence[torch.Tensor], rows: int) -> float:
    inputs = {w.shape[1]: torch.randn(rows, w.shape[1]) for w in weights}
    outputs = {w.shape[0]: torch.empty(rows, w.shape[0]) for w in weights}

    def once() -> None:
        for w in weights:
            torch.mm(inputs[w.shape[1]], w.T, out=outputs[w.shape[0]])

    return 2 * rows * sum(w.numel() for w in weights) / _seconds(once)


def _seconds(work: Callable[[], Any], least: float = 0.5) -> float:
    """The fastest run, over at least three runs and half a second."""
    best, started, runs = float("inf"), time.perf_counter(), 0
    while runs < 4 or time.perf_counter() - started < least:
        start = time.perf_counter()
        work()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return best


def bound(groups: Sequence[Rollouts], shapes: Shapes, roofs: Roofs, slots: int) -> dict[str, float]:
    """Seconds of rollout, training and step for the work in `groups` at the roofs, with `slots` rows at once."""
    attention = 4 * shapes.heads * shapes.head_dim * shapes.layers  # flop per query and key
    kv = 2 * shapes.layers * shapes.kv_heads * shapes.head_dim * 4  # bytes per token, fp32
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
    traffic = (steps * 4 * (shapes.trunk_size + shapes.head_size) + kv * own) / roofs.bandwidth
    rollout = prefill + max(arithmetic, traffic)

    useful = [g for g in groups if g.trained]
    scored = sum(sum(g.lengths) for g in useful)
    tokens = scored + sum(g.prompt for g in useful)
    seen = sum(g.prompt**2 / 2 + sum(n * g.prompt + n**2 / 2 for n in g.lengths) for g in useful)
    train = 3 * (tokens * 2 * shapes.trunk_size + attention * seen) / roofs.train
    train += 3 * scored * 2 * shapes.head_size / roofs.train_head + 28 * shapes.parameters / roofs.bandwidth
    return {"rollout_s": rollout, "train_s": train, "step_s": rollout + train}
