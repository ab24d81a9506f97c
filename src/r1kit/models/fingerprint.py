"""A short hash of the exact bits of tensors, computed where they are."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

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
