"""transformers' tensor-parallel plan of a Llama under our loss: the loss and gradients of one process?

python benchmarks/tensor_parallel.py

Two gloo ranks split the linear layers of each layer by the model's own plan; embeddings, norms and the head, which the
loss reads itself, stay whole. Prints the losses, and the largest relative error of a weight's gradient.
"""

from __future__ import annotations

import copy
import os
import re

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.multiprocessing.spawn import spawn
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

from r1kit.models.batch import Totals
from r1kit.models.load import fresh_llama
from r1kit.models.policy_net import net_of
from r1kit.models.shard import whole
from r1kit.tiny.tokenizer import make
from r1kit.train.losses.next_token import next_token
from r1kit.train.packing import pack
from r1kit.types import Sample

RANKS = 2
TOKENS = 256  # of a packed row


def main() -> None:
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29877"}
    spawn(compare, nprocs=RANKS)


def compare(rank: int) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    model = fresh_llama(make(), layers=2, width=64, heads=4, context=TOKENS, seed=0)
    split = copy.deepcopy(model)
    apply_tensor_parallelism(split, init_device_mesh("cpu", (RANKS,)), plan_of(split))
    numbers = torch.Generator().manual_seed(0)
    lengths = (20, 33, 41)
    ids = [torch.randint(3, 100, (length,), generator=numbers).tolist() for length in lengths]
    samples = [Sample(token_ids=row, loss_mask=[True] * len(row)) for row in ids]
    losses = [backward(each, samples) for each in (model, split)]
    errors = {
        name: float((whole(ours.grad) - theirs.grad).norm() / theirs.grad.norm())
        for (name, theirs), ours in zip(model.named_parameters(), split.parameters(), strict=True)
    }
    worst = max(errors, key=lambda name: errors[name])
    if not rank:
        print(f"loss {losses[0]!r} in one process, {losses[1]!r} in {RANKS} ranks")
        print(f"relative error of a gradient: at most {errors[worst]:.1e} ({worst})")
    dist.destroy_process_group()


def plan_of(model: torch.nn.Module) -> dict[str, str]:
    """The style of each module and weight that the model's own plan splits."""
    plan = {f"model.{pattern}": style for pattern, style in model.config.base_model_tp_plan.items()}
    styles = {re.compile(re.escape(pattern).replace(r"\*", r"\d+")): style for pattern, style in plan.items()}
    split: dict[str, str] = {}
    for name, module in model.named_modules():
        style = next((style for pattern, style in styles.items() if pattern.fullmatch(name)), None)
        if style is not None:
            split |= {name: style} | {f"{name}.{weight}": style for weight, _ in module.named_parameters()}
    return split


def backward(model: torch.nn.Module, samples: list[Sample]) -> float:
    net, total = net_of(model).eval(), 0.0
    for batch in pack(samples, TOKENS, model):
        output = net(batch, next_token, Totals.of(samples))
        output.loss.backward()
        total += float(output.loss.detach())
    return total


if __name__ == "__main__":
    main()
