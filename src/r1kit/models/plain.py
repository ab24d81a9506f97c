"""The plain path: a model's own forward pass, attention and cache, for models that packed rows do not compute.

Each completion carries its own prompt, and rows are padded only if the model gives padded rows the numbers of rows
alone. Slower than packed rows, and right for every causal language model that passes the check in `preflight`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import Cache

from r1kit.models.packed import PackedLayout, bucket

PADDING_WASTE = 0.15  # padding may add this share of the real tokens to a pass


@dataclass(frozen=True)
class PlainPath:
    """Why a model runs on the plain path, and how its own code takes several sequences at once.

    Recurrent layers often leak padding into their states, and some caches cannot be copied from row to row.
    """

    reason: str
    pads_right: bool = True  # rows of a training pass may differ in length; otherwise only equal lengths go together
    pads_left: bool = True  # the same for prompts in generation
    forks: bool = True  # a prompt's cache can be copied to the completions of its group, and rows can be dropped
    caches: bool = True  # otherwise each new token is read with all tokens before it: a cached pass gives other numbers


def plain_path(model: Any) -> PlainPath | None:
    """The path that was chosen at load; None for packed rows."""
    return getattr(model, "plain_path", None)


def describe_path(model: Any) -> str:
    """One line for people about a model on the plain path; empty for packed rows."""
    path = plain_path(model)
    if path is None:
        return ""
    how = "padded rows" if path.pads_right and path.pads_left else "rows of equal length"
    cache = "cache" if path.caches else "no cache"
    cost = f"its own forward pass and {cache} with {how}, no shared prompts in training: slower"
    return f"{model.config.model_type} takes the plain path ({cost}): packed rows do not compute it, {path.reason}"


def hidden_states(model: Any, path: PlainPath, token_ids: Tensor, layout: PackedLayout) -> Tensor:
    """Hidden states [T, d] of a packed row [1, T], each of its sequences computed with its own copy of the prompt.

    A shared prompt's states are those of its first completion: the copies are equal, and so is the sum of gradients.
    """
    sequences = layout.sequences()  # of each completion: the places in the packed row of its prompt and itself
    samples_per_token = layout.samples_per_token
    states, places = list[Tensor](), list[np.ndarray[Any, Any]]()
    for indices in bucket([len(sequence) for sequence in sequences], PADDING_WASTE if path.pads_right else 0.0):
        rows = [sequences[index] for index in indices]
        ids = pad_sequence([token_ids[0, torch.from_numpy(row)] for row in rows], batch_first=True)  # [N, L]
        # for the router's balance: a padded token counts for no sample, and each copy of a prompt for one
        real = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]  # [N, L]
        layout.samples_per_token = real.flatten().to(ids.device, torch.float64)
        padded = forward(model, {"input_ids": ids, "use_cache": False})[0]  # [N, L, d]
        states += [padded[n, : len(row)] for n, row in enumerate(rows)]
        places += rows
    layout.samples_per_token = samples_per_token  # another model may take the row as it is packed
    # a prompt's places come once for each completion: the first copy's states are taken
    _, first = np.unique(np.concatenate(places), return_index=True)  # [T]
    return torch.cat(states)[torch.from_numpy(first).to(token_ids.device)]


def forward(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Any]:
    """The states [N, L, d] that the head reads, and the model's output without logits.

    Inputs that the model's class does not know are left out.
    """
    head = model.get_output_embeddings()
    called = model.base_model if head is None else model  # a classifier's own pass needs a pad token
    known = inspect.signature(called.forward).parameters
    inputs = {name: value for name, value in inputs.items() if name in known or "kwargs" in known}
    if head is None:
        output = called(**inputs)
        return output.last_hidden_state, output
    with _reading_input(head) as states:
        output = model(**inputs, return_dict=True)
    if len(states) != 1:
        raise ValueError(f"its forward pass calls the language-model head {len(states)} times, not once")
    return states[0], output


@contextmanager
def _reading_input(head: nn.Module) -> Iterator[list[Tensor]]:
    """A block in which the head keeps its input and returns no logits: [N, L, V] would be the largest tensor by far."""
    states: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        states.append(hidden)
        return hidden.new_zeros((*hidden.shape[:-1], 0))

    packed = head.__dict__.get("forward")  # inside `computing`
    head.forward = keep
    try:
        yield states
    finally:
        del head.forward
        if packed is not None:
            head.forward = packed


class PlainCache:
    """Rows that were prefilled together and continue token by token, with the cache that the model's own code makes.

    `states` [rows, d] are those of the newest tokens. Prompts of different lengths are padded on the left. Without a
    cache, each step is the pass over all tokens that training makes. With `whole`, `prompt_states` are those of all
    tokens of each prompt, [tokens, d].
    """

    def __init__(
        self, model: Any, prompts: Sequence[Sequence[int]], caches: bool = True, *, whole: bool = False
    ) -> None:
        self.model = model
        longest = max(map(len, prompts))
        ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        self.token_ids = torch.tensor(ids, device=model.device)  # [rows, L]
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        real = (torch.arange(longest, device=model.device) >= longest - lengths[:, None]).long()  # [rows, L]
        known = inspect.signature(model.forward).parameters
        self.inputs: dict[str, Any] = {"use_cache": caches}
        if caches and "position_ids" in known:
            self.inputs["position_ids"] = (real.cumsum(1) - 1).clamp(min=0)
        if "attention_mask" in known:  # without padding, attention is faster and as exact without a mask
            self.inputs["attention_mask"] = None if bool(real.all()) else real
        if "logits_to_keep" in known and not whole:
            self.inputs["logits_to_keep"] = 1
        states = self._forward(is_first_iteration=True)  # [rows, L or 1, d]
        self.states = states[:, -1]
        rows = zip(states, prompts, strict=True) if whole else ()
        self.prompt_states = [own[-len(prompt) :] for own, prompt in rows]

    def _forward(self, **options: Any) -> Tensor:
        inputs = self.model.prepare_inputs_for_generation(self.token_ids, **options, **self.inputs)
        states, output = forward(self.model, inputs)
        # of transformers' `generate`: it knows under which name each architecture returns and takes its cache
        self.inputs = self.model._update_model_kwargs_for_generation(output, self.inputs)
        return states

    @property
    def rows(self) -> int:
        return len(self.token_ids)

    @property
    def cache(self) -> Any:
        """The model's own cache; None if the model keeps none and reads all tokens again."""
        names = ("past_key_values", "cache_params", "state")
        return next((self.inputs[name] for name in names if self.inputs.get(name) is not None), None)

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token to each row; returns their states [rows, d]."""
        assert tokens.shape == self.token_ids.shape[:1], "one token for each row"
        self.token_ids = torch.cat([self.token_ids, tokens[:, None]], dim=1)
        self.states = self._forward(next_sequence_length=None if self.cache is None else 1)[:, -1]
        return self.states

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come several times. Raises ValueError if the cache cannot."""
        cache = self.cache
        if isinstance(cache, Cache):
            cache.reorder_cache(rows)  # type: ignore[arg-type]  # transformers asks for a LongTensor
        elif cache is not None:
            raise ValueError(f"rows of a {type(cache).__name__} cannot be copied")
        self.token_ids, self.states = self.token_ids[rows], self.states[rows]
        for name in ("position_ids", "attention_mask"):
            if self.inputs.get(name) is not None:
                self.inputs[name] = self.inputs[name][rows]
