"""From samples to packed batches: each prompt once per group, a token budget per forward pass, no padding."""

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

LEAST = 8  # tokens of a beginning that is computed once: fewer are not worth their part in attention

_Member = tuple[int, Sample]  # a sample and its index


@dataclass(frozen=True)
class _Piece:
    """Samples that share the beginning of their prompts, or documents (prompt 0) of about one length."""

    prompt: int
    members: tuple[_Member, ...]

    @property
    def tokens(self) -> int:
        return self.prompt + sum(len(sample.token_ids) - self.prompt for _, sample in self.members)


def pack(samples: Sequence[Sample], tokens_per_batch: int, model: Any = None) -> list[Batch]:
    """Packed batches of at most `tokens_per_batch` tokens, in an order that depends on the samples alone.

    A longer sample is a batch of its own. Neighbouring samples with the same prompt share it, and other samples share
    what their prompts begin with (a system message, exemplars), unless `model` takes the plain path, which computes
    each by itself. The longest come first, so a batch that does not fit in memory fails at the start of a run. Without
    a model the tensors are on the CPU. Ranks that share rows give the same samples, and get their part of each batch's
    tokens. Raises ValueError for a sample without a trained token.
    """
    shares = plain_path(model) is None
    groups: list[tuple[tuple[int, ...], list[_Member]]] = []
    for index, sample in enumerate(samples):
        if not any(sample.loss_mask):
            raise ValueError(
                f"a sample of {len(sample.token_ids)} tokens has no token to train on: its loss_mask is all False"
            )
        prompt = tuple(sample.token_ids[: sample.loss_mask.index(True)])
        if shares and prompt and groups and groups[-1][0] == prompt:
            groups[-1][1].append((index, sample))
        else:
            groups.append((prompt, [(index, sample)]))
    pieces: list[_Piece] = []
    single: list[_Member] = []
    for prompt, members in groups:
        if len(members) > 1:
            pieces += _split(len(prompt), members, tokens_per_batch)
        else:
            single += members
    # a prompt that nobody shares is a document's beginning; attention pads those of one bucket to the longest
    alone: list[_Member] = []
    for shared, members in _by_beginning(single) if shares else [(0, single)]:
        if shared:
            pieces += _split(shared, members, tokens_per_batch)
        else:
            alone += members
    for indices in bucket([len(sample.token_ids) for _, sample in alone]):
        pieces += _split(0, [alone[i] for i in indices], tokens_per_batch)
    return _rows(pieces, tokens_per_batch, model)


def _by_beginning(members: Sequence[_Member]) -> list[tuple[int, list[_Member]]]:
    """Members in runs, each with the number of tokens that all its prompts begin with; 0 for a member by itself.

    Sorted by their tokens, those that share most are neighbours. A run goes on as long as another member saves tokens.
    """
    runs: list[tuple[int, list[_Member]]] = []
    for member in sorted(members, key=lambda member: tuple(member[1].token_ids)):
        shared, run = runs[-1] if runs else (0, [])
        same = _same_beginning(run[-1][1], member[1]) if run else 0
        longest = min(same, shared) if len(run) > 1 else same  # of the run with this member
        if longest >= LEAST and len(run) * longest >= (len(run) - 1) * shared:
            run.append(member)
            runs[-1] = (longest, run)
        else:
            runs.append((0, [member]))
    return runs


def _same_beginning(one: Sample, other: Sample) -> int:
    """The number of leading tokens that two prompts have in common."""
    pairs = zip(one.token_ids, other.token_ids, one.loss_mask, other.loss_mask, strict=False)
    return next((place for place, (a, b, *trained) in enumerate(pairs) if a != b or any(trained)), 0)


def pack_together(groups: Sequence[Sequence[Sample]], tokens_per_batch: int, model: Any = None) -> list[Batch]:
    """`pack` for groups that must stay whole and in order in one batch, such as the two answers of a preference pair.

    The common prefix of a group is computed once; it leaves each sample a token, since a completion without one has no
    end to score. `order` counts samples over all groups.
    """
    pieces, index, shares = [], 0, plain_path(model) is None
    for group in groups:
        members = tuple(enumerate(group, index))  # numbered over all groups
        index += len(group)
        shared = common_prefix([sample.token_ids for sample in group]) if shares and len(group) > 1 else 0
        pieces.append(_Piece(shared, members))
    return _rows(pieces, tokens_per_batch, model)


def share(samples: Sequence[Sample]) -> list[Sample]:
    """This rank's samples of an update: neighbours, so most groups keep the prompt that they share."""
    return ranks.share_rows(samples, lambda sample: len(sample.token_ids))


