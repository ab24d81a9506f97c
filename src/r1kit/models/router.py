"""DeepSeek-V3's balance of experts without an auxiliary loss (V3 section 2.1.2): the bias that transformers never
updates.

After each step the bias of an overloaded expert falls by gamma and that of an underloaded one rises by gamma. The bias
decides which experts are chosen and never enters the gate, so it has no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class RouterBalance:
    """Counts the load of each expert during training forward passes; `update` moves the biases.

    Forward passes count while `copies` is set: for each token of the row [T], how many samples share it, so that loads
    are those of every sample by itself, however they are packed.
    Does nothing for models whose routers have no `e_score_correction_bias`.
    """

    def __init__(self, model: nn.Module, gamma: float) -> None:
        self.gamma = gamma
        self.routers = [m for m in model.modules() if isinstance(getattr(m, "e_score_correction_bias", None), Tensor)]
        # fp64 counts exactly where fp32 stops at 16 million
        self.loads = [torch.zeros_like(self._bias(router), dtype=torch.float64) for router in self.routers]
        self.copies: Tensor | None = None
        for index, router in enumerate(self.routers):
            router.register_forward_hook(self._hook(index))

    @staticmethod
    def _bias(router: nn.Module) -> Tensor:
        return router.e_score_correction_bias  # type: ignore[return-value]

    def _hook(self, index: int) -> Any:
        def count(module: nn.Module, args: Any, output: Any) -> None:
            if self.copies is not None:
                chosen = output[2]  # router logits, weights, indices [T, experts per token]
                self.loads[index].index_add_(0, chosen.reshape(-1), self.copies.repeat_interleave(chosen.shape[-1]))

        return count

    @contextmanager
    def counting(self, copies: Tensor) -> Iterator[None]:
        """Count the forward passes of one packed row; `copies` [T] says how many samples share each token."""
        self.copies = copies
        try:
            yield
        finally:
            self.copies = None

    def update(self) -> float:
        """b_i += gamma * sign(mean load - load_i); returns the worst ratio of the fullest expert to the mean."""
        worst = 0.0
        for router, load in zip(self.routers, self.loads, strict=True):
            if load.sum() > 0:
                self._bias(router).add_(self.gamma * torch.sign(load.mean() - load))
                worst = max(worst, float(load.max() / load.mean()))
            load.zero_()
        return worst
