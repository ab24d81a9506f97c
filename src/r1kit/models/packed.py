"""Training rows without padding: a prompt once, the completions of its group after it.

A row is a flat run of tokens: first all prompts, then all completions, group by group. Each prompt sees itself; each
completion sees its group's prompt and itself. Prompt P with completions a and b, and prompt Q with completion c:

    tokens       P0 P1 P2  Q0 Q1  a3 a4  b3  c2 c3 c4
    positions     0  1  2   0  1   3  4   3   2  3  4     (c3 sees Q0 Q1 c2 c3)

Linear layers run on the flat row. Only attention pads, per block, to the longest member of the block; the padding is to
the right of all real tokens, so the causal mask hides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from r1kit.models.attention import Softmax, causal_attention
from r1kit.models.recurrent import Mixer, SequenceBatch, State

# Padding may add this share of the real tokens to attention: on a CPU as measured (docs/log.md); no GPU was measured.
ATTENTION_WASTE = {"cpu": 0.2, "cuda": 1.0}
RECURRENT_WASTE = 0.25  # the same for a batch of a layer with a state


class Padding:
    """Moves the tokens of N sequences between the flat form [sum L, ...] and the padded form [N, max L, ...]."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = list(lengths)
        self.shape = (len(lengths), max(lengths, default=0))
        self.dense = all(length == self.shape[1] for length in lengths)
        self.index: Tensor | None = None  # place of each real token among the N * max L padded ones
        if not self.dense:
            real = torch.arange(self.shape[1]) < torch.tensor(self.lengths)[:, None]  # [N, max L]
            self.index = real.flatten().nonzero().flatten().to(device)

    def pad(self, flat: Tensor) -> Tensor:
        """[sum L, H, D] -> [N, H, max L, D], padded with zeros."""
        if self.index is not None:
            assert len(flat) == len(self.index), "as many tokens as the lengths add up to"
            empty = flat.new_zeros((self.shape[0] * self.shape[1], *flat.shape[1:]))  # [N * max L, H, D]
            flat = empty.index_copy(0, self.index, flat)  # not in place, so that autograd follows
        return flat.view(*self.shape, *flat.shape[1:]).transpose(1, 2)

    def unpad(self, padded: Tensor) -> Tensor:
        """[N, H, max L, D] -> [sum L, H, D]."""
        flat = padded.transpose(1, 2).reshape(-1, padded.shape[1], padded.shape[3])  # [N * max L, H, D]
        return flat if self.index is None else flat.index_select(0, self.index)


@dataclass(frozen=True)
class Span:
    """The lengths of a group's prompt and completions; a prompt of 0 means plain documents."""

    prompt: int
    completions: tuple[int, ...]


@dataclass(frozen=True)
class _Block:
    """Completions of one span that attention computes together."""

    prompt: int | None  # index of their prompt in the row
    padding: Padding


