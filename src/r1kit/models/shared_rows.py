"""Packed rows whose tokens several ranks share, for rows that are too long for one device.

Of k ranks, rank j has the tokens j, j + k, j + 2k and so on, so that each has about as many tokens to predict. All
parts of a model but attention work on single tokens. Around attention there are two exchanges, so that each rank
attends for its part of the heads over all tokens (DeepSpeed-Ulysses, Jacobs et al., arXiv 2309.14509, section 3.1);
shared prompts, masks and windows are those of `PackedLayout`.

A rank's gradient is that of its own tokens, heads and targets. `models.shard` adds up all ranks, so nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from r1kit import ranks
from r1kit.models.attention import Softmax
from r1kit.models.packed import PackedLayout, Span
from r1kit.models.plain import plain_path
from r1kit.models.recurrent import Mixer
from r1kit.models.size import heads_of

NO_STATES = "a layer with a state reads each sequence token by token"
BY_LENGTH = {"dynamic", "longrope"}  # rotations that change with the longest position of a forward pass


def layout_of(spans: Sequence[Span], device: torch.device) -> PackedLayout:
    """The layout of a training row, of which this rank has its part."""
    return PackedLayout(spans, device) if ranks.row_size() == 1 else SharedLayout(spans, device)


class SharedLayout(PackedLayout):
    """A layout of which this rank has every k-th token.

    The row is filled up to a multiple of k with tokens that nothing reads, since exchanges need equal parts.
    """

    def __init__(self, spans: Sequence[Span], device: torch.device) -> None:
        super().__init__(spans, device)
        self.ranks, self.place, self.group = ranks.row_size(), ranks.row_place(), ranks.row_group()
        self.length = len(self.position_ids)  # T, the tokens of the whole row
        self.num_tokens = len(range(self.place, self.length, self.ranks))
        self.position_ids, self.samples_per_token = map(self.local, (self.position_ids, self.samples_per_token))

    def local(self, values: Tensor, fill: int = 0) -> Tensor:
        """[T, ...] -> [T / k, ...]"""
        missing = -self.length % self.ranks
        padding = values.new_full((missing, *values.shape[1:]), fill)
        return torch.cat([values, padding])[self.place :: self.ranks]

    def local_indices(self, positions: Tensor) -> Tensor:
        return (positions % self.ranks == self.place).nonzero().flatten()

    def local_positions(self, positions: Tensor) -> Tensor:
        return positions[self.local_indices(positions)] // self.ranks

    def gather(self, values: Tensor, positions: Tensor) -> Tensor:
        own = self.local_indices(positions)
        whole = torch.zeros(len(positions), device=values.device)  # fp32: a rank without values knows no other type
        whole[own] = values.detach()
        if len(whole):
            dist.all_reduce(whole, group=self.group)  # each position is zero on all ranks but one
        return whole.index_copy(0, own, values)  # this rank's own again, now with their gradient

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
        """q [1, H, T / k, D] -> [1, T / k, H, Dv]."""
        heads, tokens = q.shape[1:3]
        if heads % self.ranks:
            raise ValueError(f"a layer has {heads} heads, which {self.ranks} ranks cannot share: {_remedy(heads)}")
        copies = self.ranks // gcd(self.ranks, k.shape[1])  # with fewer key heads than ranks, several have the same
        k, v = (x.repeat_interleave(copies, dim=1) for x in (k, v))
        # of each token the heads of rank 0, 1, ...: [T / k, k, H / k * D]
        parts = [x[0].transpose(0, 1).reshape(tokens, self.ranks, -1) for x in (q, k, v)]
        mixed = self._whole(torch.cat(parts, dim=2)).split([part.shape[2] for part in parts], dim=1)
        q, k, v = (
            part.view(self.length, -1, x.shape[3]).transpose(0, 1)[None]
            for part, x in zip(mixed, (q, k, v), strict=True)
        )
        if softmax.sinks is not None:
            softmax = softmax._replace(sinks=softmax.sinks.chunk(self.ranks)[self.place])
        attended = super().attend(layer, q, k, v, softmax)[0]  # [T, H / k, Dv]
        return self._parted(attended.flatten(1)).reshape(1, tokens, heads, -1)

    def _whole(self, values: Tensor) -> Tensor:
        """[T / k, k, W], a part for each rank of this rank's tokens -> [T, W], this rank's part of all tokens."""
        received = _Exchange.apply(values.transpose(0, 1), self.group)  # [k, T / k, W], from each rank
        return received.transpose(0, 1).reshape(-1, values.shape[2])[: self.length]  # type: ignore[no-any-return]

    def _parted(self, values: Tensor) -> Tensor:
        """[T, W] -> [T / k, k, W]: the inverse of `_whole`."""
        padded = torch.nn.functional.pad(values, (0, 0, 0, -self.length % self.ranks))
        sent = padded.view(-1, self.ranks, values.shape[1]).transpose(0, 1)  # [k, T / k, W], to each rank
        return _Exchange.apply(sent, self.group).transpose(0, 1)  # type: ignore[no-any-return]

    def recur(self, mixer: Mixer, hidden: Tensor) -> Tensor:
        raise ValueError(NO_STATES)


class _Exchange(torch.autograd.Function):
    """[k, ...] -> [k, ...]: part j goes to rank j, and the result has a part from each rank. Its own inverse."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        ctx.group = group
        received = torch.empty_like(values, memory_format=torch.contiguous_format)
        dist.all_to_all_single(received, values.contiguous(), group=group)
        return received

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Exchange.apply(grad, ctx.group), None


def require_shared_rows(model: Any) -> None:
    """Raise ValueError with the reason if the ranks of a row cannot share the tokens that the model reads."""
    if ranks.row_size() == 1:
        return
    reason = ""
    if path := plain_path(model):
        reason = f"packed rows do not compute it, {path.reason}"
    elif any(isinstance(module.__dict__.get("forward"), Mixer) for module in model.modules()):
        reason = NO_STATES
    elif _rotations(model.config.get_text_config()) & BY_LENGTH:
        reason = "its rotations change with the longest position of a row"
    if reason:
        raise ValueError(f"ranks cannot share rows of {model.config.model_type} ({reason}): set sequence_devices to 1")
    require_shared_heads(model.config, ranks.row_size())


def require_shared_heads(config: Any, count: int) -> None:
    """Raise ValueError unless `count` ranks can share the attention heads of a model with this configuration."""
    heads = heads_of(config.get_text_config().to_dict())
    if heads % count:
        raise ValueError(
            f"sequence_devices is {count}, and {config.model_type} has {heads} attention heads, which so many ranks "
            f"cannot share: {_remedy(heads)}"
        )


def _rotations(config: Any) -> set[str]:
    """The kinds of rotary embeddings; some architectures have one for each kind of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return {each["rope_type"] for each in (parameters, *nested) if "rope_type" in each}


def _remedy(heads: int) -> str:
    return f"give sequence_devices a divisor of {heads}"
