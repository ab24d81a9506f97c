"""The gradient of a few of a stage's own rows: packed together, and each row alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from r1kit.models.batch import Batch, Totals
from r1kit.models.compute import compute_dtype_of
from r1kit.models.policy_net import AnyLoss
from r1kit.train.learner import Learner
from r1kit.train.preflight.lines import Line, line, unclear

Piece = tuple[AnyLoss, Sequence[Batch]]  # batches that share a loss
CHECK = "gradient by split and packing"
# of the norm: fp32 differs by 1e-6 (the tiny model) to 2e-5 (24 layers); products of bf16 round each operand to 0.4 %
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.1}
REMEDY = (
    "rows that share a batch change each other: a loss of your own must divide by `totals` and not by its own batch; "
    "otherwise the model's layers let packed rows leak, so report the model"
)


def gradient_line(
    learner: Learner, together: dict[str, Tensor], alone: Iterable[Sequence[Piece]], totals: Totals
) -> Line:
    """`together`: the gradient of rows in their packed batches; `alone`: the pieces of each row by itself. `totals` are
    those of all rows in both cases."""
    limit = LIMITS[compute_dtype_of(learner.model)]
    apart, squares = {name: torch.zeros_like(each) for name, each in together.items()}, 0.0
    for pieces in alone:
        with _gradient(learner, pieces, totals) as own:
            squares += _norm(own.values()) ** 2
            for name, gradient in own.items():
                apart[name] += gradient
    gap = _norm(together[name] - apart[name] for name in together)
    # rows that are alike cancel: equal completions with advantages of 1 and -1 leave nothing but rounding
    norm = max(_norm(together.values()), math.sqrt(squares))
    if norm == 0.0:
        return unclear(CHECK, "the rows have no gradient")
    return line(
        CHECK, f"differs by {gap / norm:.1g} of its norm of {norm:.1g}", gap <= limit * norm, REMEDY, f"{limit:g}"
    )


def gradient_of(learner: Learner, pieces: Iterable[Piece], totals: Totals) -> dict[str, Tensor]:
    """The gradient of each trained weight, summed over all pieces; the learner's own are empty afterwards."""
    with _gradient(learner, pieces, totals) as own:
        return {
            name: own[name].clone() if name in own else torch.zeros_like(weight)
            for name, weight in learner.parameters.items()
        }


@contextmanager
def _gradient(learner: Learner, pieces: Iterable[Piece], totals: Totals) -> Iterator[dict[str, Tensor]]:
    """The learner's own gradients of the pieces, of weights that have one; empty afterwards."""
    try:
        for loss, batches in pieces:
            learner.forward_backward(batches, loss, totals)
        yield {name: weight.grad for name, weight in learner.parameters.items() if weight.grad is not None}
    finally:
        learner.optimizer.zero_grad(set_to_none=True)
        learner.router.forget()  # the experts' loads of these rows


def _norm(tensors: Iterable[Tensor]) -> float:
    # in fp64: a sum over a hundred million squares loses digits in fp32
    return math.hypot(*(float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) for tensor in tensors))
