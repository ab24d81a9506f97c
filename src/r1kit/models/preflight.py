"""Which path a model takes: short forward passes decide, not a list of names.

Some layers run without complaint on a packed row and let sequences leak into each other; position biases and logit
scalings that r1kit does not know would be silently ignored. A comparison of numbers finds all of them, and those of
architectures to come: packed rows, and tokens that continue cached prompts, against the model's own passes over each
sequence by itself. A model that differs takes the plain path, if its own code gives each sequence the same numbers
alone, in a batch and token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, pairwise, product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from r1kit.models import attention, plain
from r1kit.models.attention import forward_layout
from r1kit.models.cached import DecodeLayout, KVCache, PrefillLayout
from r1kit.models.compute import FUSES, computing, packed_weights, packing_pays
from r1kit.models.fused_layer import FusedLayer, has_form
from r1kit.models.head import Head
from r1kit.models.known import ModelError, first_line
from r1kit.models.packed import PackedLayout, Span
from r1kit.models.plain import PlainCache, PlainPath, plain_path
from r1kit.models.policy_net import hidden_states
from r1kit.models.recurrent import fork_states

# tokens: prompts that begin with the same two, and completions of each; most sequences are longer than a convolution
SHARED, PROMPTS, COMPLETIONS = 2, (6, 4), ((6, 3), (5,))
CACHED_STEPS = 2
WINDOW = 4  # every longer window is this long during the check: sequences as long as a real one would take minutes
# of the plain path's rows: longer than most convolutions, and a remainder that is shorter than they are
PROMPT_OF_ROWS, SHORTER, STEPS = 5, 3, 3
# of the logits' spread: fp32 stays below 4e-5 (24 layers of gated delta net), a leak is a thousand times as large, and
# about one thousandth in weights that nothing has trained
TOLERANCE = 2e-4
OWN_TOLERANCE = 1e-3  # between a model's own passes: it is refused above
FAILURES = (AttributeError, KeyError, TypeError, ValueError, RuntimeError, IndexError, NotImplementedError)


def choose_path(model: Any, name: str) -> None:
    """Set the model's path: packed rows if they compute what the model's own code computes, otherwise the plain path.

    Raises `ModelError` if the model's own code does not give a sequence the same numbers in each of its passes.
    """
    model.eval()
    model.plain_path = None  # of an earlier check: `hidden_states` would follow it
    with torch.no_grad():
        reason = packed_obstacle(model)
        if reason:
            model.plain_path = checked_plain_path(model, name, reason)
        setattr(model, FUSES, not reason and packing_pays(model) and fuses_layers(model))


def packed_obstacle(model: Any) -> str:
    """Why packed rows do not compute what the model's own code computes; empty if they do.

    Leaves the model with r1kit's attention and with states that follow the layout if they do, otherwise with its own.
    """
    own_attention = model.config._attn_implementation
    if not model._can_set_attn_implementation():
        return "its attention cannot be replaced"
    prompts, completions = _groups(model)
    rows = [torch.cat([prompt, own]) for prompt, owns in zip(prompts, completions, strict=True) for own in owns]
    sizes = [len(own) for owns in completions for own in owns]
    stateful: list[nn.Module] = []
    with _short_windows(model):
        try:
            model.set_attn_implementation("eager")  # the model's own code, each sequence by itself
            alone = [_own_logits(model, row)[-size - 1 :] for row, size in zip(rows, sizes, strict=True)]
            model.set_attn_implementation(attention.NAME)
            stateful = fork_states(model)
            layout = PackedLayout([Span(len(p), tuple(map(len, c))) for p, c in zip(prompts, completions, strict=True)])
            flat = torch.cat([*prompts, *(own for owns in completions for own in owns)])  # [T]
            packed = _logits(model, hidden_states(model, flat[None], layout)[sum(map(len, prompts)) :])
            reason = _difference(packed, torch.cat([logits[1:] for logits in alone]), TOLERANCE)
            if not reason and model.get_output_embeddings() is not None:  # a classifier generates nothing
                logits = _cached_logits(model, prompts, completions)  # [1 + CACHED_STEPS, rows, V]
                reason = _difference(logits, torch.stack([own[: 1 + CACHED_STEPS] for own in alone], dim=1), TOLERANCE)
        except FAILURES as error:
            reason = f"its code does not run on packed rows ({first_line(error)})"
    if reason:
        model.set_attn_implementation(own_attention)
        for layer in stateful:
            del layer.forward
    return reason


def fuses_layers(model: Any) -> bool:
    """Whether a model has layers of Llama's form, and all of them add what `FusedLayer` adds for a packed row."""
    layers: list[Any] = [module for module in model.modules() if has_form(module)]
    differences: list[str] = []

    def compared(layer: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = type(layer).forward(layer, hidden, *args, **kwargs)
        try:  # one layer's packs at a time: those of all may not fit into memory
            fused = FusedLayer(layer, torch.float32).forward(hidden, *args, **kwargs)
            differences.append(_difference(fused - hidden, output - hidden, TOLERANCE))
        except FAILURES as error:
            differences.append(first_line(error))
        return output

    prompts, completions = _groups(model)
    layout = PackedLayout([Span(len(p), tuple(map(len, c))) for p, c in zip(prompts, completions, strict=True)])
    row = torch.cat([*prompts, *(own for owns in completions for own in owns)])  # [T]
    # the second half at the end of the context: there, a layer may scale its queries (Ministral 3)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    layout.position_ids[len(row) // 2 :] += max(0, context - len(row))
    try:
        for layer in layers:
            layer.forward = partial(compared, layer)
        with _short_windows(model):
            hidden_states(model, row[None], layout)
    finally:
        for layer in layers:
            del layer.forward
    return len(differences) == len(layers) > 0 and not any(differences)


def bf16_obstacle(model: Any) -> str:
    """Why a model does not run while its linear layers give bf16 to layers in fp32, on a CPU; empty if it does.

    Autocast would cast the operands of other products too; r1kit's packed weights do not (models/compute.py).
    """
    prompts, completions = _groups(model)
    path, row = plain_path(model), torch.cat([prompts[0], completions[0][0]])
    try:
        with packed_weights(model, training=True):  # with a graph, as in training
            _logits(model, hidden_states(model, row[None], PackedLayout([Span(0, (len(row),))])))
        if model.get_output_embeddings() is None:
            return ""
        with torch.no_grad(), computing(model):
            if path is None:
                _cached_logits(model, prompts, completions)
            else:
                PlainCache(model, [prompts[0].tolist()], path.caches).step(completions[0][0][:1])
    except FAILURES as error:
        return first_line(error)
    return ""


def _groups(model: Any) -> tuple[list[Tensor], list[tuple[Tensor, ...]]]:
    """Prompts of the check and the completions of each."""
    # different ids at all positions; 7 is prime, so they do not repeat soon in any vocabulary
    count = sum(PROMPTS) + sum(map(sum, COMPLETIONS))
    tokens = torch.arange(count, device=model.device) * 7 % model.config.get_text_config().vocab_size
    prompts = list(tokens[: sum(PROMPTS)].split(PROMPTS))
    for prompt in prompts[1:]:
        prompt[:SHARED] = prompts[0][:SHARED]
    parts = tokens[sum(PROMPTS) :].split([sum(lengths) for lengths in COMPLETIONS])
    return prompts, [part.split(lengths) for part, lengths in zip(parts, COMPLETIONS, strict=True)]


def _cached_logits(model: Any, prompts: list[Tensor], completions: list[tuple[Tensor, ...]]) -> Tensor:
    """Logits [1 + CACHED_STEPS, rows, V] after each prompt, and after each of the first tokens of its completions."""
    rows = sum(map(len, completions))
    cache = KVCache(rows, SHARED)
    stops = [0, *accumulate(map(len, completions))]
    slots = [range(start, stop) for start, stop in pairwise(stops)]
    layout = PrefillLayout(cache, [len(prompt) - SHARED for prompt in prompts], slots, model.device)
    flat = torch.cat([prompts[0][:SHARED], *(prompt[SHARED:] for prompt in prompts)])  # [T]
    ends = torch.tensor([len(prompt) - SHARED for prompt in prompts]).cumsum(0) + SHARED - 1
    hidden = forward_layout(model, flat[None], layout.position_ids[None], layout)[0, ends]  # [prompts, d]
    states = [hidden.repeat_interleave(torch.tensor([len(owns) for owns in completions]), dim=0)]  # [rows, d]
    for step in range(CACHED_STEPS):
        decode = DecodeLayout(cache, cache.reserve(rows, 1, model.device))
        tokens = torch.stack([own[step] for owns in completions for own in owns])
        states.append(forward_layout(model, tokens[:, None], decode.position_ids, decode)[:, 0])
    return _logits(model, torch.stack(states))


@contextmanager
def _short_windows(model: Any) -> Iterator[None]:
    """A block in which every layer with a window sees at most `WINDOW` tokens."""
    places = [model.config, model.config.get_text_config(), *model.modules()]
    windows = [
        (place, name, getattr(place, name))
        for place in places
        for name in ("sliding_window", "attention_chunk_size", "keep_window_size")
        if isinstance(vars(place).get(name), int) and getattr(place, name) > WINDOW
    ]
    try:
        for place, name, _ in windows:
            setattr(place, name, WINDOW)
        yield
    finally:
        for place, name, window in windows:
            setattr(place, name, window)


def _logits(model: Any, states: Tensor) -> Tensor:
    """[n, d] -> [n, V]; of a classifier the states themselves, since its scores read one token each."""
    return states.float() if model.get_output_embeddings() is None else Head.of(model).logits(states)


def _own_logits(model: Any, row: Tensor) -> Tensor:
    """Logits [L, V] of one sequence [L] with the model's own code, its own head included."""
    if model.get_output_embeddings() is None:
        return model.base_model(row[None]).last_hidden_state[0].float()  # type: ignore[no-any-return]
    return model(row[None]).logits[0].float()  # type: ignore[no-any-return]


def _difference(logits: Tensor, alone: Tensor, tolerance: float) -> str:
    """How far logits are from those of the sequences alone; empty if they are equal."""
    spread, gap = float(alone.std()), float((logits - alone).abs().max())
    equal = gap <= tolerance * spread  # NaN is a difference too
    return "" if equal else f"logits differ by {gap:.2g}, their spread is {spread:.2g}"


def checked_plain_path(model: Any, name: str, reason: str) -> PlainPath:
    """The plain path of a model whose own passes agree with each other; raises `ModelError` if they do not."""
    refused = f"{name}: {model.config.model_type} runs neither on packed rows ({reason}) nor with its own code"
    row = _test_rows(model, pads=False)[0]
    with _short_windows(model):
        try:
            states = plain.forward(model, {"input_ids": row[None], "use_cache": False})[0][0]  # [L, d]
            difference = _difference(_logits(model, states), _own_logits(model, row), OWN_TOLERANCE)
        except FAILURES as error:
            difference = first_line(error)
        if difference:
            raise ModelError(f"{refused} (its head is not computed as r1kit computes one: {difference})")
        (pads_right,) = _first_without(
            difference_in_batch, model, 1, f"{refused} (a batch differs from its rows alone:"
        )
        if model.get_output_embeddings() is None:
            return PlainPath(reason, pads_right)  # a classifier generates nothing
        unlike = f"{refused} (token by token it differs from one pass:"
        caches, pads_left, forks = _first_without(difference_in_generation, model, 3, unlike)
    return PlainPath(reason, pads_right, pads_left, forks, caches)


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


def _test_rows(model: Any, pads: bool) -> list[Tensor]:
    """Three sequences, of which the first two share a prompt; with `pads`, the third one is shorter."""
    vocabulary = model.config.get_text_config().vocab_size
    tokens = torch.arange(1, 1 + 2 * PROMPT_OF_ROWS + 3 * STEPS, device=model.device) * 7 % vocabulary
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)  # CodeGen's and RWKV's have none
    if pad is not None and 0 <= pad < vocabulary:
        tokens[2 * PROMPT_OF_ROWS + 1] = pad  # a sampled one: some encoders count no position for it
    prompt, other, *ends = tokens.split([PROMPT_OF_ROWS] * 2 + [STEPS] * 3)
    for token in (prompt[1:3], *(own[-1:] for own in ends)):
        token[:] = prompt[0]  # equal tokens tie in a layer that keeps the keys of highest score (Doge)
    prompts = [prompt, prompt, other[SHORTER:] if pads else other]
    return [torch.cat(pair) for pair in zip(prompts, ends, strict=True)]


