"""The language-model head as an object of its own, so that it can run where a token is predicted and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 16 * 1024 * 1024  # logits per chunk: 64 MB in fp32


@dataclass(frozen=True)
class Head:
    """logits = cap((hidden W^T + b) * scale) / temperature, as the model's own head computes them."""

    weight: Tensor  # [V, d]
    bias: Tensor | None
    scale: float = 1.0
    softcap: float | None = None

    @staticmethod
    def of(model: Any) -> Head:
        """Read the head off a Hugging Face model, with the scalings that some architectures put on logits."""
        linear = model.get_output_embeddings()
        config = model.config
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        return Head(
            linear.weight, getattr(linear, "bias", None), scale, getattr(config, "final_logit_softcapping", None)
        )

    def logits(self, hidden: Tensor, temperature: float = 1.0) -> Tensor:
        """[N, d] -> [N, V] in fp32."""
        logits = torch.nn.functional.linear(hidden, self.weight, self.bias).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits if temperature in (0.0, 1.0) else logits / temperature

    def slope(self, logits: Tensor, temperature: float = 1.0) -> Tensor | float:
        """d(logits)/d(hidden W^T + b) at what `logits` returned: a number, or [N, V] where a soft cap bends them."""
        scale = self.scale if temperature in (0.0, 1.0) else self.scale / temperature
        if self.softcap is None:
            return scale
        return scale * (1 - (logits * (temperature or 1.0) / self.softcap).square())

    def chunk_size(self) -> int:
        return max(32, CHUNK_ELEMENTS // self.weight.shape[0])
