"""Whether r1kit's attention computes what a model's own code computes: short forward passes, not a list of names.

Architectures with recurrent or convolutional layers run without complaint on a packed row and let sequences leak into
each other; position biases and logit scalings that r1kit does not know would be silently ignored. A comparison of
numbers finds all of them, and those of architectures to come.
"""

from __future__ import annotations

from typing import Any

import torch

from r1kit.models import attention
from r1kit.models.head import Head
from r1kit.models.known import ModelError
from r1kit.models.packed import PackedLayout, Span
from r1kit.models.policy_net import hidden_states

PROMPT, COMPLETIONS = 3, (4, 2)  # tokens: a prompt shared by two completions, of which one is padded
TOLERANCE = 1e-3  # of the logits' spread: float32 stays far below, a sequence that sees another far above


def check_attention(model: Any, name: str) -> None:
    """Compare a packed row with plain passes over each of its sequences; raises `ModelError` where they differ."""
    # different ids at all positions; 7 is prime, so they do not repeat soon in any vocabulary
    tokens = torch.arange(PROMPT + sum(COMPLETIONS), device=model.device) * 7 % model.config.vocab_size  # [T]
    prompt, *completions = tokens.split([PROMPT, *COMPLETIONS])
    kind = model.config.model_type
    try:
        is_classifier = model.get_output_embeddings() is None
        with torch.no_grad():
            layout = PackedLayout([Span(PROMPT, COMPLETIONS)], model.device)
            hidden = hidden_states(model.eval(), tokens[None], layout)[PROMPT:]  # [sum of COMPLETIONS, d]
            packed = (hidden.float() if is_classifier else Head.of(model).logits(hidden)).split(COMPLETIONS)
            model.set_attn_implementation("eager")  # the model's own code, each sequence by itself
            rows = [torch.cat([prompt, own])[None] for own in completions]
            if is_classifier:  # its scores read one token each, so the hidden states are compared
                plain = [model.base_model(row).last_hidden_state[0, PROMPT:].float() for row in rows]
            else:
                plain = [model(row).logits[0, PROMPT:].float() for row in rows]  # [completion, V] each
            model.set_attn_implementation(attention.NAME)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name}: r1kit's attention does not run on {kind} ({error}): use another model") from error
    spread = float(torch.cat(plain).std())
    gap = max(float((ours - theirs).abs().max()) for ours, theirs in zip(packed, plain, strict=True))
    if not gap <= TOLERANCE * spread:  # negated, so NaN is a difference too
        raise ModelError(
            f"{name}: r1kit's attention does not compute what {kind} computes (logits differ by {gap:.2g}, "
            f"their spread is {spread:.2g}): use a model with plain softmax attention, such as Llama or Qwen3"
        )