class PackedLayout:
    """Which tokens see which in one packed row of groups.

    A rank may have only some of a row's tokens (`models.shared_rows`). `local*` and `gather` translate between its own
    tokens and the whole row; here, where one rank has all of them, they change nothing.
    """

    needs_states = False  # whether the states after the completions are kept, which training does not need
    ranks, place = 1, 0  # the ranks that share the row, and the number of this one among them

    def __init__(self, spans: Sequence[Span], device: torch.device | str = "cpu") -> None:
        self.spans, self.device = tuple(spans), torch.device(device)
        device = self.device
        self.prompts = [span.prompt for span in spans if span.prompt]
        waste = ATTENTION_WASTE.get(device.type, 1.0)
        prompt_runs = runs(self.prompts, waste)  # prompts of neighbouring spans that attention computes together
        self.prompt_sizes = [sum(run) for run in prompt_runs]
        self.prompt_paddings = [Padding(run, device) for run in prompt_runs]
        numbers = iter(range(len(self.prompts)))
        self.blocks: list[_Block] = []
        for span in spans:
            prompt = next(numbers) if span.prompt else None
            self.blocks += [_Block(prompt, Padding(run, device)) for run in runs(span.completions, waste)]
        # tokens of the row in order: all prompts, then block by block
        self.sizes = [sum(self.prompts), *(sum(block.padding.lengths) for block in self.blocks)]
        self.num_tokens = sum(self.sizes)  # of this rank
        # a completion continues its prompt's positions, as if it stood right after it
        starts = [torch.arange(length) for length in self.prompts]
        owns = [torch.arange(span.prompt, span.prompt + length) for span in spans for length in span.completions]
        self.position_ids = torch.cat([*starts, *owns]).to(device)  # [T]
        # for counts of expert loads: a shared prompt's token stands for a token of each of its completions' sequences
        self.samples_per_token = torch.ones(len(self.position_ids), dtype=torch.float64, device=device)  # [T]
        shared = torch.tensor([len(span.completions) for span in spans if span.prompt], dtype=torch.float64)
        lengths = torch.tensor(self.prompts, dtype=torch.long)
        self.samples_per_token[: self.sizes[0]] = shared.repeat_interleave(lengths).to(device)

    def local(self, values: Tensor, fill: int = 0) -> Tensor:
        """The values of this rank's tokens, from those of all tokens [T, ...]; `fill` pads ranks to equal numbers."""
        return values

    def local_indices(self, positions: Tensor) -> Tensor:
        """The indices into `positions` [n] of those at which this rank has the row's token."""
        return torch.arange(len(positions), device=positions.device)

    def local_positions(self, positions: Tensor) -> Tensor:
        """These tokens' places among the rank's own, for the positions that `local_indices` selects."""
        return positions

    def gather(self, values: Tensor, positions: Tensor) -> Tensor:
        """The values [n] at all positions, from the values that each rank has at its own of them.

        Only a rank's own values have a gradient. Every rank of the row must call it.
        """
        return values

    def sequences(self) -> list[NDArray[np.int64]]:
        """The places in the row of each completion's tokens, those of its prompt first."""
        sequences, start, end = [], 0, sum(self.prompts)  # of the next prompt and the next completion
        for span in self.spans:
            prompt = np.arange(start, start + span.prompt)
            for length in span.completions:
                sequences.append(np.concatenate([prompt, np.arange(end, end + length)]))
                end += length
            start += span.prompt
        return sequences

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
        """q [1, H, T, D], k and v [1, H_kv, T, D(v)] -> [1, T, H, Dv]."""
        assert q.shape[2] == sum(self.sizes), "the layout is of another row"
        flat = [x[0].transpose(0, 1) for x in (q, k, v)]  # [T, H, D] each
        (q_prompt, *qs), (k_prompt, *ks), (v_prompt, *vs) = (torch.split(x, self.sizes) for x in flat)
        outputs: list[Tensor] = []
        parts = (torch.split(x, self.prompt_sizes) for x in (q_prompt, k_prompt, v_prompt))
        for padding, *flat_qkv in zip(self.prompt_paddings, *parts, strict=True):
            queries, keys, values = map(padding.pad, flat_qkv)  # [prompts, H, P, D]
            outputs.append(padding.unpad(causal_attention(queries, keys, values, softmax)))
        # a block's completions attend to their prompt's keys and then their own, as if the prompt stood before each
        shared = [torch.split(x.transpose(0, 1), self.prompts, dim=1) for x in (k_prompt, v_prompt)]  # [H, P, D] each
        for block, *flat_qkv in zip(self.blocks, qs, ks, vs, strict=True):
            queries, keys, values = map(block.padding.pad, flat_qkv)  # [completions, H, width, D]
            if block.prompt is not None:
                k_shared, v_shared = (x[block.prompt].expand(len(keys), -1, -1, -1) for x in shared)  # [N, H, P, D]
                keys, values = torch.cat([k_shared, keys], dim=2), torch.cat([v_shared, values], dim=2)
            outputs.append(block.padding.unpad(causal_attention(queries, keys, values, softmax)))
        return torch.cat(outputs)[None]

    @cached_property
    def recurrent_batches(self) -> _RecurrentBatches:
        """How layers with a state cut the row; few models have any."""
        return _RecurrentBatches(self.spans, self.device, padded=not self.needs_states)

    def recur(self, mixer: Mixer, hidden: Tensor) -> Tensor:
        """hidden [1, T, d] -> [1, T, d]: prompts from an empty state, completions from the one after their prompt."""
        flat, after_prompts = hidden[0], State()
        prompts = [(rows, State()) for rows in self.recurrent_batches.prompts]
        outputs = [rows.run(mixer, flat, state) for rows, state in prompts]
        if prompts:
            after_prompts = State.join([state for _, state in prompts])
        for rows, sources in self.recurrent_batches.completions:
            state = State() if sources is None else after_prompts.copies(sources)
            outputs.append(rows.run(mixer, flat, state))
            if self.needs_states:
                self.keep(mixer, rows, state)
        return torch.cat(outputs).index_select(0, self.recurrent_batches.order)[None]

    def keep(self, mixer: Mixer, rows: SequenceBatch, state: State) -> None:
        """Called with the states after the completions if `needs_states`."""
        raise NotImplementedError


