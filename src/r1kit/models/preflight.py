"""Which path a model takes: short forward passes decide, not a list of names.

Architectures with recurrent or convolutional layers run without complaint on a packed row and let sequences leak into
each other; position biases and logit scalings that r1kit does not know would be silently ignored. A comparison of
numbers finds all of them, and those of architectures to come. Such a model takes the plain path, if its own code gives
each sequence the same numbers alone, in a batch and token by token.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from r1kit.models import attention, plain
from r1kit.models.head import Head
from r1kit.models.known import ModelError, first_line
from r1kit.models.packed import PackedLayout, Span
from r1kit.models.plain import PlainCache, PlainPath
from r1kit.models.policy_net import hidden_states

PROMPT, COMPLETIONS = 3, (4, 2)  # tokens: a prompt shared by two completions, of which one is padded
# of the plain path's rows: longer than most convolutions, and a remainder that is shorter than they are
PROMPT_OF_ROWS, SHORTER, STEPS = 5, 3, 3
TOLERANCE = 1e-3  # of the logits' spread: float32 stays far below, a sequence that sees another far above
FAILURES = (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError, NotImplementedError)


def choose_path(model: Any, name: str) -> None:
    """Set the model's path: packed rows if they compute what the model's own code computes, otherwise the plain path.

    Raises `ModelError` if the model's own code does not give a sequence the same numbers in each of its passes.
    """
    model.eval()
    with torch.no_grad():
        reason = packed_obstacle(model)
        model.plain_path = None if not reason else checked_plain_path(model, name, reason)


def packed_obstacle(model: Any) -> str:
    """Why packed rows do not compute what the model's own code computes; empty if they do.

    Leaves the model with r1kit's attention if they do, and otherwise with its own.
    """
    own = model.config._attn_implementation
    window = window_of(model)
    if window:
        return f"its sliding window of {window} tokens is shorter than its context"
    if not model._can_set_attn_implementation():
        return "its attention cannot be replaced"
    tokens, rows = _sequences(model)
    try:
        model.set_attn_implementation("eager")  # the model's own code, each sequence by itself
        alone = torch.cat([_own_logits(model, row)[PROMPT:] for row in rows])
        model.set_attn_implementation(attention.NAME)
        layout = PackedLayout([Span(PROMPT, COMPLETIONS)], model.device)
        packed = _logits(model, hidden_states(model, tokens[None], layout)[PROMPT:])
        reason = _difference(packed, alone)
    except FAILURES as error:
        reason = first_line(error)
    if reason:
        model.set_attn_implementation(own)
    return reason


def window_of(model: Any) -> int | None:
    """The sliding window of a model's attention, if it is shorter than the longest sequence."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return window if window and slides and window < getattr(config, "max_position_embeddings", 1 << 20) else None


def _sequences(model: Any) -> tuple[Tensor, list[Tensor]]:
    """A packed row [T] of a prompt and its completions, and each completion with its prompt."""
    # different ids at all positions; 7 is prime, so they do not repeat soon in any vocabulary
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(PROMPT + sum(COMPLETIONS), device=model.device) * 7 % vocabulary  # [T]
    prompt, *completions = tokens.split([PROMPT, *COMPLETIONS])
    return tokens, [torch.cat([prompt, completion]) for completion in completions]


def _logits(model: Any, states: Tensor) -> Tensor:
    """[n, d] -> [n, V]; of a classifier the states themselves, since its scores read one token each."""
    return states.float() if model.get_output_embeddings() is None else Head.of(model).logits(states)


def _own_logits(model: Any, row: Tensor) -> Tensor:
    """Logits [L, V] of one sequence [L] with the model's own code, its own head included."""
    if model.get_output_embeddings() is None:
        return model.base_model(row[None]).last_hidden_state[0].float()  # type: ignore[no-any-return]
    return model(row[None]).logits[0].float()  # type: ignore[no-any-return]


def _difference(logits: Tensor, alone: Tensor) -> str:
    """How far logits are from those of the sequences alone; empty if they are equal."""
    spread, gap = float(alone.std()), float((logits - alone).abs().max())
    equal = gap <= TOLERANCE * spread  # NaN is a difference too
    return "" if equal else f"logits differ by {gap:.2g}, their spread is {spread:.2g}"


def checked_plain_path(model: Any, name: str, reason: str) -> PlainPath:
    """The plain path of a model whose own passes agree with each other; raises `ModelError` if they do not."""
    refused = f"{name}: {model.config.model_type} runs neither on packed rows ({reason}) nor with its own code"
    row = _rows(model, pads=False)[0]
    try:
        states = plain.forward(model, {"input_ids": row[None], "use_cache": False})[0][0]  # [L, d]
        difference = _difference(_logits(model, states), _own_logits(model, row))
    except FAILURES as error:
        difference = first_line(error)
    if difference:
        raise ModelError(f"{refused} (its head is not computed as r1kit computes one: {difference})")
    (pads_right,) = _first_without(difference_in_batch, model, 1, f"{refused} (a batch differs from its rows alone:")
    if model.get_output_embeddings() is None:
        return PlainPath(reason, pads_right)  # a classifier generates nothing
    how = _first_without(difference_in_generation, model, 3, f"{refused} (token by token it differs from one pass:")
    return PlainPath(reason, pads_right, *how)


def _first_without(difference: Callable[..., str], model: Any, options: int, refused: str) -> tuple[bool, ...]:
    """The first of all combinations of options, True before False, for which a check finds no difference."""
    for combination in product((True, False), repeat=options):
        try:
            reason = difference(model, *combination)
        except FAILURES as error:
            reason = first_line(error)
        if not reason:
            return combination
    raise ModelError(f"{refused} {reason})")


def _rows(model: Any, pads: bool) -> list[Tensor]:
    """Three sequences, of which the first two share a prompt; with `pads`, the third one is shorter."""
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(2 * PROMPT_OF_ROWS + 3 * STEPS, device=model.device) * 7 % vocabulary
    prompt, other, *ends = tokens.split([PROMPT_OF_ROWS] * 2 + [STEPS] * 3)
    prompts = [prompt, prompt, other[SHORTER:] if pads else other]
    return [torch.cat(pair) for pair in zip(prompts, ends, strict=True)]


def difference_in_batch(model: Any, pads: bool) -> str:
    """How far a batch of the model's own training passes is from the passes of its rows alone."""
    rows = _rows(model, pads)
    states = plain.forward(model, {"input_ids": pad_sequence(rows, batch_first=True), "use_cache": False})[0]
    together = torch.cat([own[: len(row)] for own, row in zip(states, rows, strict=True)])
    return _difference(_logits(model, together), torch.cat([_own_logits(model, row) for row in rows]))


def difference_in_generation(model: Any, pads: bool, forks: bool, positions: bool) -> str:
    """How far tokens that continue a batch of prompts one by one are from whole passes over the rows alone."""
    rows = _rows(model, pads)
    prompts = [row[:-STEPS].tolist() for row in rows]
    cache = PlainCache(model, prompts[1:] if forks else prompts, positions)
    if forks:
        cache.select(torch.tensor([0, 0, 1], device=model.device))
    ends = torch.stack([row[-STEPS:] for row in rows], dim=1)  # [STEPS, rows]
    states = torch.stack([cache.states, *(cache.step(tokens) for tokens in ends)], dim=1)  # [rows, 1 + STEPS, d]
    alone = torch.cat([_own_logits(model, row)[-1 - STEPS :] for row in rows])
    return _difference(_logits(model, states.flatten(0, 1)), alone)
