"""Layers with a state (gated delta nets, Mamba-2, short convolutions): completions start from their prompt's state.

On a flat row such a layer would carry its state from one sequence into the next. So the layout cuts the row into
sequences and runs them in batches: first the prompts, then the completions, each from a copy of its prompt's last
state. The copy is in the autograd graph. The arithmetic is the layer's own code, with fast kernels if they are
installed: it reads its first state from the cache that it is called with and leaves its last state there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

READS = {"get_conv_state", "get_recurrent_state"}  # methods of transformers' cache that only such layers call
CACHES = ("cache_params", "past_key_values")  # a layer's keyword for its cache


class State:
    """One layer's states of N sequences, with those methods of transformers' cache that the layer calls.

    A layer may have several convolutions or recurrences; `state_idx` is their number.
    """

    def __init__(self, conv: dict[int, Tensor] | None = None, recurrent: dict[int, Tensor] | None = None) -> None:
        self.conv, self.recurrent = conv or {}, recurrent or {}  # [N, channels, kernel], [N, ...]

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        return self.conv.get(state_idx)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        return self.recurrent.get(state_idx)

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, conv_kernel_size: int | None = None
    ) -> Tensor:
        """Keep the last inputs of a convolution; returns the kept ones and the new ones [N, channels, kept + new]."""
        size = conv_kernel_size or conv_states.shape[2]
        kept = self.conv.get(state_idx)
        # nothing came before the first token: zeros
        inputs = F.pad(conv_states, (size, 0)) if kept is None else torch.cat([kept, conv_states], dim=2)
        self.conv[state_idx] = inputs[:, :, -size:]
        return inputs

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0) -> Tensor:
        self.recurrent[state_idx] = recurrent_states
        return recurrent_states

    def is_recording_past(self, layer_idx: int) -> bool:
        return False

    def copies(self, index: Tensor) -> State:
        """The states of the sequences [n] in `index`."""
        return self._map(lambda state: state.index_select(0, index))

    def first(self, rows: int) -> State:
        """Views of the first states: what the layer changes in place, it changes here."""
        return self._map(lambda state: state[:rows])

    def zeros(self, slots: int) -> State:
        """States of the same shapes for other sequences."""
        return self._map(lambda state: state.new_zeros(slots, *state.shape[1:]))

    def tensors(self) -> list[Tensor]:
        return [*self.conv.values(), *self.recurrent.values()]

    def _map(self, function: Callable[[Tensor], Tensor]) -> State:
        return State(*({number: function(x) for number, x in kind.items()} for kind in (self.conv, self.recurrent)))

    @staticmethod
    def join(states: Sequence[State]) -> State:
        """The states of all sequences, in order."""
        conv = {number: torch.cat([state.conv[number] for state in states]) for number in states[0].conv}
        recurrent = {number: torch.cat([state.recurrent[number] for state in states]) for number in states[0].recurrent}
        return State(conv, recurrent)


class SequenceBatch:
    """Sequences of a packed row that a layer runs as one batch, padded on the right with their last token.

    `numbers` are those of the sequences in the row, `starts` and `lengths` say where they are in it, and `least` is the
    smallest width of the batch.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        starts: Sequence[int],
        lengths: Sequence[int],
        device: torch.device,
        least: int = 1,
    ) -> None:
        width = max(least, *lengths)
        self.numbers, self.shape = tuple(numbers), (len(numbers), width)
        columns, last = torch.arange(width), torch.tensor(lengths)[:, None] - 1  # last: [N, 1]
        index = (torch.tensor(starts)[:, None] + torch.minimum(columns, last)).flatten()  # [N * width]
        real = (columns <= last).flatten().nonzero().flatten()  # [sum of lengths], places among the N * width
        self.places = index[real]  # [sum of lengths], places in the row
        self.index, self.real = index.to(device), None if len(real) == len(index) else real.to(device)

    def run(self, mixer: Mixer, flat: Tensor, state: State) -> Tensor:
        """The layer's output [sum of lengths, d] for these sequences of a row [T, d]."""
        hidden = flat.index_select(0, self.index).view(*self.shape, -1)  # [N, width, d]
        output = mixer.run(hidden, state).flatten(0, 1)  # [N * width, d]
        return output if self.real is None else output.index_select(0, self.real)


class Recurrent(Protocol):
    """Runs a layer with a state on the rows of one forward pass: hidden states [B, T, d] -> [B, T, d]."""

    def recur(self, mixer: Mixer, hidden: Tensor) -> Tensor: ...


class Mixer:
    """The forward pass of a layer with a state; with a layout, on its rows.

    An object: a deep copy of the layer then calls its own copy.
    """

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.cache = next(name for name in CACHES if name in inspect.signature(type(layer).forward).parameters)

    def __call__(self, hidden_states: Tensor, *args: Any, layout: Recurrent | None = None, **kwargs: Any) -> Any:
        if layout is None:
            return type(self.layer).forward(self.layer, hidden_states, *args, **kwargs)
        return layout.recur(self, hidden_states)

    def run(self, hidden: Tensor, state: State) -> Tensor:
        """[N, L, d] -> [N, L, d] from a state, which becomes the state after the L tokens."""
        return type(self.layer).forward(self.layer, hidden, **{self.cache: state})  # type: ignore[no-any-return]


def fork_states(model: nn.Module) -> list[nn.Module]:
    """Let the layers with a state follow the layout of a forward pass; returns them."""
    layers = []
    for layer in model.modules():
        forward = inspect.unwrap(type(layer).forward)  # beneath transformers' decorators
        if isinstance(forward, FunctionType) and READS & set(forward.__code__.co_names):
            layer.forward = Mixer(layer)
            layers.append(layer)
    return layers
