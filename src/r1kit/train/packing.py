"""From samples to packed batches: each prompt once per group, a token budget per forward pass, no padding.

Samples become pieces (a beginning that several samples share, and the rest of each), pieces fill rows by best fit, and
each row becomes a `Batch`. The order depends on the samples alone, so a resumed run packs the same rows.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from r1kit import ranks
from r1kit.models.batch import TENSORS, Batch, SamplingMask, Targets
from r1kit.models.packed import Span, bucket, common_prefix, split_by_budget
from r1kit.models.plain import plain_path
from r1kit.models.routing_replay import OWN
from r1kit.models.shared_rows import layout_of
from r1kit.types import Sample

MIN_SHARED = 8  # tokens: a shorter common beginning saves less than its own part in attention costs

_Member = tuple[int, Sample]  # a sample and its place among those to pack


@dataclass(frozen=True)
class _Piece:
    """Samples that share the beginning of their prompts, or documents (prompt 0) of about one length."""

    prompt: int  # tokens at the beginning of each member, which the row holds once
    members: tuple[_Member, ...]

    @property
    def tokens(self) -> int:
        return self.prompt + sum(len(sample.token_ids) - self.prompt for _, sample in self.members)


def pack(samples: Sequence[Sample], tokens_per_batch: int, model: Any = None) -> list[Batch]:
    """Packed batches of at most `tokens_per_batch` tokens, in an order that depends on the samples alone.

    A longer sample is a batch of its own. Neighbouring samples with the same prompt share it, and other samples share
    what their prompts begin with (a system message, exemplars), unless `model` takes the plain path, which computes
    each by itself. The longest pieces come first, so a batch that does not fit into memory fails at the start of a run.
    Without a model the tensors are on the CPU. Ranks that share rows pass the same samples, and each gets its part of
    every batch's tokens. Raises ValueError for a sample without a trained token.
    """
    shares_prompts = plain_path(model) is None
    groups: list[tuple[tuple[int, ...], list[_Member]]] = []
    for index, sample in enumerate(samples):
        if not any(sample.loss_mask):
            raise ValueError(
                f"a sample of {len(sample.token_ids)} tokens has no token to train on: its loss_mask is all False"
            )
        prompt = tuple(sample.token_ids[: sample.loss_mask.index(True)])
        if shares_prompts and prompt and groups and groups[-1][0] == prompt:
            groups[-1][1].append((index, sample))
        else:
            groups.append((prompt, [(index, sample)]))
    pieces: list[_Piece] = []
    singles: list[_Member] = []  # with prompts of their own
    for prompt, members in groups:
        if len(members) > 1:
            pieces += _split(len(prompt), members, tokens_per_batch)
        else:
            singles += members
    documents: list[_Member] = []  # a prompt that nothing shares is no different from the tokens after it
    for shared, members in _runs_by_beginning(singles) if shares_prompts else [(0, singles)]:
        if shared:
            pieces += _split(shared, members, tokens_per_batch)
        else:
            documents += members
    # attention pads the documents of one bucket to the longest
    for indices in bucket([len(sample.token_ids) for _, sample in documents]):
        pieces += _split(0, [documents[i] for i in indices], tokens_per_batch)
    return _fill_rows(pieces, tokens_per_batch, model)


def _runs_by_beginning(members: Sequence[_Member]) -> list[tuple[int, list[_Member]]]:
    """Members in runs, each with the number of tokens that all its prompts begin with; 0 for a member by itself.

    Sorted by their tokens, those that share most are neighbours. A run of n members with a beginning of s tokens saves
    (n - 1) s; another member joins it unless its shorter common beginning lowers that.
    """
    runs: list[tuple[int, list[_Member]]] = []
    for member in sorted(members, key=lambda member: tuple(member[1].token_ids)):
        shared, run = runs[-1] if runs else (0, [])
        common = _common_beginning(run[-1][1], member[1]) if run else 0
        joined = min(common, shared) if len(run) > 1 else common  # the beginning of the run with this member
        if joined >= MIN_SHARED and len(run) * joined >= (len(run) - 1) * shared:
            run.append(member)
            runs[-1] = (joined, run)
        else:
            runs.append((0, [member]))
    return runs


def _common_beginning(first: Sample, second: Sample) -> int:
    """The number of leading prompt tokens that two samples have in common."""
    pairs = zip(first.token_ids, second.token_ids, first.loss_mask, second.loss_mask, strict=False)
    return next((place for place, (a, b, *trained) in enumerate(pairs) if a != b or any(trained)), 0)


def pack_together(groups: Sequence[Sequence[Sample]], tokens_per_batch: int, model: Any = None) -> list[Batch]:
    """`pack` for groups that must stay whole and in order in one batch, such as the two answers of a preference pair.

    The common prefix of a group is computed once. It is shorter than every sample, because a completion without tokens
    would have no end to read a score at. The batches' `order` numbers the samples over all groups.
    """
    pieces, index, shares_prompts = [], 0, plain_path(model) is None
    for group in groups:
        members = tuple(enumerate(group, index))
        index += len(group)
        shared = common_prefix([sample.token_ids for sample in group]) if shares_prompts and len(group) > 1 else 0
        pieces.append(_Piece(shared, members))
    return _fill_rows(pieces, tokens_per_batch, model)


def rank_share(samples: Sequence[Sample]) -> list[Sample]:
    """This rank's samples of an update: neighbours, so most groups keep the prompt that they share."""
    return ranks.share_rows(samples, lambda sample: len(sample.token_ids))


