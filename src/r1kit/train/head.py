"""The language-model head, only where a token is predicted and in chunks, with its gradient formed on the way.

Full logits of a large vocabulary are most of a small model's memory traffic. Here each chunk's logits are made once:
log-probs, the loss and d(loss)/d(log-prob) come from the chunk, and d(loss)/d(logits) = (onehot - p)
d(loss)/d(log-prob)
is written over the logits before the two products that carry it to the hidden states and to the head's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from r1kit.models.head import Head
from r1kit.train.batch import Batch, Targets, Totals
from r1kit.train.losses import Loss, LossOutput

LONG = 8  # chunks of the head: a longer sequence is cut, and its logits are made twice


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

    A loss sees whole sequences, which GSPO's needs, unless `cut` says that each token counts by itself. One of more
    than `LONG` chunks gets its log-probs chunk by chunk first and its gradient in a second pass, so that memory stays
    bounded whatever its length.
    """

    loss: Loss
    cut: bool = False

    def backward(self, model: Any, hidden: Tensor, batch: Batch, totals: Totals, temperature: float) -> Gradient:
        head = Head.of(model)
        found = Accumulated(hidden)
        for chunk in batch.targets.chunks(head.chunk_size(), whole=not self.cut):
            long = len(chunk.token_ids) > LONG * head.chunk_size()
            for part, loss in self._cut(head, hidden, chunk, totals, temperature) if long else [(chunk, self.loss)]:
                states = hidden[part.positions]
                found.add(head, part, states, *_logprob_chunk(head, states, part, totals, loss, temperature))
        return found.gradient()

    def _cut(
        self, head: Head, hidden: Tensor, chunk: Targets, totals: Totals, temperature: float
    ) -> Iterator[tuple[Targets, Loss]]:
        """A long sequence's parts, each with a loss that is linear in the part's log-probs and has their gradient."""
        output, slopes = _slopes(self.loss, logprobs(head, hidden, chunk, temperature), chunk, totals)
        size = head.chunk_size()
        for index, (part, slope) in enumerate(zip(chunk.chunks(size, whole=False), slopes.split(size), strict=True)):
            yield part, _linear(slope, output if index == 0 else LossOutput(torch.zeros_like(output.loss), {}))


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
    output, grad = _slopes(loss, log_probs.gather(1, chunk.token_ids[:, None])[:, 0], chunk, totals)
    with torch.no_grad():
        probs.mul_(-grad[:, None])
        probs.scatter_add_(1, chunk.token_ids[:, None], grad[:, None])
        probs.mul_(slope)
    return probs, output.loss.detach(), {"entropy": entropy, **output.sums}


def _slopes(loss: Loss, values: Tensor, chunk: Targets, totals: Totals) -> tuple[LossOutput, Tensor]:
    """A loss of log-probs [n], and its derivative by each of them."""
    leaf = values.requires_grad_()
    with torch.enable_grad():
        output = loss(leaf, chunk, totals)
        (grad,) = torch.autograd.grad(output.loss, leaf)
    return output, grad


def _linear(slope: Tensor, output: LossOutput) -> Loss:
    """A loss that is known already, with `slope` [n] for its derivative by the log-probs."""

    def loss(values: Tensor, targets: Targets, totals: Totals) -> LossOutput:
        return LossOutput(output.loss.detach() + (values - values.detach()) @ slope, output.sums)

    return loss


def _accumulate(parameter: Tensor, gradient: Callable[[], Tensor]) -> None:
    if parameter.requires_grad:
        value = gradient().to(parameter.dtype)
        parameter.grad = value if parameter.grad is None else parameter.grad.add_(value)
