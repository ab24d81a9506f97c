"""The inputs of a training forward pass: a packed row, the tokens to predict in it, and the counts to divide by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.models.packed import PackedLayout, split_by_budget
from r1kit.types import Sample

TENSORS = ("token_ids", "positions", "sampler_logprobs", "old_logprobs", "ref_logprobs", "advantages", "selected")


@dataclass(frozen=True)
class SamplingMask:
    """The ids that top-k and top-p kept for each of N targets: `token_ids[offsets[t] : offsets[t + 1]]` for target t.

    Lists of ids are small: top-p keeps few at most tokens, and a bit for each id of the vocabulary would be kilobytes.
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
        """The masks of the targets with these indices, which must ascend."""
        counts, indices = self.offsets.diff(), targets.cpu()
        is_selected = torch.zeros(len(self), dtype=torch.bool).index_fill(0, indices, True)
        ids = self.token_ids[is_selected.repeat_interleave(counts).to(self.token_ids.device)]
        return SamplingMask(ids, torch.cat([counts.new_zeros(1), counts[indices].cumsum(0)]))

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

    All tensors are [N], in the order of the sequences; sequence s has `lengths[s]` targets. For a row with prompt
    (7, 8) and completion (9, 2): token_ids [9, 2], positions [1, 2], lengths (2,).
    """

    token_ids: Tensor  # int64, as are `positions`; all others are fp32
    positions: Tensor  # place in the packed row of the hidden state that predicts the token
    lengths: tuple[int, ...]
    sampler_logprobs: Tensor  # log pi of the policy that sampled, as the engine reported it
    old_logprobs: Tensor  # the denominator of the ratio: the sampler's, or the learner's own before the update
    ref_logprobs: Tensor  # of the reference model of the KL term, or of a teacher
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
        # the type is given: without sequences torch would take floats
        lengths = torch.tensor(self.lengths, dtype=torch.int64, device=self.token_ids.device)  # [sequences]
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=lengths.device), lengths)

    def select(self, index: Tensor) -> Targets:
        """The targets with these indices, which must ascend."""
        lengths = self.sequence_ids()[index].bincount(minlength=len(self.lengths))
        mask = None if self.sampling_mask is None else self.sampling_mask.select(index)
        tensors = {name: getattr(self, name)[index] for name in TENSORS}  # [n] each
        return Targets(lengths=tuple(lengths.tolist()), **tensors, sampling_mask=mask)

    def chunks(self, size: int, *, whole: bool = True) -> Iterator[Targets]:
        """Consecutive chunks of at most `size` targets.

        With `whole`, no sequence is split, so one that is longer makes a larger chunk; sequence-level losses need this.
        """
        if whole:
            parts = [self.lengths[run.start : run.stop] for run in split_by_budget(self.lengths, size)]
        else:
            parts = _cut(self.lengths, size)
        start = 0
        for lengths in parts:
            stop = start + sum(lengths)
            mask = None if self.sampling_mask is None else self.sampling_mask[start:stop]
            tensors = {name: getattr(self, name)[start:stop] for name in TENSORS}  # [n] each
            yield Targets(lengths=lengths, **tensors, sampling_mask=mask)
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
    """One packed row of T tokens (see `models.packed`), which one forward pass computes.

    Sequence s of the row is sample `order[s]` of those packed; its last token is at `ends[s]`. If several ranks share
    the row, `token_ids` and `routing` are those of this rank's tokens, and everything else is of the whole row.
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
        """The tokens of the row that this rank computes."""
        return self.layout.num_tokens

    @cached_property
    def own_targets(self) -> Targets:
        """The targets whose hidden states this rank has; their `positions` are among the rank's own tokens."""
        if self.layout.ranks == 1:
            return self.targets
        positions = self.targets.positions
        own = self.targets.select(self.layout.local_indices(positions))
        return replace(own, positions=self.layout.local_positions(positions))


def with_column(batches: Sequence[Batch], name: str, values: Sequence[Tensor]) -> list[Batch]:
    """The batches with another tensor `name` of their targets (one of `TENSORS`): `values` holds an [N] per batch."""
    columns: list[dict[str, Any]] = [{name: value} for value in values]
    return [
        replace(batch, targets=replace(batch.targets, **column)) for batch, column in zip(batches, columns, strict=True)
    ]


@dataclass(frozen=True)
class Totals:
    """The counts that a loss divides by.

    They cover every sample of one update: all micro-batches, all ranks, and samples that get no backward pass because
    their gradient is zero. So any split of an update over batches or ranks gives the same gradient.
    """

    num_tokens: int
    num_sequences: int
    max_tokens: int = 1  # of a completion: Dr. GRPO divides by it instead of by the completion's own length

    @staticmethod
    def of(samples: Sequence[Sample], max_tokens: int = 1) -> Totals:
        """Count `samples`, which must be all of the update: under data parallelism, not only this rank's."""
        tokens = sum(sum(sample.loss_mask[1:]) for sample in samples)  # nothing predicts the first token
        return Totals(num_tokens=tokens, num_sequences=len(samples), max_tokens=max_tokens)
