"""Sample the next token of each row, from a uniform random number that belongs to this row only."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from r1kit.types import SamplingParams

BLOCK = 256  # tokens per block: the inverse-CDF search picks a block of the vocabulary, then a token inside it


def uniforms(seed: int, name: str, count: int) -> Tensor:
    """[count] float64 in [0, 1), which depend on the seed and the row's name alone: not on the rest of the batch.

    Philox is a counter-based generator, so each key (a hash of both) has a stream of its own on every machine.
    """
    key = int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest(), "little")
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=key)).random(count))


def sample(logits: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, ...]:
    """Next tokens [B] and their log-probs [B] from logits [B, V] in fp32 and uniform numbers [B].

    Log-probs are those of the full distribution at the sampling temperature (1 for greedy), before top-k and top-p.
    With `params.sampling_mask` they are those of the distribution after both, and a third tensor [B, V / 8] of uint8
    has a bit for each id, set if top-k and top-p kept it.

    Divides `logits` by the temperature in place. A row whose logits are NaN or infinite gets the log-prob NaN: to raise
    an error here, the host would have to read it, and a GPU would wait for that at each token.
    """
    assert logits.shape[0] == uniform.shape[0], f"{logits.shape[0]} rows but {uniform.shape[0]} uniform numbers"
    if params.temperature not in (0.0, 1.0):
        logits = logits.div_(params.temperature)
    probs = logits.softmax(dim=-1)  # [B, V], the one pass over the vocabulary that costs; NaN throughout a bad row
    if params.temperature == 0.0:
        tokens = logits.argmax(dim=-1)
    elif params.top_k == 0 and params.top_p == 1.0:
        tokens = _draw(probs, uniform)
    else:
        tokens, likeliest_ids, is_kept = _draw_truncated(probs, uniform, params)
    logprobs = probs.gather(1, tokens[:, None])[:, 0].log()
    if not params.sampling_mask:
        return tokens, logprobs
    mask = torch.ones_like(probs, dtype=torch.bool)  # [B, V]
    if params.temperature and (params.top_k or params.top_p < 1.0):
        mask = mask.zero_().scatter_(1, likeliest_ids, is_kept)
        # divided by the mass that was kept; in fp64, as a sum over the vocabulary
        logprobs = logprobs - (probs * mask).sum(dim=-1, dtype=torch.float64).log().float()
    return tokens, logprobs, _packed_bits(mask)


def sample_rows(logits: Tensor, uniform: Tensor, params: Sequence[SamplingParams], top: int) -> tuple[Tensor, ...]:
    """`sample` for rows that may differ in temperature, top-k and top-p; rows of equal settings are sampled together.

    With `top`, also the log-probs [B, top] and ids [B, top] of the likeliest tokens of each row. If any row asks for a
    sampling mask, all get one, last.
    """
    groups: dict[tuple[float, float, int, bool], list[int]] = {}
    for row, own in enumerate(params):
        groups.setdefault((own.temperature, own.top_p, own.top_k, own.sampling_mask), []).append(row)
    if len(groups) == 1:  # nothing is copied
        tokens, logprobs, *mask = sample(logits, uniform, params[0])
        return (tokens, logprobs, *(likeliest(logits, top) if top else ()), *mask)
    parts = []
    for rows in groups.values():
        index = torch.tensor(rows, device=logits.device)
        own_params = [params[row] for row in rows]
        part = sample_rows(logits[index], uniform[index], own_params, top)
        if any(each.sampling_mask for each in params) and not own_params[0].sampling_mask:
            part = (*part, torch.zeros(len(rows), -(-logits.shape[1] // 8), dtype=torch.uint8, device=logits.device))
        parts.append(part)
    order = torch.tensor([row for rows in groups.values() for row in rows], device=logits.device).argsort()
    return tuple(torch.cat(pieces)[order] for pieces in zip(*parts, strict=True))


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probs and ids [B, count] of the likeliest tokens, the likeliest first, from logits [B, V]."""
    top = logits.log_softmax(dim=-1).topk(min(count, logits.shape[1]), dim=-1)
    return top.values, top.indices


