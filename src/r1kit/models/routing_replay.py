"""Routing replay: training sends each token to the experts that it went to while it was sampled.

A rounding error that leaves a dense model's logits as they are can send a token of a mixture of experts elsewhere, and
then the policy that is trained is not the one that sampled. DeepSeek-V3.2 (2512.02556, section 3.1, "keep routing") and
R3 (2510.11370) record the sampler's choice and repeat it. The gates are computed again, so the router has its gradient.

No architecture is named here. A router's own code runs, and only the answer of its `topk` over the experts is replaced
by the recorded ids and the values there; `require_replay` proves on a short row that tokens go where they are sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from r1kit.models.known import first_line
from r1kit.models.packed import PackedLayout, Span
from r1kit.models.plain import plain_path
from r1kit.models.policy_net import hidden_states
from r1kit.models.router import expert_blocks

OWN = -1  # in place of experts: the router chooses
LENGTH = 6  # tokens of the row that proves a model


class Choice(NamedTuple):
    """The experts [..., k] of each token, and their gates."""

    experts: Tensor
    gates: Tensor


class RoutingReplay:
    """The routers of a model, in the order of its modules: R routers that choose k experts for each token."""

    def __init__(self, model: nn.Module) -> None:
        self.blocks = expert_blocks(model)
        self._differing, self._replayed = torch.zeros(()), torch.zeros(())  # choices since `disagreement` was called

    @contextmanager
    def recording(self) -> Iterator[list[list[Choice]]]:
        """Forward passes inside add what is chosen to the list of each router."""
        calls: list[list[Choice]] = [[] for _ in self.blocks]
        hooks = [
            block.experts.register_forward_pre_hook(partial(_keep, own))  # type: ignore[union-attr]
            for block, own in zip(self.blocks, calls, strict=True)
        ]
        try:
            yield calls
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def replaying(self, experts: Tensor | None, *, counts: bool = False) -> Iterator[None]:
        """Forward passes of a row of T tokens inside use these experts, int16 [T, R * k]; `OWN`: the router's choice.

        Backward passes that compute activations again must be inside too. None: every router chooses. `counts`: for
        `disagreement`.
        """
        if experts is None:
            yield
            return
        by_router = experts.long().view(len(experts), len(self.blocks), -1)  # [T, R, k]
        before = [block.__dict__.get("forward") for block in self.blocks]
        for index, block in enumerate(self.blocks):
            # on the instance, as `recompute` does it: in a GPU's backward pass, another thread calls it
            block.forward = partial(self._forward, block, block.forward, by_router[:, index], counts)
        try:
            yield
        finally:
            for block, forward in zip(self.blocks, before, strict=True):
                del block.forward
                if forward is not None:
                    block.forward = forward

    def _forward(self, block: Any, forward: Any, given: Tensor, counts: bool, *args: Any, **kwargs: Any) -> Any:
        with _GivenExperts(given, _count(block.experts)) as mode:
            output = forward(*args, **kwargs)
        if mode.differing is None:
            raise ValueError(f"{type(block).__name__} did not choose {given.shape[1]} experts by one topk")
        if counts:
            self._differing = self._differing.to(given.device) + mode.differing
            self._replayed = self._replayed.to(given.device) + (given[:, 0] != OWN).sum()
        return output

    def disagreement(self) -> tuple[float, float]:
        """Replayed choices since the last call in which the learner's router would have taken other experts, and all.

        A choice is that of one router for one token.
        """
        counts = float(self._differing), float(self._replayed)
        self._differing, self._replayed = torch.zeros(()), torch.zeros(())
        return counts


class _GivenExperts(TorchFunctionMode):
    """Answers `topk` over `count` experts with the ids `given` [T, k], where they are not `OWN`."""

    def __init__(self, given: Tensor, count: int) -> None:
        super().__init__()
        self.given, self.count = given, count
        self.differing: Tensor | None = None  # choices that were replaced by others

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # a choice of groups of experts (DeepSeek-V3) has other shapes
        if getattr(func, "__name__", "") != "topk" or result.indices.shape != self.given.shape:
            return result
        scores = args[0]
        if scores.shape[-1] != self.count:
            return result
        indices = torch.where(self.given == OWN, result.indices, self.given)
        self.differing = (indices.sort(-1).values != result.indices.sort(-1).values).any(-1).sum()
        return torch.return_types.topk((scores.gather(-1, indices), indices))


def recorded(calls: list[list[Choice]]) -> Tensor:
    """The experts of the newest forward pass inside `recording`, int16 [T, R * k]."""
    return torch.stack([own[-1].experts.flatten(0, -2) for own in calls], dim=1).flatten(1).to(torch.int16)


def require_replay(model: Any) -> None:
    """Raise ValueError with the reason unless the model's routers can be recorded and replayed."""
    name, replay = model.config.model_type, RoutingReplay(model)
    if not replay.blocks:
        raise ValueError(f"routing_replay is for mixtures of experts, and {name} has no experts: set it to false")
    if path := plain_path(model):
        raise ValueError(
            f"routing_replay needs packed rows, and {name} takes the plain path ({path.reason}): set it to false"
        )
    if obstacle := _obstacle(model, replay):
        raise ValueError(f"the routing of {name} cannot be replayed ({obstacle}): set routing_replay to false")


def _obstacle(model: Any, replay: RoutingReplay) -> str:
    """Sends a short row to other experts than its routers choose, in a forward and a backward pass; why it failed."""
    vocabulary = model.config.get_text_config().vocab_size
    row = torch.arange(LENGTH, device=model.device) * 7 % vocabulary
    layout = PackedLayout([Span(0, (LENGTH,))], model.device)
    try:
        with torch.no_grad(), replay.recording() as calls:
            hidden_states(model, row[None], layout)
        counts = [_count(block.experts) for block in replay.blocks]
        # different ones stay different, and half of all away they are of another group (DeepSeek-V2)
        others = [
            [own[-1]._replace(experts=(own[-1].experts + count // 2) % count)]
            for own, count in zip(calls, counts, strict=True)
        ]
        with torch.enable_grad(), replay.recording() as calls, replay.replaying(recorded(others)):
            loss = hidden_states(model, row[None], layout).square().sum()
            torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        return first_line(error)
    for block, chosen, wanted in zip(replay.blocks, calls, others, strict=True):
        if not all(torch.equal(each.experts.flatten(0, -2), wanted[0].experts.flatten(0, -2)) for each in chosen):
            return f"{type(block).__name__} does not choose its experts by one topk"
        if any((each.gates == 0).any() for each in chosen):
            return f"{type(block).__name__} gives experts that it would not choose a gate of 0"
    return ""


def _count(experts: Any) -> int:
    """The number of routed experts of a block."""
    return int(experts.num_experts) if hasattr(experts, "num_experts") else len(experts)


def _keep(calls: list[Choice], module: nn.Module, args: Any) -> None:
    """A hook of the experts, which every architecture calls with states, indices [T, k] and weights."""
    calls.append(Choice(args[1].detach(), args[2].detach()))
