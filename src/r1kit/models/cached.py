"""Generation's memory: keys, values and states of every active row, in slots that stay a contiguous block.

Row r of a decode step is slot r. When a row finishes, the last active row moves into its slot. So a step always works
on the slice [0, rows), and a finished row costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from r1kit.models.attention import Softmax, hidden_bias
from r1kit.models.packed import PackedLayout, Span
from r1kit.models.recurrent import Mixer, Rows, State

CHUNK = 32  # positions by which the cache grows


class KVCache:
    """Keys and values per layer: those of `shared` tokens that all prompts begin with, once, and those of each row.

    The rows' tensors are [slots, H_kv, positions, D], as large as the running rows need; `lengths` count only the
    tokens of a row's own. The rows of one step lie in one block: it is read several times faster than the same rows
    with gaps between them. So the cache grows by copying, a chunk of positions at a time.
    """

    def __init__(self, slots: int, shared: int = 0) -> None:
        self.shared = shared
        self.prefix: dict[int, tuple[Tensor, Tensor]] = {}  # by layer, [H_kv, shared, D(v)]
        self.lengths = torch.zeros(slots, dtype=torch.long)  # on the CPU: the scheduler reads them at every step
        self.slots, self.positions = 0, 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self.states: dict[Mixer, State] = {}  # of all slots: a state does not grow

    def fit(self, rows: int, more: int = 1) -> None:
        """Make room for the first `rows` slots, each with `more` positions more than its length."""
        positions = -(-(int(self.lengths[:rows].max()) + more) // CHUNK) * CHUNK
        if rows <= self.slots and positions <= self.positions <= 2 * positions:
            return
        for layer, pair in self.layers.items():
            keys, values = (_resized(tensor, rows, positions) for tensor in pair)
            self.layers[layer] = (keys, values)
        self.slots, self.positions = rows, positions

    def reserve(self, rows: int, steps: int, device: torch.device) -> Tensor:
        """Room for `steps` tokens in each of the first slots; returns the places [rows] of the first ones."""
        self.fit(rows, steps)
        lengths = self.lengths[:rows]
        places = lengths.to(device, copy=True)
        lengths += steps
        return places

    def layer(self, index: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's two tensors, with the heads and widths of `k` and `v` [., H_kv, ., D]."""
        if index not in self.layers:
            # from the tensors, not the config: MLA's keys are wider than its values
            keys = _empty(k, self.slots, self.positions, transposed=k.dtype == torch.bfloat16)
            self.layers[index] = (keys.zero_(), _empty(v, self.slots, self.positions).zero_())
        return self.layers[index]

    def move(self, source: int, target: int) -> None:
        """Copy slot `source` to slot `target`."""
        assert target < source, "the last active row moves down into a free slot"
        length = int(self.lengths[source])  # positions beyond it hold an earlier row's leftovers
        for keys, values in self.layers.values():
            keys[target, :, :length] = keys[source, :, :length]
            values[target, :, :length] = values[source, :, :length]
        self.lengths[target] = length
        for state in self.states.values():
            for tensor in state.tensors():
                tensor[target] = tensor[source]


def _empty(like: Tensor, rows: int, positions: int, *, transposed: bool = False) -> Tensor:
    """[rows, H, positions, D]; `transposed` swaps the last two in memory.

    oneDNN would reorder bf16 keys in each product with few queries if they were not.
    """
    _, heads, _, width = like.shape
    if transposed:
        return like.new_empty(rows, heads, width, positions).transpose(2, 3)
    return like.new_empty(rows, heads, positions, width)


def _resized(tensor: Tensor, rows: int, positions: int) -> Tensor:
    """[., H, ., D] -> [rows, H, positions, D]; what is new is zero, because masked positions must be finite."""
    old = tensor[:rows, :, :positions]
    new = _empty(tensor, rows, positions, transposed=tensor.stride(3) != 1)
    new[: len(old), :, : old.shape[2]] = old
    new[: len(old), :, old.shape[2] :] = 0
    new[len(old) :] = 0
    return new


class PrefillLayout(PackedLayout):
    """Runs prompts as one packed row and copies their keys and values into all slots of their groups.

    Layers with a state leave it there too. The tokens that all prompts share (a system message, exemplars) are in the
    row once; `lengths` are those of the remainders, at least 1 each.
    """

    needs_states = True

    def __init__(
        self, cache: KVCache, lengths: Sequence[int], slots: Sequence[range], device: torch.device | str
    ) -> None:
        super().__init__([Span(cache.shared, tuple(lengths))], device)
        self.cache, self.lengths, self.slots = cache, tuple(lengths), tuple(slots)
        assert all(a.stop == b.start for a, b in pairwise(self.slots)), "the groups' slots are one block, in order"
        for length, group in zip(lengths, self.slots, strict=True):
            cache.lengths[group.start : group.stop] = length
        cache.fit(self.slots[-1].stop)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
        shared = self.cache.shared
        self.cache.prefix[layer] = (k[0, :, :shared].contiguous(), v[0, :, :shared].contiguous())
        for cached, new in zip(self.cache.layer(layer, k, v), (k, v), strict=True):
            start = shared
            for length, group in zip(self.lengths, self.slots, strict=True):
                own = new[0, :, start : start + length]  # [H_kv, length, D], for every slot of the group
                cached[group.start : group.stop, :, :length] = own
                start += length
        return super().attend(layer, q, k, v, softmax)

    def keep(self, mixer: Mixer, rows: Rows, state: State) -> None:
        """Copy the states after the prompts into all slots of their groups."""
        slots = self.cache.states.setdefault(mixer, state.zeros(len(self.cache.lengths)))
        for cached, new in zip(slots.tensors(), state.tensors(), strict=True):
            for number, own in zip(rows.numbers, new, strict=True):
                group = self.slots[number - len(self.prompts)]  # the row begins with what the prompts share
                cached[group.start : group.stop] = own