def _draw(probs: Tensor, uniform: Tensor) -> Tensor:
    """Tokens [B]: the first token at which the cumulative sum of `probs` [B, V] exceeds uniform * total.

    The sum runs over blocks first and then inside one block of each row, so no fp64 tensor is as large as [B, V].
    """
    rows, vocabulary = probs.shape
    num_blocks = -(-vocabulary // BLOCK)
    if num_blocks * BLOCK != vocabulary:
        probs = torch.nn.functional.pad(probs, (0, num_blocks * BLOCK - vocabulary))
    blocks = probs.view(rows, num_blocks, BLOCK)
    # summed in fp64 over the blocks: in fp32, rounding over a large vocabulary would exceed small probabilities
    ends = blocks.sum(dim=2).double().cumsum(dim=1)  # [B, blocks]
    aim = uniform[:, None] * ends[:, -1:]  # [B, 1]
    block = torch.searchsorted(ends, aim, right=True).clamp(max=num_blocks - 1)  # [B, 1]
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)  # [B, 1], mass of earlier blocks
    inside = blocks[torch.arange(rows, device=probs.device), block[:, 0]].double().cumsum(dim=1)  # [B, BLOCK]
    place = torch.searchsorted(inside, aim - before, right=True)[:, 0]  # [B]
    # rounding can put the aim past the end of its block: then take the block's last token with nonzero probability
    last = BLOCK - 1 - (inside.diff(dim=1, prepend=inside.new_zeros(rows, 1)) > 0).flip(1).int().argmax(dim=1)
    token = block[:, 0] * BLOCK + torch.minimum(place, last)
    return token.clamp(max=vocabulary - 1)  # only NaN leads into the padding


def _packed_bits(bits: Tensor) -> Tensor:
    """Booleans [B, V] as uint8 [B, V / 8], the first of eight in the lowest bit."""
    padded = torch.nn.functional.pad(bits, (0, -bits.shape[1] % 8)).view(len(bits), -1, 8)
    weights = torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=bits.device)
    return (padded * weights).sum(dim=-1, dtype=torch.uint8)


def ids_of(bits: NDArray[np.uint8]) -> array[int]:
    """The ids, ascending, whose bits are set in a row [V / 8] of a sampling mask."""
    return array("i", np.unpackbits(bits, bitorder="little").nonzero()[0].astype(np.int32).tobytes())


def _draw_truncated(probs: Tensor, uniform: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [B] after top-k, then top-p among these (the fewest tokens whose mass reaches top_p), as in vLLM.

    Also the ids [B, width] of the likeliest tokens, and whether each was kept.
    """
    vocabulary = probs.shape[1]
    width = min(params.top_k or 1024, vocabulary)
    top, index = probs.topk(width, dim=-1)  # [B, width] each, largest first
    # 1024 tokens nearly always hold top_p of the mass, and a full sort is slow; but a GPU sorts in any case, because to
    # look at the mass the host would have to wait for it
    if params.top_p < 1.0 and not params.top_k and (probs.is_cuda or bool((top.sum(-1) < params.top_p).any())):
        top, index = probs.sort(dim=-1, descending=True)
    mass = top.double() / top.double().sum(dim=-1, keepdim=True) if params.top_k else top.double()
    cumulative = mass.cumsum(dim=-1)  # [B, width], in fp64
    # a token stays if the mass before it is below top_p, so the first one always stays
    kept = mass.masked_fill(cumulative - mass >= params.top_p, 0.0)
    ends = kept.cumsum(dim=-1)
    place = torch.searchsorted(ends, uniform[:, None] * ends[:, -1:], right=True)  # [B, 1]
    # [B, 1]; rounding must not pick a token beyond it (of NaN, no token is kept)
    last = ((kept > 0).sum(dim=-1, keepdim=True) - 1).clamp(min=0)
    return index.gather(1, torch.minimum(place, last))[:, 0], index, kept > 0