def difference_in_batch(model: Any, pads: bool) -> str:
    """How far a batch of the model's own training passes is from the passes of its rows alone."""
    rows = _test_rows(model, pads)
    states = plain.forward(model, {"input_ids": pad_sequence(rows, batch_first=True), "use_cache": False})[0]
    together = torch.cat([own[: len(row)] for own, row in zip(states, rows, strict=True)])
    return _difference(_logits(model, together), torch.cat([_own_logits(model, row) for row in rows]), OWN_TOLERANCE)


def difference_in_generation(model: Any, caches: bool, pads: bool, forks: bool) -> str:
    """How far tokens that continue a batch of prompts one by one are from whole passes over the rows alone."""
    rows = _test_rows(model, pads)
    prompts = [row[:-STEPS].tolist() for row in rows]
    cache = PlainCache(model, prompts[1:] if forks else prompts, caches)
    if forks:
        cache.select(torch.tensor([0, 0, 1], device=model.device))
    ends = torch.stack([row[-STEPS:] for row in rows], dim=1)  # [STEPS, rows]
    states = torch.stack([cache.states, *(cache.step(tokens) for tokens in ends)], dim=1)  # [rows, 1 + STEPS, d]
    alone = torch.cat([_own_logits(model, row)[-1 - STEPS :] for row in rows])
    return _difference(_logits(model, states.flatten(0, 1)), alone, OWN_TOLERANCE)
