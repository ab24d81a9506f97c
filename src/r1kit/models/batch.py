"""The inputs of a training forward pass: a packed row, the tokens to predict in it, and the counts to divide by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from r1kit.models.packed import PackedLayout, split_by_budget
from r1kit.types import Sample

TENSORS = ("token_ids", "positions", "sampler_logprobs", "old_logprobs", "ref_logprobs", "advantages", "selected")


@dataclass(frozen=True)
class SamplingMask:
    """The ids that top-k and top-p left for each of N targets: `token_ids[offsets[t] : offsets[t + 1]]` for target t.

    A list of ids is small: top-p leaves few at most tokens, and a bit for each id of the vocabulary would be kilobytes.
    """

    token_ids: Tensor  # [K], int32
    offsets: Tensor  # [N + 1], int64, on the CPU

    @staticmethod
    def of(masks: Sequence[Sequence[int]], device: torch.device) -> SamplingMask | None:
        """The masks of all targets in order; None if there are none."""
        if not masks:
            return None
        ids = torch.from_numpy(np.concatenate([np.asarray(mask, np.int32) for mask in masks]))  # [K]
        return SamplingMask(ids.to(device), torch.tensor([0, *map(len, masks)]).cumsum(0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, targets: slice) -> SamplingMask:
        start, stop, _ = targets.indices(len(self))
        offsets = self.offsets[start : stop + 1]
        return SamplingMask(self.token_ids[int(offsets[0]) : int(offsets[-1])], offsets - offsets[0])

    def select(self, targets: Tensor) -> SamplingMask:
        """The masks of some targets, whose numbers rise."""
        counts, chosen = self.offsets.diff(), targets.cpu()
        is_chosen = torch.zeros(len(self), dtype=torch.bool).index_fill(0, chosen, True)
        ids = self.token_ids[is_chosen.repeat_interleave(counts).to(self.token_ids.device)]
        return SamplingMask(ids, torch.cat([counts.new_zeros(1), counts[chosen].cumsum(0)]))

    def apply(self, logits: Tensor, never: float) -> Tensor:
        """Set the logits [N, V] of all other ids to `never`, in place."""
        assert len(logits) == len(self), "one row of logits for each target"
        ids, counts = self.token_ids.long(), self.offsets.diff().to(logits.device)
        rows = torch.arange(len(self), device=logits.device).repeat_interleave(counts, output_size=len(ids))  # [K]
        kept = logits[rows, ids]
        logits.fill_(never)[rows, ids] = kept
        return logits


@dataclass(frozen=True)
class Targets:
    """The N predicted tokens of whole sequences, with the inputs of the losses.

    All tensors are [N], in the order of the sequences; sequence s has `lengths[s]` targets.
    """

    token_ids: Tensor  # int64; all others but `positions` are fp32
    positions: Tensor  # position in the packed row of the hidden state that predicts the token
    lengths: tuple[int, ...]
    sampler_logprobs: Tensor  # reported by the engine
    old_logprobs: Tensor  # denominator of the importance ratio
    ref_logprobs: Tensor
    advantages: Tensor
    selected: Tensor  # 1 for tokens that Clip-Cov or KL-Cov chose, 0 for all others
    sampling_mask: SamplingMask | None = None  # None: every id of the vocabulary

    def __post_init__(self) -> None:
        assert self.sampling_mask is None or len(self.sampling_mask) == len(self), "a mask for each target"
        assert sum(self.lengths) == len(self), "lengths must add up to the number of targets"
        assert all(getattr(self, name).shape == (len(self),) for name in TENSORS), "one value for each target"

    def __len__(self) -> int:
        return len(self.token_ids)

    def sequence_ids(self) -> Tensor:
        """[N], the index of the sequence that each token belongs to."""
        lengths = torch.tensor(self.lengths, device=self.token_ids.device)  # [sequences]
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=lengths.device), lengths)

    def select(self, index: Tensor) -> Targets:
        """Some of the targets, whose numbers rise."""
        lengths = self.sequence_ids()[index].bincount(minlength=len(self.lengths))
        mask = None if self.sampling_mask is None else self.sampling_mask.select(index)
        tensors = {name: getattr(self, name)[index] for name in TENSORS}  # [n] each
        return Targets(lengths=tuple(lengths.tolist()), **tensors, sampling_mask=mask)

    def chunks(self, size: int, *, whole: bool = True) -> Iterator[Targets]:
        """Consecutive chunks of about `size` tokens.

        With `whole`, no sequence is split, so a chunk can be larger than `size`; sequence-level losses need this.
        """
        runs = split_by_budget(self.lengths, size) if whole else ()
        start = 0
        for part in [self.lengths[run.start : run.stop] for run in runs] if whole else _cut(self.lengths, size):
            stop = start + sum(part)
            mask = None if self.sampling_mask is None else self.sampling_mask[start:stop]
            tensors = {name: getattr(self, name)[start:stop] for name in TENSORS}  # [n] each
            yield Targets(lengths=part, **tensors, sampling_mask=mask)
            start = stop


def _cut(lengths: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """The parts of sequences in chunks of `size` targets: `_cut([7, 2], 4) == [(4,), (3, 1), (1,)]`."""
    chunks: list[tuple[int, ...]] = []
    for length in lengths:
        while length:
            room = size - sum(chunks[-1]) if chunks else 0
            if not room:
                chunks.append(())
            part = min(length, room or size)
            chunks[-1] += (part,)
            length -= part
    return chunks


@dataclass(frozen=True)
class Batch:
    """One packed row. Sequence s of the row is sample `order[s]` of those packed; its last token is at `ends[s]`.

    If several ranks share the row, `token_ids` and `routing` are those of this rank's tokens, and all else is whole.
    """

    token_ids: Tensor  # [1, T]
    layout: PackedLayout
    targets: Targets
    order: tuple[int, ...]
    ends: Tensor  # [sequences]
    routing: Tensor | None = None  # [T, experts of all routers], int16; None: the routers choose

    def __post_init__(self) -> None:
        assert len(self.order) == len(self.ends) == len(self.targets.lengths), "one entry for each sequence"
        assert self.routing is None or len(self.routing) == self.token_ids.shape[1], "experts for each token"

    @property
    def num_tokens(self) -> int:
        return self.layout.num_tokens

    @cached_property
    def own_targets(self) -> Targets:
        """The targets whose hidden states this rank has, with their positions among these."""
        if self.layout.ranks == 1:
            return self.targets
        positions = self.targets.positions
        own = self.targets.select(self.layout.owned(positions))
        return replace(own, positions=self.layout.places(positions))


@dataclass(frozen=True)
class Totals:
    """The counts that a loss divides by.

    They count every sample of one update: all micro-batches, all ranks, and samples that are skipped because their
    gradient is zero. So any split of an update over batches or ranks gives the same gradient.
    """

    num_tokens: int
    num_sequences: int
    max_tokens: int = 1  # of a completion: Dr. GRPO divides by it instead of by the completion's own length

    @staticmethod
    def of(samples: Sequence[Sample], max_tokens: int = 1) -> Totals:
        """Count `samples`, which must be all of the update: under data parallelism, not only this rank's."""
        tokens = sum(sum(sample.loss_mask[1:]) for sample in samples)  # nothing predicts the first token
        return Totals(num_tokens=tokens, num_sequences=len(samples), max_tokens=max_tokens)