class _RecurrentBatches:
    """How a packed row is cut for layers with a state: batches of prompts, then of completions of similar length."""

    def __init__(self, spans: Sequence[Span], device: torch.device, *, padded: bool) -> None:
        prompts = [span.prompt for span in spans if span.prompt]
        lengths = [*prompts, *(length for span in spans for length in span.completions)]  # in the order of the row
        starts = [0, *accumulate(lengths)]

        def sequence_batch(numbers: Sequence[int], least: int = 1) -> SequenceBatch:
            return SequenceBatch(numbers, [starts[n] for n in numbers], [lengths[n] for n in numbers], device, least)

        # padding would change the state after a prompt, so a batch has prompts of one length
        self.prompts = [sequence_batch(numbers) for numbers in bucket(prompts, 0)]
        # the states after all prompts are stacked in the order of the batches
        state_of = {number: i for i, number in enumerate(n for batch in self.prompts for n in batch.numbers)}
        prompt_numbers = iter(range(len(prompts)))
        sources: list[int | None] = []  # of each completion: the index of its prompt's state; None without a prompt
        for span in spans:
            sources += [state_of[next(prompt_numbers)] if span.prompt else None] * len(span.completions)
        # a completion's last state may follow padding if nothing needs it. With at least two tokens a layer takes its
        # path for sequences: the one for single tokens changes states in place, and autograd still needs them
        waste, least = (RECURRENT_WASTE, 2) if padded else (0.0, 1)
        self.completions: list[tuple[SequenceBatch, Tensor | None]] = []
        for has_prompt in (False, True):
            numbers = [n for n, source in enumerate(sources, len(prompts)) if (source is not None) == has_prompt]
            for run in bucket([lengths[n] for n in numbers], waste):
                batch = [numbers[i] for i in run]
                of_batch = [sources[n - len(prompts)] for n in batch]
                index = torch.tensor(of_batch, device=device) if has_prompt else None
                self.completions.append((sequence_batch(batch, least), index))
        order = torch.cat([rows.places for rows in (*self.prompts, *(rows for rows, _ in self.completions))])
        self.order = order.argsort().to(device)  # [T], from the batches' tokens back to the row's


def runs(lengths: Sequence[int], waste: float) -> list[list[int]]:
    """Split lengths into runs in which padding to the longest adds at most `waste` of the real tokens.

    Sorted lengths need the fewest cuts: `runs([9, 8, 2, 2], 0.5) == [[9, 8], [2, 2]]`.
    """
    parts: list[list[int]] = []
    longest = total = 0
    for length in lengths:
        if parts and max(longest, length) * (len(parts[-1]) + 1) <= (1 + waste) * (total + length):
            parts[-1].append(length)
            longest, total = max(longest, length), total + length
        else:
            parts.append([length])
            longest = total = length
    return parts


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all rows share, less than any row has: `common_prefix([(7, 8), (7, 9)]) == 1`."""
    tuples = [tuple(row) for row in rows]
    first, last = min(tuples), max(tuples)  # all rows between these two share at least what the two share
    limit = min(map(len, tuples)) - 1
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), limit)
    return min(same, limit)


def split_by_budget(lengths: Sequence[int], budget: int) -> list[range]:
    """Consecutive items whose lengths sum to at most `budget`; a longer item is a part by itself.

    `split_by_budget([3, 4, 9], 7) == [range(0, 2), range(2, 3)]`.
    """
    parts: list[range] = []
    total = 0
    for index, length in enumerate(lengths):
        if parts and total + length <= budget:
            parts[-1], total = range(parts[-1].start, index + 1), total + length
        else:
            parts.append(range(index, index + 1))
            total = length
    return parts


def bucket(lengths: Sequence[int], waste: float = 0.15) -> list[list[int]]:
    """Indices of sequences, longest first, in buckets in which padding adds at most `waste` of the real tokens."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))  # ties by index: the same order everywhere
    rest = iter(order)
    return [[next(rest) for _ in run] for run in runs([lengths[i] for i in order], waste)]
