"""From samples to packed batches: each prompt once per group, a token budget per forward pass, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from r1kit.models.batch import TENSORS, Batch, Targets
from r1kit.models.packed import PackedLayout, Span, bucket, common_prefix, split_by_budget
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
    groups: list[tuple[tuple[int, ...], list[tuple[int, Sample]]]] = []
    for index, sample in enumerate(samples):
        length = next((t for t, trained in enumerate(sample.loss_mask) if trained), None)  # of the prompt
        if length is None:
            raise ValueError(
                f"a sample of {len(sample.token_ids)} tokens has no token to train on: its loss_mask is all False"
            )
        prompt = tuple(sample.token_ids[:length])
        if prompt and groups and groups[-1][0] == prompt:
            groups[-1][1].append((index, sample))
        else:
            groups.append((prompt, [(index, sample)]))
    pieces: list[_Piece] = []
    for prompt, members in groups:
        if len(members) > 1:
            pieces += _split(len(prompt), members, tokens_per_batch)
    # a prompt that nobody shares is a document's beginning; attention pads those of one bucket to the longest
    single = [members[0] for _, members in groups if len(members) == 1]
    for indices in bucket([len(sample.token_ids) for _, sample in single]):
        pieces += _split(0, [single[i] for i in indices], tokens_per_batch)
    return _rows(pieces, tokens_per_batch, device)


def pack_together(
    groups: Sequence[Sequence[Sample]], tokens_per_batch: int, device: torch.device | str = "cpu"
) -> list[Batch]:
    """`pack` for groups that must stay whole and in order in one batch, such as the two answers of a preference pair.

    The common prefix of a group is computed once; it leaves each sample a token, since a completion without one has no
    end to score. `order` counts samples over all groups.
    """
    pieces, index = [], 0
    for group in groups:
        members = tuple(enumerate(group, index))  # numbered over all groups
        index += len(group)
        pieces.append(_Piece(common_prefix([s.token_ids for s in group]) if len(group) > 1 else 0, members))
    return _rows(pieces, tokens_per_batch, device)


def _split(prompt: int, members: list[tuple[int, Sample]], budget: int) -> list[_Piece]:
    """Cut a group into pieces within the budget; each repeats the prompt."""
    # longest first (stable, so equal lengths keep their order): neighbours of similar length pad little
    members = sorted(members, key=lambda member: -len(member[1].token_ids))
    own = [len(sample.token_ids) - prompt for _, sample in members]
    return [_Piece(prompt, tuple(members[run.start : run.stop])) for run in split_by_budget(own, budget - prompt)]


def _rows(pieces: Sequence[_Piece], tokens_per_batch: int, device: torch.device | str) -> list[Batch]:
    """Best fit, longest first: each piece goes into the row with the least room that still holds it."""
    rows: list[list[_Piece]] = []
    room: list[int] = []  # tokens left in each row; negative if one piece is over the budget
    for piece in sorted(pieces, key=lambda piece: -piece.tokens):  # stable, so the rows are the same in every run
        fits = [row for row in range(len(rows)) if room[row] >= piece.tokens]
        if fits:
            row = min(fits, key=lambda row: room[row])
            rows[row].append(piece)
            room[row] -= piece.tokens
        else:
            rows.append([piece])
            room.append(tokens_per_batch - piece.tokens)
    return [_batch(row, torch.device(device)) for row in rows]


def _batch(row: list[_Piece], device: torch.device) -> Batch:
    """One packed row: the prompts of all pieces, then their completions piece by piece."""
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
            # from 1: nothing predicts the first token of a document
            chosen = [t for t in range(max(piece.prompt, 1), len(sample.token_ids)) if sample.loss_mask[t]]
            start = place - piece.prompt  # token t of the sample is at start + t, and the one before it predicts it
            columns["token_ids"] += [sample.token_ids[t] for t in chosen]
            columns["positions"] += [start + t - 1 if t > piece.prompt else last_of_prompt for t in chosen]
            values_of = {
                "sampler_logprobs": sample.logprobs,
                "old_logprobs": sample.logprobs,  # until they are recomputed
                "ref_logprobs": sample.ref_logprobs,
                "advantages": sample.advantages,
            }
            for name, values in values_of.items():
                columns[name] += [values[t] for t in chosen] if values else [0.0] * len(chosen)  # SFT has none
            lengths.append(len(chosen))
            token_ids += sample.token_ids[piece.prompt :]
            place += len(sample.token_ids) - piece.prompt
            order.append(index)
            ends.append(place - 1)
    dtypes = {name: torch.long if name in ("token_ids", "positions") else torch.float32 for name in TENSORS}
    tensors = {name: torch.tensor(values, device=device, dtype=dtypes[name]) for name, values in columns.items()}
    targets, layout = Targets(lengths=tuple(lengths), **tensors), PackedLayout(spans, device)
    assert len(token_ids) == len(layout.position_ids), "the layout describes every token of the row"
    row_ids = torch.tensor([token_ids], device=device)  # [1, T]
    return Batch(row_ids, layout, targets, order=tuple(order), ends=torch.tensor(ends, device=device))
