"""From samples to packed batches: each prompt once per group, a token budget per forward pass, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from r1kit.models.batch import TENSORS, Batch, Targets
from r1kit.models.packed import PackedLayout, Span, bucket
from r1kit.types import Sample


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

    A longer sample is a batch of its own. Neighbouring samples with the same prompt share it. The longest come first,
    so a batch that does not fit in memory fails at the start of a run. Raises ValueError for a sample without a
    trained token.
    """
    return _rows(_pieces(samples, tokens_per_batch), tokens_per_batch, device)


def pack_together(
    groups: Sequence[Sequence[Sample]], tokens_per_batch: int, device: torch.device | str = "cpu"
) -> list[Batch]:
    """`pack` for groups that must stay whole and in order in one batch, such as the two answers of a preference pair.

    The common prefix of a group is computed once. `order` counts samples over all groups.
    """
    pieces, index = [], 0
    for group in groups:
        members = tuple(enumerate(group, index))
        index += len(group)
        pieces.append(_Piece(_common(group) if len(group) > 1 else 0, members))
    return _rows(pieces, tokens_per_batch, device)


def _common(group: Sequence[Sample]) -> int:
    """Length of the common prefix of the samples, which leaves at least one token to each."""
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
    place = len(token_ids)  # of the next token; all prompts come before all completions
    last_of_prompt = -1  # its hidden state predicts the first token of each completion
    columns: dict[str, list[float]] = {name: [] for name in TENSORS}
    lengths: list[int] = []
    order: list[int] = []
    ends: list[int] = []
    for piece in row:
        last_of_prompt += piece.prompt
        for index, sample in piece.members:
            chosen = [t for t in range(max(piece.prompt, 1), len(sample.token_ids)) if sample.loss_mask[t]]
            columns["token_ids"] += [sample.token_ids[t] for t in chosen]
            columns["positions"] += [
                place + t - piece.prompt - 1 if t > piece.prompt else last_of_prompt for t in chosen
            ]
            for name, values in _sources(sample).items():
                columns[name] += [values[t] for t in chosen] if values else [0.0] * len(chosen)
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


def _sources(sample: Sample) -> dict[str, Sequence[float]]:
    """Which of a sample's sequences each column of the targets comes from."""
    return {
        "sampler_logprobs": sample.logprobs,
        "old_logprobs": sample.logprobs,  # until they are recomputed
        "ref_logprobs": sample.ref_logprobs,
        "advantages": sample.advantages,
    }
