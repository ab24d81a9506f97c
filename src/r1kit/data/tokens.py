"""Tokenised rows on disk, mapped into memory: 800k long rows need little of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from r1kit.content import seal
from r1kit.data.jsonl import read_rows
from r1kit.store import atomic_folder, read_object, write_json, write_text
from r1kit.types import Sample


class TokenFile(Sequence[Sample]):
    """The samples in a folder written by `write_tokens`; each is read on access."""

    def __init__(self, folder: Path) -> None:
        self.starts = np.load(folder / "starts.npy")
        self._ids = np.memmap(folder / "token_ids.bin", dtype=np.uint32, mode="r") if self.starts[-1] else None
        self._mask = np.memmap(folder / "loss_mask.bin", dtype=np.bool_, mode="r") if self.starts[-1] else None
        self.facts: dict[str, Any] = read_object(folder / "facts.json")
        self.folder = folder

    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        lengths: list[int] = np.diff(self.starts).tolist()
        return lengths

    def rows(self) -> Iterator[dict[str, Any]]:
        """For each sample: file, row, source, sizes and notes."""
        return read_rows(self.folder / "rows.jsonl")

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int, /) -> Sample: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[Sample]: ...
    def __getitem__(self, index: int | slice, /) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self) or self._ids is None or self._mask is None:
            raise IndexError(f"there are {len(self)} samples, asked for {index}")
        cut = slice(int(self.starts[index]), int(self.starts[index + 1]))
        return Sample(token_ids=self._ids[cut].tolist(), loss_mask=self._mask[cut].tolist())


@dataclass(frozen=True)
class Tokenised:
    """A sample, the place of its row, and notes on that row."""

    sample: Sample
    file: str = ""
    row: int = 0
    source: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


def key_of(sample: Sample) -> str:
    """A hash of a sample's content, as 16 hex digits."""
    ids = np.asarray(sample.token_ids, dtype=np.uint32).tobytes()
    mask = np.asarray(sample.loss_mask, dtype=np.bool_).tobytes()
    return hashlib.sha256(ids + mask).hexdigest()[:16]


def write_tokens(folder: Path, samples: Iterable[Tokenised], left_out: Sequence[Mapping[str, Any]] = ()) -> TokenFile:
    """Write samples one by one; the folder appears complete or not at all.

    It also holds `rows.jsonl` (the file and row of each sample), `dropped.jsonl` (`left_out`, as it is at the end) and
    counts by source.
    """
    starts = [0]
    counts: dict[str, dict[str, int]] = {}
    with atomic_folder(folder) as part:
        with (
            open(part / "token_ids.bin", "wb") as ids,
            open(part / "loss_mask.bin", "wb") as masks,
            open(part / "rows.jsonl", "w", encoding="utf-8") as rows,
        ):
            for row in samples:
                token_ids, mask = row.sample.token_ids, row.sample.loss_mask
                assert len(token_ids) == len(mask)
                ids.write(np.asarray(token_ids, dtype=np.uint32).tobytes())
                masks.write(np.asarray(mask, dtype=np.bool_).tobytes())
                starts.append(starts[-1] + len(token_ids))
                place = {"file": Path(row.file).name, "row": row.row, "source": row.source}
                sizes = {"tokens": len(token_ids), "trained": sum(mask)}
                rows.write(json.dumps(place | sizes | dict(row.notes), ensure_ascii=False) + "\n")
                count = counts.setdefault(row.source, {"samples": 0, "tokens": 0, "trained": 0})
                for name, more in {"samples": 1, **sizes}.items():
                    count[name] += more
        np.save(part / "starts.npy", np.asarray(starts, dtype=np.int64))
        dropped = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in left_out)
        write_text(part / "dropped.jsonl", dropped)
        write_json(part / "facts.json", {"sources": counts, "dropped": len(left_out)})
        seal(part)
    return TokenFile(folder)
