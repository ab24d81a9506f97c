"""Short hashes of everything that leads from the weights of one step to those of the next.

`step_hashes.jsonl` has a row per step. `r1kit replay` compares a repeated step with it, and `r1kit bisect` finds in two
of them the step at which two runs part. The keys of a row are in the order of the computation, so the first that
differs is the cause. A list has one hash per completion, per batch of given rows, or per update.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from r1kit.models.batch import Batch
from r1kit.models.fingerprint import fingerprint


def hash_of(*values: Any) -> str:
    """A hash of numbers, texts and lists; floats count with all their digits."""
    return f"{zlib.crc32(json.dumps(values).encode()):08x}"


def hash_floats(values: Sequence[float]) -> str:
    """`hash_of` for many floats, faster."""
    return f"{zlib.crc32(struct.pack(f'{len(values)}d', *values)):08x}"


def hash_batches(batches: Sequence[Batch]) -> list[str]:
    """The hash of the token ids of each batch of an update on given rows."""
    return [fingerprint({"token_ids": batch.token_ids})[:8] for batch in batches]
