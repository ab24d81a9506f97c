"""The two ways to run a model token by token: packed prompts with r1kit's cache, or its own forward pass and cache.

Both hold one running sequence per slot; the slots in use are a block without gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from r1kit.models.attention import Layout, forward_layout
from r1kit.models.cached import DecodeLayout, KVCache, PrefillLayout
from r1kit.models.packed import bucket, common_prefix
from r1kit.models.plain import PADDING_WASTE, PlainCache, PlainPath, plain_path
from r1kit.models.routing_replay import RoutingReplay, recorded


class Prefilled(NamedTuple):
    """What a prefill gives for each of its prompts; the lists are empty unless they were asked for."""

    last: Tensor  # [prompts, d], hidden states of their last tokens
    states: list[Tensor]  # [tokens, d] each, of all tokens of a prompt
    experts: list[Tensor]  # [tokens, R * k] each


class Decoder(Protocol):
    """The running sequences of one `Generation`."""

    def prefill(self, prompts: Sequence[Sequence[int]], sizes: Sequence[int], *, whole: bool = False) -> Prefilled:
        """Run new prompts; `sizes[i]` sequences continue prompt i, in the next free slots. `whole` asks for the
        states of all their tokens."""

    def reserve(self, steps: int) -> None:
        """Make room for `steps` tokens in each slot; as many calls of `step` follow before any other method's."""

    def step(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Append a token to the sequence of each slot [slots]; returns their hidden states [slots, d] and, if they are
        recorded, their experts [slots, R * k]."""

    def remove(self, slot: int) -> None:
        """End the sequence in a slot; the one in the last slot moves there."""


def decoder_of(model: Any, slots: int, prompts: Sequence[Sequence[int]], *, records: bool = False) -> Decoder:
    """The decoder of a model's path. Later prompts must begin with what `prompts` have in common.

    `records`: the experts of each token are kept, which the plain path does not do (`require_replay` refuses it).
    """
    path = plain_path(model)
    if path is None:
        return PackedDecoder(model, slots, prompts, RoutingReplay(model) if records else None)
    assert not records, "the plain path does not record experts"
    return PlainDecoder(model, path)


class PackedDecoder:
    """Prompts run as one packed row, each once for its group and their common beginning once for all."""

    def __init__(
        self, model: Any, slots: int, prompts: Sequence[Sequence[int]], routers: RoutingReplay | None = None
    ) -> None:
        self.model, self.routers = model, routers  # whose choices are recorded
        self.cache = KVCache(slots, common_prefix(prompts) if prompts else 0)
        self.rows = 0
        self.places = torch.zeros(0, dtype=torch.long, device=model.device)  # [rows], of the next tokens

    def prefill(self, prompts: Sequence[Sequence[int]], sizes: Sequence[int], *, whole: bool = False) -> Prefilled:
        shared, stops = self.cache.shared, [*accumulate(sizes, initial=self.rows)]
        slots = [range(start, stop) for start, stop in pairwise(stops)]
        self.rows = stops[-1]
        suffixes = [prompt[shared:] for prompt in prompts]
        layout = PrefillLayout(self.cache, [len(suffix) for suffix in suffixes], slots, self.model.device)
        # one row: the shared prefix once, then the rest of each prompt
        packed = [*prompts[0][:shared], *(token for suffix in suffixes for token in suffix)]
        token_ids = torch.tensor([packed], device=self.model.device)  # [1, T]
        hidden, *experts = self._forward(token_ids, layout.position_ids[None], layout)  # [1, T, d]
        lengths = [len(suffix) for suffix in suffixes]
        ends = torch.tensor(lengths, device=hidden.device).cumsum(0)

        def by_prompt(values: Tensor) -> list[Tensor]:
            """[T, ...] -> [tokens, ...] for each prompt, with the shared tokens before its own."""
            return [torch.cat([values[:shared], own]) for own in values[shared:].split(lengths)]

        states = by_prompt(hidden[0]) if whole else []
        return Prefilled(hidden[0, shared + ends - 1], states, by_prompt(experts[0]) if experts else [])

    def reserve(self, steps: int) -> None:
        self.places = self.cache.reserve(self.rows, steps, self.model.device)

    def step(self, tokens: Tensor) -> tuple[Tensor, ...]:
        # no transfer and no shape that depends on a result: on a GPU, steps queue up behind each other
        layout = DecodeLayout(self.cache, self.places)
        hidden, *experts = self._forward(tokens[:, None], layout.position_ids, layout)  # [rows, 1, d]
        self.places += 1  # in place: a recorded step would read the same tensor
        return (hidden[:, 0], *experts)

    def remove(self, slot: int) -> None:
        self.rows -= 1
        if slot != self.rows:
            self.cache.move(self.rows, slot)

    def _forward(self, token_ids: Tensor, position_ids: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        """Hidden states [B, T, d] and, if they are recorded, the experts [B * T, R * k]."""
        if self.routers is None:
            return (forward_layout(self.model, token_ids, position_ids, layout),)
        with self.routers.recording() as calls:
            hidden = forward_layout(self.model, token_ids, position_ids, layout)
        return hidden, recorded(calls)


class PlainDecoder:
    """Prompts of about one length, or of exactly one, share a cache of the model's own until they end."""

    def __init__(self, model: Any, path: PlainPath) -> None:
        self.model, self.path = model, path
        self.slots: list[tuple[PlainCache, int]] = []  # the cache of each running sequence, and its row there

    def prefill(self, prompts: Sequence[Sequence[int]], sizes: Sequence[int], *, whole: bool = False) -> Prefilled:
        states: dict[int, Tensor] = {}
        prompt_states: dict[int, Tensor] = {}
        slots: dict[int, list[tuple[PlainCache, int]]] = {}
        for indices in bucket([len(prompt) for prompt in prompts], PADDING_WASTE if self.path.pads_left else 0.0):
            counts = [sizes[index] for index in indices]
            starts = [*accumulate(counts, initial=0)]
            if self.path.forks:  # each prompt once, its cache copied to its sequences
                cache = PlainCache(self.model, [prompts[index] for index in indices], self.path.caches, whole=whole)
                states |= dict(zip(indices, cache.states, strict=True))
                prompt_states |= dict(zip(indices, cache.prompt_states, strict=False))
                rows = torch.arange(len(indices)).repeat_interleave(torch.tensor(counts))
                cache.select(rows.to(self.model.device))
            else:
                repeated = [prompts[index] for index, count in zip(indices, counts, strict=True) for _ in range(count)]
                cache = PlainCache(self.model, repeated, self.path.caches, whole=whole)
                states |= dict(zip(indices, cache.states[starts[:-1]], strict=True))
                own = [cache.prompt_states[start] for start in starts[:-1] if whole]
                prompt_states |= dict(zip(indices, own, strict=False))
            for index, start, count in zip(indices, starts, counts, strict=False):  # the last start is the end
                slots[index] = [(cache, row) for row in range(start, start + count)]
        for index in range(len(prompts)):
            self.slots += slots[index]
        last = torch.stack([states[index] for index in range(len(prompts))])
        return Prefilled(last, [prompt_states[index] for index in range(len(prompts)) if whole], [])

    def reserve(self, steps: int) -> None:
        """The model's own cache grows by itself."""

    def step(self, tokens: Tensor) -> tuple[Tensor, ...]:
        groups: dict[PlainCache, list[int]] = {}
        for slot, (cache, _) in enumerate(self.slots):
            groups.setdefault(cache, []).append(slot)
        states: list[Tensor] = []
        for cache, slots in groups.items():
            # a copy of the cache costs about two steps: worth it once a quarter of its rows has ended
            if self.path.forks and len(slots) <= 0.75 * cache.rows:
                cache.select(torch.tensor([self.slots[slot][1] for slot in slots], device=tokens.device))
                for row, slot in enumerate(slots):
                    self.slots[slot] = (cache, row)
            rows = torch.tensor([self.slots[slot][1] for slot in slots], device=tokens.device)
            own = tokens.new_zeros(cache.rows)  # an ended row that is still in the cache continues with any token
            own[rows] = tokens[torch.tensor(slots, device=tokens.device)]
            states.append(cache.step(own)[rows])
        order = torch.tensor([slot for slots in groups.values() for slot in slots], device=tokens.device)
        return (torch.cat(states)[order.argsort()],)

    def remove(self, slot: int) -> None:
        self.slots[slot] = self.slots[-1]
        self.slots.pop()
