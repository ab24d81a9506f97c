"""A few samples as text with their loss mask, for people to check what is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from r1kit.types import Sample

SAMPLES = 4
HEAD, TAIL = 320, 120  # tokens shown of a long sample


def excerpt(samples: Sequence[Sample], tokenizer: Any, most: int = SAMPLES) -> list[dict[str, Any]]:
    """At most `most` samples spread evenly over the rows, each as pieces `[text, whether it is trained on]`.

    A piece is a token, or the few tokens that spell one character. `skipped` is None or [index of a piece, number of
    tokens left out before it].
    """
    count = min(most, len(samples))
    excerpts = []
    for sample in (samples[index * len(samples) // count] for index in range(count)):
        ids, mask = list(sample.token_ids), list(sample.loss_mask)
        if len(ids) <= HEAD + TAIL:
            pieces, skipped = _pieces(ids, mask, tokenizer), None
        else:
            head = _pieces(ids[:HEAD], mask[:HEAD], tokenizer)
            pieces = head + _pieces(ids[-TAIL:], mask[-TAIL:], tokenizer)
            skipped = [len(head), len(ids) - HEAD - TAIL]
        excerpts.append({"tokens": len(ids), "trained": sum(mask), "skipped": skipped, "pieces": pieces})
    return excerpts


def _pieces(ids: list[int], mask: list[bool], tokenizer: Any) -> list[list[Any]]:
    pieces: list[list[Any]] = []
    start = 0
    for stop in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[start:stop], skip_special_tokens=False)
        is_torn = text.endswith("\N{REPLACEMENT CHARACTER}") and stop - start < 4  # UTF-8 has at most four bytes
        if not is_torn or stop == len(ids) or mask[stop] != mask[start]:
            pieces.append([text, bool(mask[start])])
            start = stop
    return pieces
