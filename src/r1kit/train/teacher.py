"""Teachers for distillation: a model in memory, or its top-k logits stored on disk with the mass of all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from r1kit.data.tokens import key_of
from r1kit.models.batch import Batch
from r1kit.models.compute import computing
from r1kit.models.hub import tokens_hash
from r1kit.models.known import ModelError
from r1kit.models.policy_net import PolicyNet
from r1kit.models.shared_rows import require_shared_rows
from r1kit.store import StoreError, read_object, write_bytes, write_json
from r1kit.train.losses.distillation import SoftTargetsOf
from r1kit.train.losses.divergence import Dense, TopK
from r1kit.train.packing import pack
from r1kit.types import Sample

ABOUT = "teacher.json"
SHARD = "shard-{:06d}.safetensors"


@dataclass(frozen=True)
class ModelTeacher:
    """A language model that runs beside the student; ids below `vocabulary` are tokens that both know.

    With `top_k` its targets are the k likeliest tokens and the mass of all others.
    """

    model: Any
    vocabulary: int
    top_k: int = 0

    def __post_init__(self) -> None:
        require_shared_rows(self.model)

    def targets(self, batch: Batch, temperature: float) -> SoftTargetsOf:
        net = PolicyNet.of(self.model.eval())  # no dropout: the same targets in every epoch
        hidden = net.hidden_states(batch)[batch.own_targets.positions]  # [N, d]
        # logits chunk by chunk, when the student's chunk needs them: [N, V] at once would be the largest tensor
        if not self.top_k:
            return lambda chunk: Dense(net.logits(hidden[chunk]), self.vocabulary, temperature)

        def likeliest(chunk: slice) -> TopK:
            logits = net.logits(hidden[chunk])[:, : self.vocabulary]  # [n, vocabulary]
            top = top_k(logits, min(self.top_k, self.vocabulary), [temperature])
            logprobs = top["logits"] / temperature - top["logsumexp"]  # [n, k]
            return TopK(top["token_ids"].long(), logprobs, top["log_tail"][:, 0])

        return likeliest


@dataclass(frozen=True)
class StoredTeacher:
    """Stored logits; `samples` are those of the update, in their order before packing."""

    store: TeacherStore
    samples: Sequence[Sample]

    def targets(self, batch: Batch, temperature: float) -> SoftTargetsOf:
        # in the order of the packed row, as the batch's targets are
        stored = [self.store.lookup(self.samples[index], temperature) for index in batch.order]
        device = batch.token_ids.device
        ids, logprobs, tails = (torch.cat(parts).to(device) for parts in zip(*stored, strict=True))  # [N, k] twice, [N]
        assert len(ids) == len(batch.targets), "one stored distribution for each target"
        own = batch.layout.local_indices(batch.targets.positions)
        return lambda chunk: TopK(ids[own[chunk]].long(), logprobs[own[chunk]], tails[own[chunk]])


@dataclass
class TeacherStore:
    """A folder of shards, each complete: token ids, logits, and log-sum-exp and tail mass at each temperature.

    The key of a row is its content (token ids and loss mask), so one store serves any number of students in any order.
    `teacher.json` identifies the tokenizer.
    """

    folder: Path
    about: dict[str, Any] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    shards: int = 0

    @staticmethod
    def open(folder: Path) -> TeacherStore:
        """Read the index of rows; raises `StoreError` if the folder is not a store."""
        from safetensors import SafetensorError, safe_open

        if not (folder / ABOUT).is_file():
            raise StoreError(f"{folder} holds no teacher's logits: give the folder logits/ of a teacher-logits stage")
        store = TeacherStore(folder, read_object(folder / ABOUT))
        while (path := folder / SHARD.format(store.shards)).is_file():  # shards are numbered without a gap
            try:
                with safe_open(path, framework="pt") as file:
                    keys = file.metadata()["keys"].split()
            except (SafetensorError, OSError) as error:
                remedy = "delete it, all later shards and the manifest.json beside logits/, and they are made again"
                raise StoreError(f"{path} is damaged ({error}): {remedy}") from error
            store.places |= {key: (store.shards, row) for row, key in enumerate(keys)}
            store.shards += 1
        return store

    def append(self, samples: Sequence[Sample], tensors: dict[str, Tensor]) -> None:
        """Write one shard; `tensors` are those of `top_k`, with the samples' targets one after another."""
        from safetensors.torch import save

        keys = [key_of(sample) for sample in samples]
        # targets of sample i: rows [starts[i], starts[i + 1]); the first token of a sample is no target
        starts = np.cumsum([0, *(sum(sample.loss_mask[1:]) for sample in samples)])
        assert all(len(tensor) == starts[-1] for tensor in tensors.values()), "one row for each target of the samples"
        data = save({**tensors, "starts": torch.from_numpy(starts)}, metadata={"keys": " ".join(keys)})
        write_bytes(self.folder / SHARD.format(self.shards), data)
        self.places |= {key: (self.shards, row) for row, key in enumerate(keys)}
        self.shards += 1

    def require_temperature(self, temperature: float) -> int:
        """The column of a temperature; raises ValueError if its tail mass was not stored."""
        known: list[float] = self.about["temperatures"]
        if temperature not in known:
            raise ValueError(
                f"the logits were stored for temperatures {known}, not {temperature}, and cannot be converted: store "
                "them again for it, or distill at a stored one"
            )
        return known.index(temperature)

    def lookup(self, sample: Sample, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids [n, k], their log-probs and the log of the tail's mass [n] for a sample's n targets."""
        from safetensors import safe_open

        column = self.require_temperature(temperature)
        # slices read from disk what they cover, not the whole shard
        shard, row = self.places[key_of(sample)]
        with safe_open(self.folder / SHARD.format(shard), framework="pt") as file:
            first, last = file.get_slice("starts")[row : row + 2].tolist()
            ids, logits = (file.get_slice(name)[first:last] for name in ("token_ids", "logits"))
            normaliser, tail = (file.get_slice(name)[first:last, column] for name in ("logsumexp", "log_tail"))
        return ids, logits / temperature - normaliser[:, None], tail  # log p = z / T - logsumexp over the vocabulary


def top_k(logits: Tensor, k: int, temperatures: Sequence[float]) -> dict[str, Tensor]:
    """The k largest logits [n, k] with their ids, and for each temperature log-sum-exp and the tail's log mass [n, m].

    The tail is summed from its own logits, so a mass of 1e-12 is as exact as one of 0.1; it is -inf if k covers the
    vocabulary.
    """
    values, ids = logits.topk(k, dim=-1)  # [n, k] each
    rest = logits.scatter(1, ids, float("-inf"))  # [n, V], without the k
    # not 1 - sum of the k: that difference would be a rounding error for a small tail
    whole = torch.stack([(logits / t).logsumexp(-1) for t in temperatures], dim=1)
    tail = torch.stack([(rest / t).logsumexp(-1) for t in temperatures], dim=1) - whole
    return {"token_ids": ids.int(), "logits": values, "logsumexp": whole, "log_tail": tail}


def store_logits(
    model: Any,
    vocabulary: int,
    samples: Sequence[Sample],
    folder: Path,
    about: dict[str, Any],
    *,
    tokens_per_batch: int,
    targets_per_shard: int,
    report: Callable[[int, int], None],
) -> TeacherStore:
    """Run a teacher over samples and store its top-k logits; continues after the last complete shard.

    `about` needs `top_k`, `temperatures` and the facts of the tokenizer.
    """
    if (folder / ABOUT).is_file() and (stored := read_object(folder / ABOUT)) != about:
        differs = [
            f"{name} is {stored.get(name)}, not {value}" for name, value in about.items() if stored.get(name) != value
        ]
        raise StoreError(f"{folder} holds logits of another kind ({'; '.join(differs)}): give another folder")
    write_json(folder / ABOUT, about)
    store = TeacherStore.open(folder)
    part, targets = list[Sample](), 0
    for done, sample in enumerate(samples, 1):
        part.append(sample)
        targets += sum(sample.loss_mask)
        if targets < targets_per_shard and done < len(samples):
            continue
        # rows of equal content are stored once
        new = list({key: sample for sample in part if (key := key_of(sample)) not in store.places}.values())
        if new:
            store.append(new, _top_k_of(model, vocabulary, new, about, tokens_per_batch))
        report(done, len(samples))
        part, targets = [], 0
    return store


def _top_k_of(
    model: Any, vocabulary: int, samples: Sequence[Sample], about: dict[str, Any], tokens_per_batch: int
) -> dict[str, Tensor]:
    """The tensors of `top_k` for all targets, in the order of the samples."""
    net = PolicyNet.of(model.eval())
    by_sample: list[dict[str, Tensor]] = [{}] * len(samples)
    with torch.no_grad(), computing(model):
        for batch in pack(samples, tokens_per_batch, model):
            hidden = net.hidden_states(batch)[batch.targets.positions]  # [N, d]
            chunks = [  # of [n, V] logits, of which [n, k] remain
                top_k(net.logits(states)[:, :vocabulary], about["top_k"], about["temperatures"])
                for states in hidden.split(net.chunk_size())
            ]
            rows = {name: torch.cat([chunk[name] for chunk in chunks]).cpu() for name in chunks[0]}  # [N, ...] each
            pieces = {name: tensor.split(list(batch.targets.lengths)) for name, tensor in rows.items()}
            for place, index in enumerate(batch.order):  # packing sorts; the shard keeps the samples' order
                by_sample[index] = {name: parts[place] for name, parts in pieces.items()}
    return {name: torch.cat([tensors[name] for tensors in by_sample]).contiguous() for name in by_sample[0]}


def tokenizer_facts(tokenizer: Any) -> dict[str, Any]:
    """Facts that must match for two tokenizers to share token ids."""
    return {"vocabulary": vocabulary_of(tokenizer), "tokenizer": tokens_hash(tokenizer)}


def vocabulary_of(tokenizer: Any) -> int:
    """The number of ids up to the last token. Some tokenizers skip ids, so it can exceed the number of tokens."""
    return 1 + int(max(tokenizer.get_vocab().values()))


def _token(tokens: dict[int, str], token_id: int) -> str:
    return repr(tokens[token_id]) if token_id in tokens else "no token"


def require_same_tokens(student: Any, teacher: Any) -> None:
    """Raise `ModelError`, which names the first difference, if two tokenizers do not give each id the same token."""
    ours, theirs = ({i: token for token, i in tokenizer.get_vocab().items()} for tokenizer in (student, teacher))
    differing = [i for i in sorted(ours.keys() | theirs.keys()) if ours.get(i) != theirs.get(i)]
    if differing:
        first = differing[0]
        raise ModelError(
            f"teacher and student have different tokens ({len(theirs)} and {len(ours)}; the first difference is id "
            f"{first}, {_token(theirs, first)} for the teacher and {_token(ours, first)} for the student), so logits "
            "cannot be compared: use a teacher of the student's family, or train on the teacher's traces with the "
            "stage sft"
        )
