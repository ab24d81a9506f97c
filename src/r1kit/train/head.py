"""The language-model head, only where a token is predicted and in chunks, with its gradient formed on the way.

Full logits of a large vocabulary are most of a small model's memory traffic. Here each chunk's logits are made once:
log-probs, the loss and d(loss)/d(log-prob) come from the chunk, and d(loss)/d(logits) = (onehot - p)
d(loss)/d(log-prob)
is written over the logits before the two products that carry it to the hidden states and to the head's weight.
A chunk holds whole sequences, so losses that need a sequence (GSPO) work as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from r1kit.models.head import Head
from r1kit.train.batch import Targets, Totals
from r1kit.train.losses import Loss


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


def head_backward(
    head: Head, hidden: Tensor, targets: Targets, totals: Totals, loss: Loss, temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Gradient of the loss with respect to `hidden` [T, d]; adds the head's own gradient to its parameters.

    Returns the gradient and the sums for the log: loss, entropy, the loss's own.
    """
    gradient = torch.zeros_like(hidden)
    sums: dict[str, Tensor] = {}
    step = _plain_chunk if head.softcap is None else _capped_chunk
    for chunk in targets.chunks(head.chunk_size()):
        states = hidden[chunk.positions]
        grad_states, values = step(head, states, chunk, lambda lp, c: loss(lp, c, totals), temperature)
        gradient.index_add_(0, chunk.positions, grad_states)
        for name, value in values.items():
            sums[name] = sums[name] + value if name in sums else value
    return gradient, sums


ChunkLoss = Callable[[Tensor, Targets], Any]


def _plain_chunk(
    head: Head, states: Tensor, chunk: Targets, loss: ChunkLoss, temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.no_grad():
        logits = head.logits(states, temperature)  # [n, V]
        normaliser = logits.logsumexp(dim=-1, keepdim=True)
        log_probs = logits.sub_(normaliser)
        probs = log_probs.exp()
        entropy = -torch.dot(probs.view(-1), log_probs.view(-1))
    leaf = log_probs.gather(1, chunk.token_ids[:, None])[:, 0].requires_grad_()
    with torch.enable_grad():
        output = loss(leaf, chunk)
        (grad,) = torch.autograd.grad(output.loss, leaf)
    with torch.no_grad():
        probs.mul_(-grad[:, None])
        probs.scatter_add_(1, chunk.token_ids[:, None], grad[:, None])
        probs.mul_(head.scale / temperature)
        grad_logits = probs.to(states.dtype)
        _accumulate(head.weight, lambda: grad_logits.T @ states)
        if head.bias is not None:
            _accumulate(head.bias, lambda: grad_logits.sum(0))
        grad_states = (grad_logits @ head.weight).to(states.dtype)  # autocast gives bf16
    return grad_states, {"loss": output.loss.detach(), "entropy": entropy, **output.sums}


def _capped_chunk(
    head: Head, states: Tensor, chunk: Targets, loss: ChunkLoss, temperature: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same through autograd, for heads with a soft cap on their logits."""
    with torch.enable_grad():
        leaf = states.detach().requires_grad_()
        logprobs = torch.log_softmax(head.logits(leaf, temperature), dim=-1)
        output = loss(logprobs.gather(1, chunk.token_ids[:, None])[:, 0], chunk)
        wanted = [leaf, *(p for p in (head.weight, head.bias) if p is not None and p.requires_grad)]
        grads = torch.autograd.grad(output.loss, wanted)
    for parameter, grad in zip(wanted[1:], grads[1:], strict=True):
        _accumulate(parameter, lambda grad=grad: grad)  # type: ignore[misc]
    return grads[0], {
        "loss": output.loss.detach(),
        "entropy": torch.special.entr(logprobs.detach().exp()).sum(),
        **output.sums,
    }


def _accumulate(parameter: Tensor, gradient: Callable[[], Tensor]) -> None:
    if parameter.requires_grad:
        value = gradient().to(parameter.dtype)
        parameter.grad = value if parameter.grad is None else parameter.grad.add_(value)
