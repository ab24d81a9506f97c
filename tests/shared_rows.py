"""A stage that leaves loss, gradients and log-probs of many cases, on any number of ranks that share rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import GptOssConfig, GptOssForCausalLM

from r1kit import ranks
from r1kit.models import attention
from r1kit.models.batch import Batch, Totals
from r1kit.models.shard import whole
from r1kit.pipeline import Context, Kind, Recipe, Stage
from r1kit.settings import Settings, unhashed
from r1kit.train.learner import Learner, OptimizerSettings
from r1kit.train.losses.distillation import Distillation, DistillationSettings
from r1kit.train.losses.next_token import next_token
from r1kit.train.losses.policy_gradient import grpo
from r1kit.train.losses.policy_settings import PRESETS
from r1kit.train.packing import pack
from r1kit.train.teacher import StoredTeacher, TeacherStore
from r1kit.types import Sample
from sharding_worker import CASES, VOCABULARY, Groups, config, groups, packed, pairs, policy


def windows_and_sinks() -> Any:
    """A gpt-oss with one key head, which all ranks need."""
    torch.manual_seed(0)
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "initializer_range")
    shared = {name: getattr(config(0), name) for name in names}
    own = {"intermediate_size": 16, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 4}
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "pad_token_id": 0}
    model = GptOssForCausalLM(GptOssConfig(**shared, **own, **experts, attn_implementation=attention.NAME))
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.sinks)
    return model


def masked(given: Groups) -> list[Batch]:
    """Each token was drawn from its id and the next ones, as many as its place."""
    samples = [
        replace(
            sample,
            sampling_mask=[
                sorted({(token + more) % VOCABULARY for more in range(place + 1)})
                for place, token in enumerate(sample.token_ids)
            ],
        )
        for group in given
        for sample in group
    ]
    return pack(samples, 1000)


def last_tokens(given: Groups) -> list[Batch]:
    """One target in a row: of the ranks that share it, only one has a target, and some pairs have fewer rows."""
    samples = [
        replace(sample, loss_mask=(False,) * (len(sample.loss_mask) - 1) + sample.loss_mask[-1:])
        for group in given
        for sample in group
    ]
    return pack(samples, 1)


def own_groups() -> Groups:
    return ranks.share_rows(groups(), lambda group: sum(len(sample.token_ids) for sample in group))


class Store(TeacherStore):
    """Three tokens of each target with half of the mass."""

    def lookup(self, sample: Sample, temperature: float) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        targets = [token for token, trained in zip(sample.token_ids, sample.loss_mask, strict=True) if trained]
        ids = torch.tensor([[(token + more) % VOCABULARY for more in range(3)] for token in targets])
        return ids, torch.tensor([0.3, 0.15, 0.05]).log().expand(len(ids), 3), torch.full((len(ids),), 0.5).log()


def stored() -> Distillation:
    samples = [sample for group in own_groups() for sample in group]
    return Distillation(DistillationSettings(), StoredTeacher(Store(Path()), samples))


ALL = CASES | {
    "stored logits": (policy, stored, packed),
    "sampling mask": (policy, lambda: grpo(PRESETS["grpo"]), masked),
    "one target in a row": (policy, lambda: grpo(PRESETS["grpo"]), last_tokens),
    "windows and sinks": (windows_and_sinks, lambda: next_token, packed),
}


class RowsSettings(Settings):
    sequence_devices: int = unhashed(1)


def run(context: Context) -> Mapping[str, Any]:
    """The gradients and this step's sums of every case; log-probs are those of the first rank's share."""
    attention.register()
    tensors, metrics, given = dict[str, torch.Tensor](), dict[str, float](), groups()
    samples = [sample for group in given for sample in group]
    own = own_groups()
    for name, (make, loss_of, batches_of) in ALL.items():
        learner = Learner(make(), OptimizerSettings(), steps=1)
        totals = replace(Totals.of(samples), num_sequences=len(given) if batches_of is pairs else len(samples))
        means = learner.forward_backward(batches_of(own), loss_of(), totals)
        metrics |= {f"{name}: {key}": value for key, value in means.items()}
        for key, parameter in learner.parameters.items():
            assert parameter.grad is not None, key
            tensors[f"{name}: {key}"] = whole(parameter.grad).contiguous()
        if batches_of is not pairs:
            logprobs = learner.all_logprobs(batches_of(own))
            sums = ranks.gather_rows([float(values.double().sum()) for values in logprobs])
            metrics[f"{name}: all log-probs"] = sum(map(sum, sums))
    if ranks.is_first():
        save_file(tensors, context.folder / "gradients.safetensors")
    return metrics


ROWS = Kind(name="rows", run=run, settings=RowsSettings, shards=True)


def rows(sequence_devices: int) -> Recipe:
    return Recipe("rows", (Stage("rows", ROWS, RowsSettings(sequence_devices=sequence_devices)),))
