"""Drawing the next token of every row at once, from a uniform number that belongs to the row alone."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from r1kit.types import SamplingParams

BLOCK = 256  # inverse-CDF search in two levels: blocks of the vocabulary, then inside one block


def uniforms(seed: int, name: str, count: int) -> Tensor:
    """[count] float64 in [0, 1) that depend on the seed and the row's name only, not on what else is in the batch."""
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest(), "little")
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=key)).random(count))


def sample(logits: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Next tokens [B] and their log-probs [B] from logits [B, V] in fp32 and uniform numbers [B].

    The log-prob is that of the whole distribution at the sampling temperature (1 for greedy), before top-k and top-p.
    `logits` may be overwritten. Raises FloatingPointError for logits that are no distribution: no token can be drawn.
    """
    if params.temperature not in (0.0, 1.0):
        logits = logits.div_(params.temperature)
    normaliser = logits.logsumexp(dim=-1)
    if not bool(normaliser.isfinite().all()):
        raise FloatingPointError("the model's logits are NaN or infinite: its weights are damaged or training diverged")
    if params.temperature == 0.0:
        tokens = logits.argmax(dim=-1)
    elif params.top_k == 0 and params.top_p == 1.0:
        tokens = _draw((logits - normaliser[:, None]).exp_(), uniform)
    else:
        tokens = _draw_truncated((logits - normaliser[:, None]).exp_(), uniform, params)
    return tokens, logits.gather(1, tokens[:, None])[:, 0] - normaliser


def _draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative sum of [B, V] passes uniform * total."""
    rows, vocabulary = probs.shape
    blocks = -(-vocabulary // BLOCK)
    if blocks * BLOCK != vocabulary:
        probs = torch.nn.functional.pad(probs, (0, blocks * BLOCK - vocabulary))
    shaped = probs.view(rows, blocks, BLOCK)
    ends = shaped.sum(dim=2, dtype=torch.float64).cumsum(dim=1)  # [B, blocks]
    aim = uniform[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, aim, right=True).clamp(max=blocks - 1)  # [B, 1]
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = shaped[torch.arange(rows, device=probs.device), block[:, 0]].double().cumsum(dim=1)
    place = torch.searchsorted(inside, aim - before, right=True)[:, 0]
    # rounding can place the aim past the end of its block: stay on the block's last token that has any probability
    last = BLOCK - 1 - (inside.diff(dim=1, prepend=inside.new_zeros(rows, 1)) > 0).flip(1).int().argmax(dim=1)
    return block[:, 0] * BLOCK + torch.minimum(place, last)


def _draw_truncated(probs: Tensor, uniform: Tensor, params: SamplingParams) -> Tensor:
    """Top-k, then top-p among what is left (the smallest set of tokens whose mass reaches top_p), as vLLM orders
    them."""
    vocabulary = probs.shape[1]
    width = min(params.top_k or 1024, vocabulary)
    top, index = probs.topk(width, dim=-1)
    if params.top_p < 1.0 and not params.top_k and bool((top.sum(-1) < params.top_p).any()):
        top, index = probs.sort(dim=-1, descending=True)
    mass = top.double() / top.double().sum(dim=-1, keepdim=True) if params.top_k else top.double()
    cumulative = mass.cumsum(dim=-1)
    kept = mass.masked_fill(cumulative - mass >= params.top_p, 0.0)
    ends = kept.cumsum(dim=-1)
    place = torch.searchsorted(ends, uniform[:, None] * ends[:, -1:], right=True)
    last = (kept > 0).sum(dim=-1, keepdim=True) - 1
    return index.gather(1, torch.minimum(place, last))[:, 0]
