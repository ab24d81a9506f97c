"""Ranks that train one net: each with a shard of it (FSDP2), or with all of it and the sum of the gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from r1kit import ranks
from r1kit.models.policy_net import Net, PolicyNet, ScoreNet, net_of

N = TypeVar("N", bound=Net)
# the second is its name before torch 2.13
_gather_into: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def shard(net: N, mesh: DeviceMesh) -> N:
    """Shard a net's weights in place: each layer by itself, and everything outside the layers with the net.

    Gradients are summed over the ranks, not averaged as FSDP does by default: a loss divides by the `Totals` of all
    ranks, so each rank's gradient is its share of the whole.
    """
    # a list first: `fully_shard` changes the modules' classes, and inner modules go before the outer one
    for layer in [module for module in net.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    for module in net.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no other reduction
    for name in net.FORWARD_METHODS:  # FSDP gathers the weights around these methods as it does around `forward`
        register_fsdp_forward_method(net, name)
    return net


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all ranks, in place; every rank must call it, and has the same bits after it."""
    gradients = [parameter.grad for parameter in parameters]
    for sent in [dist.all_reduce(gradient, async_op=True) for gradient in gradients if gradient is not None]:
        sent.wait()


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_copy(model: Any) -> PolicyNet | ScoreNet:
    """The net of a copy of the model, sharded over all ranks."""
    device = next(model.parameters()).device
    return shard(net_of(copy.deepcopy(model)), init_device_mesh(device.type, (ranks.count(),)))


@torch.no_grad()
def copy_whole(sharded: nn.Module, model: nn.Module) -> None:
    """Copy the weights and buffers of a sharded model into one with the same modules; every rank must call it."""
    sources = [*sharded.parameters(), *sharded.buffers()]
    # every rank walks the tensors in the same order: each of them is a collective
    for target, source in zip([*model.parameters(), *model.buffers()], sources, strict=True):
        if isinstance(source, DTensor) and len(source) % ranks.count() == 0:  # equal parts go to their places at once
            _gather_into(target, source.to_local(), source.device_mesh.get_group())
        else:
            target.copy_(whole(source))


@torch.no_grad()
def copy_part(target: Tensor, source: Tensor) -> None:
    """Copy a whole tensor, which every rank has, into one that may be sharded."""
    if isinstance(target, DTensor):  # None: each rank cuts its part out of its own copy
        source = distribute_tensor(source, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(source)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
