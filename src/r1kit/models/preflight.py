"""Whether r1kit's attention computes what a model's own code computes: short forward passes, not a list of names.

Architectures with recurrent or convolutional layers run without complaint on a packed row and let sequences leak into
each other; position biases and logit scalings that r1kit does not know would be silently ignored. A comparison of
numbers finds all of them, and those of architectures to come.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from r1kit.models import attention
from r1kit.models.head import Head
from r1kit.models.known import ModelError
from r1kit.models.packed import PackedLayout, Span

PROMPT, COMPLETIONS = 3, (4, 2)
TOLERANCE = 1e-3  # of the logits' spread: float32 stays far below, a sequence that sees another far above


def check_attention(model: Any, name: str) -> None:
    """Compare a packed row with plain passes over each of its sequences; raises `ModelError` where they differ."""
    tokens = torch.arange(PROMPT + sum(COMPLETIONS), device=model.device) * 7 % model.config.vocab_size
    prompt, *completions = tokens.split([PROMPT, *COMPLETIONS])
    kind = model.config.model_type
    try:
        with torch.no_grad():
            packed = _packed(model.eval(), tokens).split(COMPLETIONS)
            model.set_attn_implementation("eager")
            plain = [_plain(model, torch.cat([prompt, own])) for own in completions]
            model.set_attn_implementation(attention.NAME)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name}: r1kit's attention does not run on {kind} ({error}): use another model") from error
    spread = float(torch.cat(plain).std())
    gap = max(float((ours - theirs).abs().max()) for ours, theirs in zip(packed, plain, strict=True))
    if not gap <= TOLERANCE * spread:
        raise ModelError(
            f"{name}: r1kit's attention does not compute what {kind} computes (logits differ by {gap:.2g}, "
            f"their spread is {spread:.2g}): use a model with plain softmax attention, such as Llama or Qwen3"
        )


def _plain(model: Any, tokens: Tensor) -> Tensor:
    """Logits [completion, V] of one sequence from the model's own code; hidden states for a classifier."""
    if model.get_output_embeddings() is None:
        return model.base_model(tokens[None]).last_hidden_state[0, PROMPT:].float()  # type: ignore[no-any-return]
    return model(tokens[None]).logits[0, PROMPT:].float()  # type: ignore[no-any-return]


def _packed(model: Any, tokens: Tensor) -> Tensor:
    """The same for the completions' tokens [sum of COMPLETIONS, V] of a packed row."""
    layout = PackedLayout([Span(PROMPT, COMPLETIONS)], model.device)
    output = model.base_model(
        input_ids=tokens[None], position_ids=layout.position_ids[None], layout=layout, use_cache=False
    )
    hidden: Tensor = output.last_hidden_state[0, PROMPT:]
    return hidden.float() if model.get_output_embeddings() is None else Head.of(model).logits(hidden)