def equal_counts(batches: Iterable[Batch], device: torch.device) -> list[Batch]:
    """The batches, and empty ones after them until this rank has as many as the rank that has most.

    FSDP gathers weights in every forward pass and waits there for all ranks: one pass too few, and all would hang.
    """
    own = list(batches)
    return own + [_empty_batch(device)] * (max(ranks.gather(len(own))) - len(own))


def _empty_batch(device: torch.device) -> Batch:
    """A row of one token with nothing to predict: its gradient is zero, but every weight has one."""
    integers, floats = torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, device=device)
    columns = dict.fromkeys(TENSORS, floats) | {"token_ids": integers, "positions": integers}
    layout = layout_of([Span(0, (1,))], device)
    token_ids = layout.local(integers.new_zeros(1))[None]
    return Batch(token_ids, layout, Targets(lengths=(), **columns, sampling_mask=None), order=(), ends=integers)


def _split(prompt: int, members: list[_Member], budget: int) -> list[_Piece]:
    """Cut a group into pieces of at most `budget` tokens; each piece holds the prompt again."""
    # longest first (stable, so equal lengths keep their order): neighbours of similar length pad little
    members = sorted(members, key=lambda member: -len(member[1].token_ids))
    lengths = [len(sample.token_ids) - prompt for _, sample in members]
    return [_Piece(prompt, tuple(members[run.start : run.stop])) for run in split_by_budget(lengths, budget - prompt)]


def _fill_rows(pieces: Sequence[_Piece], tokens_per_batch: int, model: Any) -> list[Batch]:
    device = torch.device("cpu") if model is None else next(model.parameters()).device
    rows = best_fit([piece.tokens for piece in pieces], tokens_per_batch)
    return [_batch([pieces[index] for index in row], device) for row in rows]


def best_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of items in bins, longest first, each in the bin with the least room that still holds it.

    An item above the capacity has a bin of its own: `best_fit([2, 9, 5], 8) == [[1], [2, 0]]`.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # room and number of each bin, sorted: of equal rooms, the oldest bin comes first
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):  # stable: the same bins in every run
        place = bisect_left(rooms, (sizes[index], 0))
        if place < len(rooms):
            room, number = rooms.pop(place)
        else:
            room, number = capacity, len(bins)
            bins.append([])
        bins[number].append(index)
        insort(rooms, (room - sizes[index], number))
    return bins


