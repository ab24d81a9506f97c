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
from r1kit.models.recurrent import Mixer, SequenceBatch, State

GROWTH = 32  # positions by which the cache grows at a time


class KVCache:
    """Keys and values per layer: those of `shared` tokens that all prompts begin with, once, and those of each row.

    The rows' tensors are [slots, H_kv, positions, D], as large as the running rows need. `lengths` count the tokens of
    each row beyond the shared ones. The rows of one step lie in one block, which is read several times faster than the
    same rows with gaps between them: so the cache is copied to grow, `GROWTH` positions at a time.
    """

    def __init__(self, slots: int, shared: int = 0) -> None:
        self.shared = shared
        self.prefix: dict[int, tuple[Tensor, Tensor]] = {}  # by layer, [H_kv, shared, D(v)]
        self.lengths = torch.zeros(slots, dtype=torch.long)  # on the CPU: the scheduler reads them at every step
        self.slots, self.positions = 0, 0
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}  # by layer, keys and values of each row's own tokens
        self.states: dict[Mixer, State] = {}  # by layer with a state, of all slots from the start: states do not grow

    def fit(self, rows: int, more: int = 1) -> None:
        """Make room for the first `rows` slots, each with `more` positions beyond its length.

        A cache that is too small, or has more than twice the positions that are needed, is copied to that size.
        """
        positions = -(-(int(self.lengths[:rows].max()) + more) // GROWTH) * GROWTH
        if rows <= self.slots and positions <= self.positions <= 2 * positions:
            return
        for layer, pair in self.layers.items():
            keys, values = (_resized(tensor, rows, positions) for tensor in pair)
            self.layers[layer] = (keys, values)
        self.slots, self.positions = rows, positions

    def reserve(self, rows: int, steps: int, device: torch.device) -> Tensor:
        """Make room for `steps` tokens in each of the first slots; returns the place [rows] of each row's next one.

        The lengths count these tokens from now on: nothing is read back from the device until all steps are done.
        """
        self.fit(rows, steps)
        places = self.lengths[:rows].to(device, copy=True)
        self.lengths[:rows] += steps
        return places

    def layer(self, index: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's two tensors, with the heads and widths of `k` and `v` [., H_kv, ., D]."""
        if index not in self.layers:
            # widths from the tensors, not from the config: MLA's keys are wider than its values
            keys = _empty(k, self.slots, self.positions, transposed=k.dtype == torch.bfloat16)
            self.layers[index] = (keys.zero_(), _empty(v, self.slots, self.positions).zero_())
        return self.layers[index]

    def move(self, source: int, target: int) -> None:
        """Copy slot `source` to slot `target`."""
        assert target < source, "the last active row moves down into a free slot"
        length = int(self.lengths[source])  # beyond it are leftovers of an earlier row
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
    """[., H, ., D] -> [rows, H, positions, D]. What is new is zero: masked positions are multiplied by probability 0,
    so they must be finite."""
    old = tensor[:rows, :, :positions]
    new = _empty(tensor, rows, positions, transposed=tensor.stride(3) != 1)
    new[: len(old), :, : old.shape[2]] = old
    new[: len(old), :, old.shape[2] :] = 0
    new[len(old) :] = 0
    return new


class PrefillLayout(PackedLayout):
    """Runs prompts as one packed row and copies their keys and values into all slots of their groups.

    Layers with a state leave it there too. In the row, the tokens that all prompts share (a system message, exemplars)
    are a prompt, and the rest of each prompt is a completion of it; `lengths` are those of these rests, at least 1.
    `slots[i]` are those of the sequences that continue prompt i.
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
                rest = new[0, :, start : start + length]  # [H_kv, length, D], broadcast to every slot of the group
                cached[group.start : group.stop, :, :length] = rest
                start += length
        return super().attend(layer, q, k, v, softmax)

    def keep(self, mixer: Mixer, rows: SequenceBatch, state: State) -> None:
        """Copy the states after the prompts into all slots of their groups."""
        slots = self.cache.states.setdefault(mixer, state.zeros(len(self.cache.lengths)))
        for cached, new in zip(slots.tensors(), state.tensors(), strict=True):
            for number, last in zip(rows.numbers, new, strict=True):
                group = self.slots[number - len(self.prompts)]  # sequence 0 is what the prompts share, if they do
                cached[group.start : group.stop] = last


class DecodeLayout:
    """One new token for each of the first slots; `places` [rows] says where in its row's own part of the cache it goes.

    A step reads tensors on the device alone, and its shapes are those of the cache: the host waits for no result.
    """

    def __init__(self, cache: KVCache, places: Tensor) -> None:
        self.cache, self.places, self.rows = cache, places, len(places)
        self.position_ids = cache.shared + self.places[:, None]  # [rows, 1]
        self.index = torch.arange(self.rows, device=places.device)
        self.biases: dict[int | None, tuple[Tensor | None, Tensor]] = {}  # by window, the same in many layers

    def bias(self, window: int | None) -> tuple[Tensor | None, Tensor]:
        """Biases of shared keys [rows, 1, 1, shared] and of each row's own [rows, 1, 1, positions].

        -inf hides the positions beyond a row's end and those before its window. Without a window every row sees all
        shared keys, so their bias is None.
        """
        if window not in self.biases:
            places = torch.arange(self.cache.shared + self.cache.positions, device=self.index.device)
            bias = hidden_bias(self.position_ids, places, window)[:, None, None]
            shared, own = bias.split([self.cache.shared, self.cache.positions], dim=3)
            self.biases[window] = (None if window is None else shared, own)
        return self.biases[window]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, softmax: Softmax) -> Tensor:
        """q [rows, H, 1, D] -> [rows, 1, H, Dv]; for one query, plain matrix products beat a fused kernel on CPU.

        Each row's query meets two sets of keys: the shared ones, in one product for all rows, and the row's own. One
        softmax covers both.
        """
        keys, values = self.cache.layer(layer, k, v)
        assert len(q) == self.rows, "one new token for each active row"
        keys[self.index, :, self.places] = k[:, :, 0]  # [rows, H_kv, D], each at its row's end
        values[self.index, :, self.places] = v[:, :, 0]
        rows, heads, _, width = q.shape
        # query heads of one key head side by side, so that keys need not be repeated
        queries = (q * softmax.scale).view(rows, k.shape[1], heads // k.shape[1], width)  # [rows, H_kv, H / H_kv, D]
        keys, values = keys[:rows], values[:rows]
        shared, cap = self.cache.shared, softmax.cap
        shared_bias, bias = self.bias(softmax.window)
        scores = torch.matmul(queries, keys.transpose(2, 3))  # [rows, H_kv, H / H_kv, positions]
        if cap is not None:
            scores = torch.tanh(scores / cap) * cap
        scores = scores + bias.to(q.dtype)
        if shared:
            shared_keys, shared_values = self.cache.prefix[layer]
            by_head = queries.transpose(0, 1).flatten(1, 2)  # [H_kv, rows * H / H_kv, D]: one product for all rows
            shared_scores = torch.matmul(by_head, shared_keys.transpose(1, 2)).view(len(by_head), rows, -1, shared)
            shared_scores = shared_scores.transpose(0, 1)  # [rows, H_kv, H / H_kv, shared]
            if cap is not None:
                shared_scores = torch.tanh(shared_scores / cap) * cap
            if shared_bias is not None:
                shared_scores = shared_scores + shared_bias.to(q.dtype)
            scores = torch.cat([shared_scores, scores], dim=3)  # [rows, H_kv, H / H_kv, shared + positions]
        sinks = None if softmax.sinks is None else softmax.sinks.view(k.shape[1], -1, 1)  # [H_kv, H / H_kv, 1]
        probs = softmax.of(scores, sinks).to(q.dtype)  # in fp32, as the models' own code has it
        # the slices leave out the last column, which is the sink's
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
            cached[: self.rows].copy_(new)  # onto itself, if the layer changed its state in place
        return output