class DecodeLayout:
    """One new token for each of the first slots; `places` [rows] are those of the new tokens among those of their rows.

    All that a step reads is on the device, and its shapes are those of the cache: nothing waits for a result.
    """

    def __init__(self, cache: KVCache, places: Tensor) -> None:
        self.cache, self.places, self.rows = cache, places, len(places)
        self.position_ids = cache.shared + self.places[:, None]  # [rows, 1]
        self.index = torch.arange(self.rows, device=places.device)
        self.biases: dict[int | None, tuple[Tensor | None, Tensor]] = {}  # by window, the same in many layers

    def bias(self, window: int | None) -> tuple[Tensor | None, Tensor]:
        """Biases of shared keys [rows, 1, 1, shared], None without a window, and of own keys [rows, 1, 1, positions].

        -inf hides the positions beyond a row's end, and those before its window.
        """
        if window not in self.biases:
            places = torch.arange(self.cache.shared + self.cache.positions, device=self.index.device)
            bias = hidden_bias(self.position_ids, places, window)[:, None, None]
            shared, own = bias.split([self.cache.shared, self.cache.positions], dim=3)
            self.biases[window] = (None if window is None else shared, own)
        return self.biases[window]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
        """q [rows, H, 1, D] -> [rows, 1, H, Dv]; for one query, plain matrix products beat a fused kernel on CPU."""
        keys, values = self.cache.layer(layer, k, v)
        assert len(q) == self.rows, "one new token for each active row"
        keys[self.index, :, self.places] = k[:, :, 0]  # [rows, H_kv, D], each at its row's end
        values[self.index, :, self.places] = v[:, :, 0]
        rows, heads, _, width = q.shape
        grouped = (q * softmax.scale).view(rows, k.shape[1], heads // k.shape[1], width)  # [rows, H_kv, H / H_kv, D]
        keys, values = keys[:rows], values[:rows]
        shared, cap = self.cache.shared, softmax.cap
        shared_bias, bias = self.bias(softmax.window)
        scores = torch.matmul(grouped, keys.transpose(2, 3))  # [rows, H_kv, H / H_kv, positions]
        if cap is not None:
            scores = torch.tanh(scores / cap) * cap
        scores = scores + bias.to(q.dtype)
        if shared:
            shared_keys, shared_values = self.cache.prefix[layer]
            by_head = grouped.transpose(0, 1).flatten(1, 2)  # [H_kv, rows * H / H_kv, D]: one product for all rows
            seen = torch.matmul(by_head, shared_keys.transpose(1, 2)).view(len(by_head), rows, -1, shared)
            seen = seen.transpose(0, 1)
            if cap is not None:
                seen = torch.tanh(seen / cap) * cap
            if shared_bias is not None:
                seen = seen + shared_bias.to(q.dtype)
            scores = torch.cat([seen, scores], dim=3)  # [rows, H_kv, ., shared + positions]
        sinks = None if softmax.sinks is None else softmax.sinks.view(k.shape[1], -1, 1)  # [H_kv, H / H_kv, 1]
        probs = softmax.of(scores, sinks).to(q.dtype)  # in fp32, as the models' own code has it
        out = torch.matmul(probs[..., shared : shared + self.cache.positions], values)  # [rows, H_kv, H / H_kv, Dv]
        if shared:
            by_head = probs[..., :shared].transpose(0, 1).flatten(1, 2)  # [H_kv, rows * H / H_kv, shared]
            out += torch.matmul(by_head, shared_values).view(len(by_head), rows, -1, out.shape[3]).transpose(0, 1)
        return out.reshape(rows, 1, heads, values.shape[3])

    def recur(self, mixer: Mixer, hidden: Tensor) -> Tensor:
        """hidden [rows, 1, d] -> [rows, 1, d]; the rows' states move on by a token."""
        slots = self.cache.states[mixer]
        state = slots.first(self.rows)
        output = mixer.run(hidden, state)
        for cached, new in zip(slots.tensors(), state.tensors(), strict=True):
            cached[: self.rows].copy_(new)  # free for a layer that changed its state in place
        return output
