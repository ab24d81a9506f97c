"""AdamW with moments in fp32 or 8 bits, for weights in fp32 or bf16."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from r1kit.models.bf16_weights import stochastic_round
from r1kit.models.known import ModelError

if TYPE_CHECKING:
    from r1kit.train.learner import OptimizerSettings


def require_optimizer(settings: OptimizerSettings) -> None:
    """Raise `ModelError` if the package of the optimizer is not installed."""
    if settings.kind == "adamw-8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError("optimizer.kind adamw-8bit needs bitsandbytes: pip install 'r1kit[8bit]', or set it to adamw")


def make_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    """The optimizer of the settings."""
    require_optimizer(settings)
    options: dict[str, Any] = {"lr": settings.learning_rate, "betas": settings.betas}
    options["weight_decay"] = settings.weight_decay
    if settings.kind == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **options)  # one pass over memory for all parameters
    from bitsandbytes.optim.adamw import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, **options)
    return optimizer


@contextmanager
def loading(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """A block in which an optimizer's state can be loaded; it would cast moments in fp32 to the weights' bf16."""
    low = {p: p.data for p in parameters if p.dtype == torch.bfloat16}
    for parameter in low:
        parameter.data = torch.empty(0, device=parameter.device)
    try:
        yield
    finally:
        for parameter, weights in low.items():
            parameter.data = weights


def take_step(optimizer: torch.optim.Optimizer, parameters: Collection[nn.Parameter], seed: int) -> None:
    """One step; weights in bf16 take it in fp32, one tensor at a time, and are rounded at random.

    A step of RL is far smaller than the gap between two bf16 numbers, so rounding to the nearest would undo it. Rounded
    up with the probability of the part that is lost, the weights move by the step on average.
    """
    low = [p for p in parameters if p.dtype == torch.bfloat16 and p.grad is not None]
    gradients = [p.grad for p in low]
    for parameter in low:  # an optimizer skips weights without a gradient
        parameter.grad = None
    optimizer.step()  # of all weights in fp32 at once
    if not low:
        return
    for parameter in parameters:  # so that the steps below move one weight each
        parameter.grad = None
    generator = torch.Generator(low[0].device).manual_seed(seed)  # the same after a resume
    for parameter, gradient in zip(low, gradients, strict=True):
        assert gradient is not None
        rounded = parameter.data
        parameter.data = rounded.float()
        parameter.grad = gradient.float()
        optimizer.step()
        rounded.copy_(stochastic_round(parameter.data, generator))
        parameter.grad, parameter.data = None, rounded  # the same tensor as before: the engine reads it
