"""Sharding of a net over the ranks of a device mesh with FSDP2."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from transformers.modeling_layers import GradientCheckpointingLayer

from r1kit.models.policy_net import Net

N = TypeVar("N", bound=Net)


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
    for name in net.FORWARD_METHODS:  # so FSDP gathers the weights around these methods too, not only `forward`
        register_fsdp_forward_method(net, name)
    return net


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; every rank must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
