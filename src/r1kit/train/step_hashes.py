"""Short hashes of everything that leads from the weights of one step to those of the next.

`step_hashes.jsonl` has a row per step. `r1kit replay` compares a repeated step with it, and `r1kit bisect` finds in two
of them the step at which two runs part. The keys of a row are in the order of the computation, so the first that
differs is the cause. A list has one hash per completion, per batch of given rows, or per update.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from r1kit import ranks
from r1kit.models.batch import Batch
from r1kit.models.shard import local

COLUMNS = 1024
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # integers of as many bytes


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A hash of the exact bits of named tensors, from one pass over their memory, on their device.

    On a GPU the bits of a tensor are added as integers in `COLUMNS` columns, and only these sums leave the device. The
    hash of a CPU is another one, but so are its weights.
    """
    digest, sums = hashlib.sha256(), list[Tensor]()
    for name, tensor in tensors.items():
        flat = local(tensor.detach()).contiguous().reshape(-1)
        flat = flat.view(BITS[flat.element_size()])
        digest.update(f"{name} {len(flat)} ".encode())
        if flat.device.type == "cpu":
            digest.update(zlib.crc32(flat.numpy().data).to_bytes(4, "big"))
            continue
        whole = len(flat) // COLUMNS * COLUMNS
        columns = flat[:whole].view(-1, COLUMNS).sum(0, dtype=torch.int64)  # [COLUMNS]
        columns[: len(flat) - whole] += flat[whole:]
        sums.append(columns)
    if sums:
        digest.update(torch.stack(sums).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def hash_of(*values: Any) -> str:
    """A hash of numbers, texts and lists; floats count with all their digits."""
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def hash_floats(values: Sequence[float]) -> str:
    """`hash_of` for many floats, faster."""
    return f"{zlib.crc32(struct.pack(f'{len(values)}d', *values)):08x}"


def hash_batches(batches: Sequence[Batch]) -> list[str]:
    """The hash of the token ids of each batch of an update on given rows."""
    return [fingerprint({"token_ids": batch.token_ids})[:8] for batch in batches]


def sharing() -> dict[str, int]:
    """The number of ranks, if there are several. Hashes of rows and updates are then those of the first rank's part."""
    return {"ranks": ranks.count()} if ranks.count() > 1 else {}