def _batch(row: list[_Piece], device: torch.device) -> Batch:
    """One packed row: the prompts of all pieces, then their completions piece by piece (see `models.packed`)."""
    row = sorted(row, key=lambda piece: -piece.prompt)  # neighbours of one length share attention's padding
    spans = [Span(piece.prompt, tuple(len(s.token_ids) - piece.prompt for _, s in piece.members)) for piece in row]
    token_ids = [np.asarray(piece.members[0][1].token_ids[: piece.prompt], np.int64) for piece in row]
    experts = [chosen for piece in row for chosen in _routing(piece.members[0][1])[: piece.prompt]]  # as `token_ids`
    place = sum(piece.prompt for piece in row)  # of the next token; all prompts come before all completions
    last_of_prompt = -1  # place of the prompt's last token, whose hidden state predicts each completion's first token
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in TENSORS}  # an array [n] per sample
    masks: list[Sequence[int]] = []  # one for each target, or none at all
    order: list[int] = []
    ends: list[int] = []
    for piece in row:
        last_of_prompt += piece.prompt
        for index, sample in piece.members:
            ids = np.asarray(sample.token_ids, np.int64)
            # from 1: nothing predicts the first token of a document
            first = max(piece.prompt, 1)
            trained = np.asarray(sample.loss_mask[first:], np.bool_).nonzero()[0] + first  # [n], places in the sample
            # token t of the sample is at place - prompt + t of the row, and the token before it predicts it; the first
            # token of a completion is predicted by the prompt's last one, which is elsewhere in the row
            predictors = np.where(trained > piece.prompt, place - piece.prompt + trained - 1, last_of_prompt)
            values_of = {
                "sampler_logprobs": sample.logprobs,
                "old_logprobs": sample.logprobs,  # until they are recomputed
                "ref_logprobs": sample.ref_logprobs,
                "advantages": sample.advantages,
                "selected": (),  # until an objective chooses tokens
            }
            columns["token_ids"].append(ids[trained])
            columns["positions"].append(predictors)
            for name, values in values_of.items():  # SFT has none of them
                known = np.asarray(values, np.float32)[trained] if len(values) else np.zeros(len(trained), np.float32)
                columns[name].append(known)
            masks += [sample.sampling_mask[i] for i in trained.tolist()] if sample.sampling_mask else []
            token_ids.append(ids[piece.prompt :])
            experts += _routing(sample)[piece.prompt :]
            place += len(ids) - piece.prompt
            order.append(index)
            ends.append(place - 1)
    tensors = {name: torch.from_numpy(np.concatenate(parts)).to(device) for name, parts in columns.items()}
    lengths = tuple(map(len, columns["token_ids"]))
    targets = Targets(lengths=lengths, **tensors, sampling_mask=SamplingMask.of(masks, device))
    layout = layout_of(spans, device)
    assert place == sum(layout.sizes), "the layout describes every token of the row"
    row_ids = torch.from_numpy(np.concatenate(token_ids)).to(device)  # [T]
    table = _routing_table(experts)
    return Batch(
        layout.local(row_ids)[None],
        layout,
        targets,
        order=tuple(order),
        ends=torch.tensor(ends, device=device),
        routing=None if table is None else layout.local(torch.from_numpy(table).to(device), OWN),
    )


def _routing(sample: Sample) -> Sequence[Sequence[int]]:
    """The experts of each token; empty for a token whose routers choose for themselves."""
    return sample.routing or ((),) * len(sample.token_ids)


def _routing_table(experts: Sequence[Sequence[int]]) -> NDArray[np.int16] | None:
    """The experts of each token [T, R * k], with `OWN` where a token has none; None if no token has any."""
    known = [place for place, chosen in enumerate(experts) if chosen]
    if not known:
        return None
    table = np.full((len(experts), len(experts[known[0]])), OWN, np.int16)
    table[known] = np.stack([np.asarray(experts[place], np.int16) for place in known])
    return table
