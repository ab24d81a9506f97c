"""Tokenised rows on disk: made once, mapped into memory, so that 800k long rows need little of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np

from r1kit.data.jsonl import read_rows
from r1kit.store import atomic_folder, read_json, write_json, write_text
from r1kit.types import Sample


class TokenFile(Sequence[Sample]):
    """Samples of a folder that `write_tokens` made; each is read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.starts = np.load(folder / "starts.npy")
        self._ids = np.memmap(folder / "token_ids.bin", dtype=np.uint32, mode="r") if self.starts[-1] else None
        self._mask = np.memmap(folder / "loss_mask.bin", dtype=np.bool_, mode="r") if self.starts[-1] else None
        self.facts: dict[str, Any] = read_json(folder / "facts.json")
        self.folder = folder

    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        found: list[int] = np.diff(self.starts).tolist()
        return found

    def rows(self) -> Iterator[dict[str, Any]]:
        """For each sample: file, row, source, sizes, and what else was noted."""
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
    """A sample, the row that it was made of, and what else is to be kept of that row."""

    sample: Sample
    file: str = ""
    row: int = 0
    source: str = ""
    notes: Mapping[str, Any] = field(default_factory=dict)


def key_of(sample: Sample) -> str:
    """What a sample consists of, as 16 hex digits."""
    ids = np.asarray(sample.token_ids, dtype=np.uint32).tobytes()
    mask = np.asarray(sample.loss_mask, dtype=np.bool_).tobytes()
    return hashlib.sha256(ids + mask).hexdigest()[:16]


def write_tokens(folder: Path, samples: Iterable[Tokenised], left_out: Sequence[Mapping[str, Any]] = ()) -> TokenFile:
    """Write samples one after another; the folder appears whole or not at all.

    Beside the tokens lie `rows.jsonl` (the file and row of each sample), `dropped.jsonl` (what `left_out` holds by the
    end) and counts by source.
    """
    starts = [0]
    counts: dict[str, dict[str, int]] = {}
    with atomic_folder(folder) as part:
        with (
            open(part / "token_ids.bin", "wb") as ids,
            open(part / "loss_mask.bin", "wb") as masks,
            open(part / "rows.jsonl", "w", encoding="utf-8") as rows,
        ):
            for one in samples:
                ids.write(np.asarray(one.sample.token_ids, dtype=np.uint32).tobytes())
                masks.write(np.asarray(one.sample.loss_mask, dtype=np.bool_).tobytes())
                starts.append(starts[-1] + len(one.sample.token_ids))
                trained = sum(one.sample.loss_mask)
                place = {"file": Path(one.file).name, "row": one.row, "source": one.source}
                sizes = {"tokens": len(one.sample.token_ids), "trained": trained}
                rows.write(json.dumps(place | sizes | dict(one.notes), ensure_ascii=False) + "\n")
                count = counts.setdefault(one.source, {"samples": 0, "tokens": 0, "trained": 0})
                for name, more in (("samples", 1), ("tokens", len(one.sample.token_ids)), ("trained", trained)):
                    count[name] += more
        np.save(part / "starts.npy", np.asarray(starts, dtype=np.int64))
        dropped = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in left_out)
        write_text(part / "dropped.jsonl", dropped)
        write_json(part / "facts.json", {"sources": counts, "dropped": len(left_out)})
    return TokenFile(folder)
