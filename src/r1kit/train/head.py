"""The language-model head, only where a token is predicted and in chunks, with its gradient formed on the way.

Full logits of a large vocabulary are most of a small model's memory traffic. Here each chunk's logits are made once:
log-probs, the loss and d(loss)/d(log-prob) come from the chunk, and d(loss)/d(logits) = (onehot - p)
d(loss)/d(log-prob)
is written over the logits before the two products that carry it to the hidden states and to the head's weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from r1kit.models.head import Head
from r1kit.train.batch import Batch, Targets, Totals
from r1kit.train.losses import Loss


@dataclass(frozen=True)
class Gradient:
    """d(loss)/d(hidden) [T, d] of a packed row, and for the log: the loss, and sums over `count` items."""

    hidden: Tensor
    loss: Tensor
    sums: dict[str, Tensor]
    count: int


@runtime_checkable
class Objective(Protocol):
    """What a packed row is trained for, from its hidden states on; a plain `Loss` becomes one by `OfLogprobs`."""

    def backward(self, model: Any, hidden: Tensor, batch: Batch, totals: Totals, temperature: float) -> Gradient:
        """The gradient for `hidden` [T, d], which has none of its own; adds the head's to its parameters."""


@dataclass(frozen=True)
class OfLogprobs:
    """A loss that is a function of log-probs.

    A chunk holds whole sequences, which losses like GSPO need, unless `cut` says that each token counts by itself.
    """

    loss: Loss
    cut: bool = False

    def backward(self, model: Any, hidden: Tensor, batch: Batch, totals: Totals, temperature: float) -> Gradient:
        head = Head.of(model)
        found = Accumulated(hidden)
        for chunk in batch.targets.chunks(head.chunk_size(), whole=not self.cut):
            states = hidden[chunk.positions]
            found.add(head, chunk, states, *_logprob_chunk(head, states, chunk, totals, self.loss, temperature))
        return found.gradient()


class Accumulated:
    """The gradient of a row, put together chunk by chunk."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = torch.zeros_like(hidden)
        self.loss = hidden.new_zeros((), dtype=torch.float32)
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(
        self, head: Head, chunk: Targets, states: Tensor, grad_logits: Tensor, loss: Tensor, sums: dict[str, Tensor]
    ) -> None:
        """Carry d(loss)/d(head's linear output) [n, V] to the chunk's hidden states and to the head's parameters."""
        grad_logits = grad_logits.to(states.dtype)
        with torch.no_grad():
            _accumulate(head.weight, lambda: grad_logits.T @ states)
            if head.bias is not None:
                _accumulate(head.bias, lambda: grad_logits.sum(0))
            self.hidden.index_add_(0, chunk.positions, (grad_logits @ head.weight).to(states.dtype))  # autocast: bf16
        self.loss = self.loss + loss
        self.count += len(chunk.token_ids)
        for name, value in sums.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def gradient(self) -> Gradient:
        return Gradient(self.hidden, self.loss, self.sums, self.count)


def logprobs(head: Head, hidden: Tensor, targets: Targets, temperature: float) -> Tensor:
    """log pi of each target [N], without a gradient."""
    pieces = []
    with torch.no_grad():
        for start in range(0, len(targets.token_ids), head.chunk_size()):
            cut = slice(start, start + head.chunk_size())
            logits = head.logits(hidden[targets.positions[cut]], temperature)
            chosen = logits.gather(1, targets.token_ids[cut, None])[:, 0]
            pieces.append(chosen - logits.logsumexp(dim=-1))
    return torch.cat(pieces) if pieces else hidden.new_zeros(0)


def _logprob_chunk(
    head: Head, states: Tensor, chunk: Targets, totals: Totals, loss: Loss, temperature: float
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    with torch.no_grad():
        logits = head.logits(states, temperature)  # [n, V]
        slope = head.slope(logits, temperature)
        log_probs = logits.sub_(logits.logsumexp(dim=-1, keepdim=True))
        probs = log_probs.exp()
        entropy = -torch.dot(probs.view(-1), log_probs.view(-1))
    leaf = log_probs.gather(1, chunk.token_ids[:, None])[:, 0].requires_grad_()
    with torch.enable_grad():
        output = loss(leaf, chunk, totals)
        (grad,) = torch.autograd.grad(output.loss, leaf)
    with torch.no_grad():
        probs.mul_(-grad[:, None])
        probs.scatter_add_(1, chunk.token_ids[:, None], grad[:, None])
        probs.mul_(slope)
    return probs, output.loss.detach(), {"entropy": entropy, **output.sums}


def _accumulate(parameter: Tensor, gradient: Callable[[], Tensor]) -> None:
    if parameter.requires_grad:
        value = gradient().to(parameter.dtype)
        parameter.grad = value if parameter.grad is None else parameter.grad.add_(value)
