"""DeepSeek-V3's balance of experts without an auxiliary loss (V3 section 2.1.2): the bias that transformers never
updates.

After each step the bias of an overloaded expert falls by gamma and that of an underloaded one rises by gamma. The bias
decides which experts are chosen and never enters the gate, so it has no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from r1kit import ranks
from r1kit.models.packed import PackedLayout


def expert_blocks(model: nn.Module) -> list[nn.Module]:
    """The modules whose part `experts` holds routed experts, in the order of the model's modules."""
    return [block for block in model.modules() if isinstance(getattr(block, "experts", None), nn.Module)]


class RouterBalance:
    """Counts the load of each expert during training forward passes; `update` moves the biases.

    Forward passes inside `counting` count. A token that several samples share counts for each of them, so packing does
    not change the loads. Does nothing for models whose routers have no `e_score_correction_bias`.
    """

    def __init__(self, model: nn.Module, gamma: float) -> None:
        self.gamma = gamma
        self.routers: list[nn.Module] = []
        self.loads: list[Tensor] = []  # of each router, [experts]
        self.layout: PackedLayout | None = None  # inside `counting`
        for block in expert_blocks(model):
            # the bias is a buffer or a parameter of the block, of its gate, or of a part of the gate
            router = next((part for part in block.modules() if hasattr(part, "e_score_correction_bias")), None)
            if router is not None:
                # fp32 counts exactly only up to 16 million
                self.loads.append(torch.zeros_like(self._bias(router), dtype=torch.float64).flatten())
                block.experts.register_forward_pre_hook(partial(self._count, len(self.routers)))  # type: ignore[union-attr]
                self.routers.append(router)

    @staticmethod
    def _bias(router: nn.Module) -> Tensor:
        return router.e_score_correction_bias.detach()  # type: ignore[operator]

    def _count(self, index: int, module: nn.Module, args: Any) -> None:
        """A hook of the experts of router `index`, which every architecture calls with states, indices and weights."""
        if self.layout is not None:
            chosen = args[1].flatten(0, -2)  # [T, experts per token]
            samples = self.layout.samples_per_token  # [T]
            assert len(chosen) == len(samples), "one row of experts for each token of the forward pass"
            self.loads[index].index_add_(0, chosen.flatten(), samples.repeat_interleave(chosen.shape[-1]))

    @contextmanager
    def counting(self, layout: PackedLayout) -> Iterator[None]:
        """Count the forward passes of one packed row, whose layout says how many samples share each token."""
        self.layout = layout
        try:
            yield
        finally:
            self.layout = None

    def update(self) -> float:
        """b_i += gamma * sign(mean load - load_i); returns the largest ratio of the fullest expert to the mean."""
        worst = 0.0
        for router, loads in zip(self.routers, zip(*ranks.gather(self.loads), strict=True), strict=True):
            load = torch.stack([each.to(loads[0].device) for each in loads]).sum(0)  # of all ranks
            if load.sum() > 0:
                # the sign, not the size: gamma bounds how far a bias moves in one step
                bias = self._bias(router)
                bias.add_(self.gamma * torch.sign(load.mean() - load).view_as(bias))
                worst = max(worst, float(load.max() / load.mean()))
        self.forget()
        return worst

    def forget(self) -> None:
        """Reset the counts of tokens per expert."""
        for load in self.loads:
            load.zero_()
