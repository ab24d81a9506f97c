"""Training rows without padding: a prompt once, the completions of its group after it.

A row is a flat run of tokens: first all prompts, then all completions, group by group. Each prompt sees itself; each
completion sees its group's prompt and itself. Linear layers run on the flat row; only attention, per block, is
padded to
the longest member of the block, and as the padding stands to the right of everything real, the causal mask hides it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from r1kit.models.attention import sdpa


class Padding:
    """Moves the tokens of several sequences between the flat form [sum L, ...] and the padded form [N, max L, ...]."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths = list(lengths)
        self.shape = (len(lengths), max(lengths, default=0))
        self.dense = all(length == self.shape[1] for length in lengths)
        width = self.shape[1]
        flat = [row * width + t for row, length in enumerate(lengths) for t in range(length)]
        self.index = None if self.dense else torch.tensor(flat, device=device)

    def pad(self, flat: Tensor) -> Tensor:
        """[sum L, H, D] -> [N, H, max L, D], zeros where there is no token."""
        if self.index is not None:
            empty = flat.new_zeros((self.shape[0] * self.shape[1], *flat.shape[1:]))
            flat = empty.index_copy(0, self.index, flat)
        return flat.view(*self.shape, *flat.shape[1:]).transpose(1, 2)

    def unpad(self, padded: Tensor) -> Tensor:
        """[N, H, max L, D] -> [sum L, H, D]."""
        flat = padded.transpose(1, 2).reshape(-1, padded.shape[1], padded.shape[3])
        return flat if self.index is None else flat.index_select(0, self.index)


@dataclass(frozen=True)
class Span:
    """How long a group's prompt is, and each of its completions; a prompt of 0 means plain documents."""

    prompt: int
    completions: tuple[int, ...]


class PackedLayout:
    """Who sees whom in one packed row, for the groups in `spans`."""

    def __init__(self, spans: Sequence[Span], device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.spans = tuple(spans)
        self.prompts = [span.prompt for span in spans if span.prompt]
        self.sizes = [sum(self.prompts), *(sum(span.completions) for span in spans)]
        self.longest = max(span.prompt + max(span.completions, default=0) for span in spans)
        self.prompt_padding = Padding(self.prompts, device) if self.prompts else None
        self.paddings = [Padding(span.completions, device) for span in spans]
        self.masks = [
            self._mask(span.prompt, pad.shape[1], device) for span, pad in zip(spans, self.paddings, strict=True)
        ]
        starts = [range(span.prompt) for span in spans if span.prompt]
        owns = [range(span.prompt, span.prompt + length) for span in spans for length in span.completions]
        self.position_ids = torch.tensor([p for run in (*starts, *owns) for p in run], device=device)  # [T]

    @staticmethod
    def _mask(prompt: int, width: int, device: torch.device) -> Tensor:
        """[width, prompt + width], True where a completion's token may look."""
        return torch.ones(width, prompt + width, dtype=torch.bool, device=device).tril(diagonal=prompt)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q [1, H, T, D] -> [1, T, H, Dv]."""
        flat = [x[0].transpose(0, 1) for x in (q, k, v)]  # [T, H, D]
        (q_prompt, *qs), (k_prompt, *ks), (v_prompt, *vs) = (torch.split(x, self.sizes) for x in flat)
        outputs: list[Tensor] = []
        if self.prompt_padding is not None:
            pad = self.prompt_padding
            outputs.append(pad.unpad(sdpa(pad.pad(q_prompt), pad.pad(k_prompt), pad.pad(v_prompt), scale, causal=True)))
        shared = iter(zip(torch.split(k_prompt, self.prompts), torch.split(v_prompt, self.prompts), strict=True))
        for index, span in enumerate(self.spans):
            if not span.completions:
                if span.prompt:
                    next(shared)
                continue
            pad, keys, values = self.paddings[index], ks[index], vs[index]
            keys, values = pad.pad(keys), pad.pad(values)
            if span.prompt:
                k_shared, v_shared = (x.transpose(0, 1).expand(len(keys), -1, -1, -1) for x in next(shared))
                keys, values = torch.cat([k_shared, keys], dim=2), torch.cat([v_shared, values], dim=2)
                out = sdpa(pad.pad(qs[index]), keys, values, scale, mask=self.masks[index])
            else:
                out = sdpa(pad.pad(qs[index]), keys, values, scale, causal=True)
            outputs.append(pad.unpad(out))
        return torch.cat(outputs)[None]


def bucket(lengths: Sequence[int], waste: float = 0.15) -> list[list[int]]:
    """Indices of sequences, longest first, in buckets in which padding adds at most `waste` of the real tokens."""
    buckets: list[list[int]] = []
    real = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if buckets:
            longest = lengths[buckets[-1][0]]
            if longest * (len(buckets[-1]) + 1) <= (1 + waste) * (real + lengths[index]):
                buckets[-1].append(index)
                real += lengths[index]
                continue
        buckets.append([index])
        real = lengths[index]
    return buckets
