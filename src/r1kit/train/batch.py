"""From samples to packed batches: prompts once per group, a token budget per forward pass, nothing padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r1kit.models.packed import PackedLayout, Span, bucket
from r1kit.types import Sample


@dataclass(frozen=True)
class Targets:
    """The N predicted tokens of some whole sequences, and what the losses need to know about each.

    All tensors are [N] and ordered by sequence; `lengths[s]` says how many of them belong to sequence s.
    `old_logprobs` are the ones that the ratio is taken against, `sampler_logprobs` what the engine reported.
    """

    token_ids: Tensor
    positions: Tensor  # where in the packed row the hidden state stands that predicts this token
    lengths: tuple[int, ...]
    sampler_logprobs: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor

    def sequence_ids(self) -> Tensor:
        """[N], the index of the sequence that each token belongs to."""
        lengths = torch.tensor(self.lengths, device=self.token_ids.device)
        return torch.repeat_interleave(torch.arange(len(self.lengths), device=lengths.device), lengths)

    def chunks(self, size: int, *, whole: bool = True) -> Iterator[Targets]:
        """Runs of about `size` tokens.

        `whole`: of whole sequences, so that sequence-level losses can work chunk by chunk; else a long sequence is
        cut, and memory stays bounded whatever its length.
        """
        lengths = self.lengths if whole else tuple(part for n in self.lengths for part in _parts(n, size))
        first = start = 0
        while first < len(lengths):
            last, tokens = first, 0
            while last < len(lengths) and (last == first or tokens + lengths[last] <= size):
                tokens += lengths[last]
                last += 1
            cut = slice(start, start + tokens)
            tensors = {name: getattr(self, name)[cut] for name in TENSORS}
            yield Targets(lengths=lengths[first:last], **tensors)
            first, start = last, start + tokens


def _parts(length: int, size: int) -> list[int]:
    """A length cut into parts of at most `size`: `_parts(7, 3) == [3, 3, 1]`."""
    return [min(size, length - start) for start in range(0, length, size)]


TENSORS = ("token_ids", "positions", "sampler_logprobs", "old_logprobs", "ref_logprobs", "advantages")


@dataclass(frozen=True)
class Batch:
    """One packed row: `token_ids` [1, T], the layout that says who sees whom, and the tokens to be predicted.

    Sequence s of the row is sample `order[s]` of those that were packed, and its last token stands at `ends[s]`.
    """

    token_ids: Tensor
    layout: PackedLayout
    targets: Targets
    order: tuple[int, ...]
    ends: Tensor  # [sequences]

    @property
    def num_tokens(self) -> int:
        return int(self.token_ids.numel())


@dataclass(frozen=True)
class Totals:
    """What a loss divides by: counts over all micro-batches and ranks of one update, skipped samples included."""

    num_tokens: int
    num_sequences: int
    max_tokens: int = 1

    @staticmethod
    def of(samples: Sequence[Sample], max_tokens: int = 1) -> Totals:
        tokens = sum(sum(sample.loss_mask[1:]) for sample in samples)  # nothing predicts the first token
        return Totals(num_tokens=tokens, num_sequences=len(samples), max_tokens=max_tokens)


@dataclass(frozen=True)
class _Piece:
    """Samples (by index) that share one prompt, or documents (prompt 0) of about one length."""

    prompt: int
    members: tuple[tuple[int, Sample], ...]

    @property
    def tokens(self) -> int:
        return self.prompt + sum(len(sample.token_ids) - self.prompt for _, sample in self.members)


def pack(samples: Sequence[Sample], tokens_per_batch: int, device: torch.device | str = "cpu") -> list[Batch]:
    """Packed batches of at most `tokens_per_batch` tokens, in an order that depends on the samples alone.

    A sample that is longer than this is a batch of its own.
    Neighbouring samples with one and the same prompt share it. The longest pieces come first, so that a batch that
    does not fit in memory fails at the start of a run. Raises ValueError for a sample without a token to train on.
    """
    return _rows(_pieces(samples, tokens_per_batch), tokens_per_batch, device)


def pack_together(
    groups: Sequence[Sequence[Sample]], tokens_per_batch: int, device: torch.device | str = "cpu"
) -> list[Batch]:
    """`pack` for groups that must stay whole and in order in one batch, such as the two answers of a preference pair.

    What the samples of a group have in common from the start is computed once. `order` counts samples over all groups.
    """
    pieces, index = [], 0
    for group in groups:
        members = tuple(enumerate(group, index))
        index += len(group)
        pieces.append(_Piece(_common(group) if len(group) > 1 else 0, members))
    return _rows(pieces, tokens_per_batch, device)


def _common(group: Sequence[Sample]) -> int:
    """How many tokens all samples begin with; at least one is left to each."""
    shortest = min(len(sample.token_ids) for sample in group) - 1
    first = group[0].token_ids
    differs = (t for t in range(shortest) if any(sample.token_ids[t] != first[t] for sample in group[1:]))
    return next(differs, shortest)


def _rows(pieces: Sequence[_Piece], tokens_per_batch: int, device: torch.device | str) -> list[Batch]:
    rows: list[list[_Piece]] = []
    room: list[int] = []
    for piece in sorted(pieces, key=lambda piece: -piece.tokens):  # best fit, longest first
        fits = [row for row in range(len(rows)) if room[row] >= piece.tokens]
        if fits:
            row = min(fits, key=lambda row: room[row])
            rows[row].append(piece)
            room[row] -= piece.tokens
        else:
            rows.append([piece])
            room.append(tokens_per_batch - piece.tokens)
    return [_batch(row, torch.device(device)) for row in rows]


def _prompt_length(sample: Sample) -> int:
    for index, trained in enumerate(sample.loss_mask):
        if trained:
            return index
    raise ValueError(f"a sample of {len(sample.token_ids)} tokens has no token to train on: its loss_mask is all False")


def _pieces(samples: Sequence[Sample], budget: int) -> list[_Piece]:
    groups: list[tuple[int, tuple[int, ...], list[tuple[int, Sample]]]] = []
    for index, sample in enumerate(samples):
        length = _prompt_length(sample)
        prompt = tuple(sample.token_ids[:length])
        if prompt and groups and groups[-1][1] == prompt:
            groups[-1][2].append((index, sample))
        else:
            groups.append((length, prompt, [(index, sample)]))
    shared = [group for group in groups if len(group[2]) > 1]
    single = [group[2][0] for group in groups if len(group[2]) == 1]
    pieces = [piece for length, _, members in shared for piece in _split(length, members, budget)]
    for indices in bucket([len(sample.token_ids) for _, sample in single]):
        pieces += _split(0, [single[i] for i in indices], budget)
    return pieces


def _split(prompt: int, members: list[tuple[int, Sample]], budget: int) -> list[_Piece]:
    """Cut a group into pieces within the budget; each repeats the prompt."""
    pieces: list[_Piece] = []
    current: list[tuple[int, Sample]] = []
    tokens = prompt
    for index, sample in sorted(members, key=lambda member: -len(member[1].token_ids)):
        own = len(sample.token_ids) - prompt
        if current and tokens + own > budget:
            pieces.append(_Piece(prompt, tuple(current)))
            current, tokens = [], prompt
        current.append((index, sample))
        tokens += own
    return [*pieces, _Piece(prompt, tuple(current))]


def _batch(row: list[_Piece], device: torch.device) -> Batch:
    row = sorted(row, key=lambda piece: -piece.prompt)  # neighbours of one length share attention's padding
    spans = [Span(piece.prompt, tuple(len(s.token_ids) - piece.prompt for _, s in piece.members)) for piece in row]
    token_ids = [token for piece in row for token in piece.members[0][1].token_ids[: piece.prompt]]
    place = len(token_ids)  # all prompts stand before all completions
    last_of_prompt = -1
    columns: dict[str, list[float]] = {name: [] for name in TENSORS}
    lengths: list[int] = []
    order: list[int] = []
    ends: list[int] = []
    for piece in row:
        last_of_prompt += piece.prompt
        for index, sample in piece.members:
            chosen = [t for t in range(max(piece.prompt, 1), len(sample.token_ids)) if sample.loss_mask[t]]
            before = [place + t - piece.prompt - 1 if t > piece.prompt else last_of_prompt for t in chosen]
            _extend(columns, sample, chosen, before)
            lengths.append(len(chosen))
            token_ids += sample.token_ids[piece.prompt :]
            place += len(sample.token_ids) - piece.prompt
            order.append(index)
            ends.append(place - 1)
    whole = {"token_ids", "positions"}
    tensors = {
        name: torch.tensor(values, device=device, dtype=torch.long if name in whole else torch.float32)
        for name, values in columns.items()
    }
    targets = Targets(lengths=tuple(lengths), **tensors)
    return Batch(
        torch.tensor([token_ids], device=device),
        PackedLayout(spans, device),
        targets,
        order=tuple(order),
        ends=torch.tensor(ends, device=device),
    )


def _extend(columns: dict[str, list[float]], sample: Sample, chosen: list[int], before: list[int]) -> None:
    zeros = [0.0] * len(chosen)
    columns["token_ids"] += [sample.token_ids[t] for t in chosen]
    columns["positions"] += before
    columns["sampler_logprobs"] += [sample.logprobs[t] for t in chosen] if sample.logprobs else zeros
    columns["old_logprobs"] += [sample.logprobs[t] for t in chosen] if sample.logprobs else zeros
    columns["ref_logprobs"] += [sample.ref_logprobs[t] for t in chosen] if sample.ref_logprobs else zeros
    columns["advantages"] += [sample.advantages[t] for t in chosen] if sample.advantages else zeros