def level(batches: Iterable[Batch], device: torch.device) -> list[Batch]:
    """The batches, with empty ones until every rank has as many: in each forward pass, FSDP waits for all ranks."""
    own = list(batches)
    return own + [_empty(device)] * (max(ranks.gather(len(own))) - len(own))


def _empty(device: torch.device) -> Batch:
    """A row of one token with nothing to predict: its gradient is zero, but every weight has one."""
    integers, floats = torch.zeros(0, dtype=torch.int64, device=device), torch.zeros(0, device=device)
    columns = dict.fromkeys(TENSORS, floats) | {"token_ids": integers, "positions": integers}
    layout = layout_of([Span(0, (1,))], device)
    token_ids = layout.own(integers.new_zeros(1))[None]
    return Batch(token_ids, layout, Targets(lengths=(), **columns, sampling_mask=None), order=(), ends=integers)


def _split(prompt: int, members: list[_Member], budget: int) -> list[_Piece]:
    """Cut a group into pieces within the budget; each repeats the prompt."""
    # longest first (stable, so equal lengths keep their order): neighbours of similar length pad little
    members = sorted(members, key=lambda member: -len(member[1].token_ids))
    own = [len(sample.token_ids) - prompt for _, sample in members]
    return [_Piece(prompt, tuple(members[run.start : run.stop])) for run in split_by_budget(own, budget - prompt)]


def _rows(pieces: Sequence[_Piece], tokens_per_batch: int, model: Any) -> list[Batch]:
    """Best fit, longest first: each piece goes into the row with the least room that still holds it."""
    device = torch.device("cpu") if model is None else next(model.parameters()).device
    sizes = [piece.tokens for piece in pieces]
    rows = best_fit(sizes, tokens_per_batch)
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
    """One packed row: the prompts of all pieces, then their completions piece by piece."""
    row = sorted(row, key=lambda piece: -piece.prompt)  # neighbours of one length share attention's padding
    spans = [Span(piece.prompt, tuple(len(s.token_ids) - piece.prompt for _, s in piece.members)) for piece in row]
    token_ids = [np.asarray(piece.members[0][1].token_ids[: piece.prompt], np.int64) for piece in row]
    experts = [own for piece in row for own in _routing(piece.members[0][1])[: piece.prompt]]  # in the row's order
    place = sum(piece.prompt for piece in row)  # of the next token; all prompts come before all completions
    last_of_prompt = -1  # its hidden state predicts the first token of each completion
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in TENSORS}  # a piece per sample
    masks: list[Sequence[int]] = []  # one for each target, or none at all
    order: list[int] = []
    ends: list[int] = []
    for piece in row:
        last_of_prompt += piece.prompt
        for index, sample in piece.members:
            ids = np.asarray(sample.token_ids, np.int64)
            # from 1: nothing predicts the first token of a document
            first = max(piece.prompt, 1)
            chosen = np.asarray(sample.loss_mask[first:], np.bool_).nonzero()[0] + first  # [n]
            # token t of the sample is at place - prompt + t, and the one before it predicts it
            before = np.where(chosen > piece.prompt, place - piece.prompt + chosen - 1, last_of_prompt)
            values_of = {
                "sampler_logprobs": sample.logprobs,
                "old_logprobs": sample.logprobs,  # until they are recomputed
                "ref_logprobs": sample.ref_logprobs,
                "advantages": sample.advantages,
                "selected": (),  # until an objective chooses tokens
            }
            columns["token_ids"].append(ids[chosen])
            columns["positions"].append(before)
            for name, values in values_of.items():  # SFT has none
                known = np.asarray(values, np.float32)[chosen] if len(values) else np.zeros(len(chosen), np.float32)
                columns[name].append(known)
            masks += [sample.sampling_mask[i] for i in chosen.tolist()] if sample.sampling_mask else []
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
    table = _table(experts)
    return Batch(
        layout.own(row_ids)[None],
        layout,
        targets,
        order=tuple(order),
        ends=torch.tensor(ends, device=device),
        routing=None if table is None else layout.own(torch.from_numpy(table).to(device), OWN),
    )


def _routing(sample: Sample) -> Sequence[Sequence[int]]:
    return sample.routing or ((),) * len(sample.token_ids)


def _table(experts: Sequence[Sequence[int]]) -> NDArray[np.int16] | None:
    """The experts of each token [T, R * k], with `OWN` where a token has none; None if no token has any."""
    known = [place for place, own in enumerate(experts) if own]
    if not known:
        return None
    table = np.full((len(experts), len(experts[known[0]])), OWN, np.int16)
    table[known] = np.stack([np.asarray(experts[place], np.int16) for place in known])
    return table
