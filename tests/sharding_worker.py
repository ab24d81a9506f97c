"""One rank of `test_sharding`: compares gradients under FSDP2 with those of one process and writes the differences."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from r1kit.models import attention
from r1kit.models.batch import Batch, Totals
from r1kit.models.policy_net import AnyLoss, PolicyNet, net_of
from r1kit.models.recompute import recompute_activations
from r1kit.models.shard import shard, whole
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.distillation import Distillation, DistillationSettings, SoftTargetsOf
from r1kit.train.losses.divergence import TopK
from r1kit.train.losses.next_token import next_token
from r1kit.train.losses.policy_gradient import grpo
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.losses.scores import bradley_terry
from r1kit.train.packing import pack, pack_together
from r1kit.train.teacher import ModelTeacher, top_k
from r1kit.types import Sample

WORLD, VOCABULARY = 2, 60
Groups = Sequence[Sequence[Sample]]  # what stays on one rank together


def config(seed: int) -> LlamaConfig:
    torch.manual_seed(seed)
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=seed == 0,
        initializer_range=0.2,
        num_labels=1,
        pad_token_id=0,
        attn_implementation=attention.NAME,
    )


def policy(seed: int = 0) -> Any:
    return LlamaForCausalLM(config(seed))


def recomputed() -> Any:
    model = policy()
    recompute_activations(model)
    return model


def classifier() -> Any:
    return LlamaForSequenceClassification(config(0))


def groups() -> Groups:
    """Two answers to each of five prompts, of unlike lengths."""
    rng = random.Random(0)
    found = []
    for _ in range(5):
        prompt = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(2, 9))]
        group = []
        for advantage in (rng.uniform(0.5, 2), rng.uniform(-2, -0.5)):
            size = rng.randrange(1, 16)
            zeros = (0.0,) * len(prompt)
            group.append(
                Sample(
                    token_ids=(*prompt, *(rng.randrange(VOCABULARY) for _ in range(size))),
                    loss_mask=(False,) * len(prompt) + (True,) * size,
                    logprobs=(*zeros, *(rng.uniform(-5, -3) for _ in range(size))),
                    ref_logprobs=(*zeros, *(rng.uniform(-5, -3) for _ in range(size))),
                    advantages=(*zeros, *(advantage,) * size),
                )
            )
        found.append(group)
    return found


class TopKTeacher:
    """The eight likeliest tokens of a model, with the mass of the others."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def targets(self, batch: Batch, temperature: float) -> SoftTargetsOf:
        net = PolicyNet.of(self.model)
        logits = net.logits(net.hidden_states(batch)[batch.own_targets.positions])
        best = top_k(logits, 8, [temperature])
        ids, logprobs = best["token_ids"].long(), best["logits"] / temperature - best["logsumexp"]
        return lambda place: TopK(ids[place], logprobs[place], best["log_tail"][place, 0])


def mixture() -> Any:
    torch.manual_seed(0)
    kinds = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
    shared = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    values = {name: getattr(config(0), name) for name in (*shared, "initializer_range", "pad_token_id")}
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**values, **kinds, attn_implementation=attention.NAME))


def replayed(given: Groups) -> list[Batch]:
    """Each token goes to the expert of its id and to the next one, in both layers."""
    experts = [[(token % 4, (token + 1) % 4) * 2 for token in sample.token_ids] for group in given for sample in group]
    samples = [sample for group in given for sample in group]
    return pack([replace(sample, routing=own) for sample, own in zip(samples, experts, strict=True)], 1000)


def packed(given: Groups) -> list[Batch]:
    return pack([sample for group in given for sample in group], 1000)


def pairs(given: Groups) -> list[Batch]:
    return pack_together(given, 1000)


CASES: dict[str, tuple[Callable[[], Any], Callable[[], AnyLoss], Callable[[Groups], list[Batch]]]] = {
    "sft": (policy, lambda: next_token, packed),
    "activations recomputed": (recomputed, lambda: next_token, packed),
    "grpo": (policy, lambda: grpo(PRESETS["paper"]), packed),
    "routing replay": (mixture, lambda: grpo(PRESETS["grpo"]), replayed),
    "gspo, untied": (lambda: policy(2), lambda: grpo(PRESETS["gspo"]), packed),
    "dense distillation": (
        policy,
        lambda: Distillation(DistillationSettings(), ModelTeacher(policy(1), VOCABULARY)),
        packed,
    ),
    "top-k distillation": (policy, lambda: Distillation(DistillationSettings(), TopKTeacher(policy(1))), packed),
    "reward model": (classifier, lambda: bradley_terry(0.01), pairs),
}


def difference(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())


def compare(name: str, rank: int, mesh: Any) -> dict[str, float]:
    """Largest relative differences of the gradients, of their norm and of the updated weights."""
    make, loss_of, batches_of = CASES[name]
    samples = groups()
    flat = [sample for group in samples for sample in group]
    totals = replace(Totals.of(flat), num_sequences=len(samples) if batches_of is pairs else len(flat))
    settings = OptimizerSettings(learning_rate=1e-3, grad_clip=0.01)
    alone, sharded = Learner(make(), settings, steps=1), Learner(shard(net_of(make()), mesh), settings, steps=1)
    alone.forward_backward(batches_of(samples), loss_of(), totals)
    first, *rest = samples[rank::WORLD]  # three groups and two: other numbers of tokens on each rank
    mine = [*batches_of([first]), *batches_of(rest)]  # one number of forward passes, as FSDP requires
    sharded.forward_backward(mine, loss_of(), totals)
    found = {"gradient": 0.0, "logprobs": 0.0, "weights": 0.0}
    expected = {key: parameter.grad for key, parameter in alone.parameters.items()}
    for key, parameter in sharded.parameters.items():
        assert parameter.grad is not None, key
        found["gradient"] = max(found["gradient"], difference(whole(parameter.grad), expected[key]))
    if make is not classifier:
        found["logprobs"] = max(difference(sharded.logprobs(batch), alone.logprobs(batch)) for batch in mine)
    norm, sharded_norm = alone.step()["optim/grad_norm"], sharded.step()["optim/grad_norm"]
    found["norm"] = abs(sharded_norm / norm - 1)
    for key, parameter in sharded.parameters.items():
        found["weights"] = max(found["weights"], difference(whole(parameter.detach()), alone.parameters[key].detach()))
    return found


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    attention.register()
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD, timeout=timedelta(seconds=60)
    )
    mesh = init_device_mesh("cpu", (WORLD,))
    found = {name: compare(name, rank, mesh) for name in CASES}
    (folder / f"rank-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
