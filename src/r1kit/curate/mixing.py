"""Mixes sources into one training set at given ratios, such as the paper's three parts of reasoning to one of general.

The choice and order of rows depend on seed, source and id only, never on the order of the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from r1kit import store
from r1kit.curate.balance import quotas
from r1kit.curate.ngrams import stable_hash
from r1kit.curate.record import from_row
from r1kit.data.jsonl import MAX_ROW_BYTES, ReplayWriter, Rereader, encoded, lines, parse_json, parsed
from r1kit.settings import Settings

_ROW = np.dtype([("file", "u2"), ("source", "u2"), ("offset", "i8"), ("length", "u4"), ("key", "u8")])


class MixSettings(Settings):
    """Parts per source, such as 3 reasoning to 1 general (paper, section 2.3.3: 600k and 200k).

    Without `size`, the result is as large as the ratios allow with each row at most `max_repeats` times. With it, the
    other sources fill what one lacks.
    """

    ratios: dict[str, float] = Field(default={"reasoning": 3.0, "general": 1.0}, min_length=1)
    size: int | None = Field(default=None, ge=1)
    max_repeats: int = Field(default=1, ge=1, le=256, description="how often a row of a scarce source can be used")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_ratios(self) -> Self:
        wrong = next((name for name, ratio in self.ratios.items() if not ratio > 0), None)
        if wrong is not None:
            ratio = self.ratios[wrong]
            raise ValueError(f"the ratio of {wrong} is {ratio}: it must be above 0, or leave the source out")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One source: `taken` of its `available` rows make `share` of the result; `asked` is the share by its ratio."""

    source: str
    available: int
    taken: int
    share: float
    asked: float


def mix(sources: Mapping[str, Sequence[Path]], out: Path, settings: MixSettings | None = None) -> tuple[Share, ...]:
    """Write conversations (`messages`, `source`, `metadata`) of all sources to `out`, shuffled; the shares beside it.

    Reads rows as `record.from_row` does. All columns except the messages become metadata, with the source's name under
    `mixture`. Raises ValueError if sources and ratios have different names or a source is empty, and `DataError` with
    file, row and field for a bad row. A killed call can be repeated and continues.
    """
    settings = settings or MixSettings()
    if sources.keys() != settings.ratios.keys():
        raise ValueError(
            f"there are ratios for {', '.join(settings.ratios)}, but the sources are {', '.join(sources)}: use "
            "the same names"
        )
    files = [path for name in settings.ratios for path in sources[name]]
    hashes = {f"{number} {file.name}": store.sha256(file) for number, file in enumerate(files)}
    fingerprint = store.combine({**hashes, "settings": settings.model_dump_json(), "sources": repr(list(sources))})
    report = out.with_suffix(".mix.json")
    done = store.read_object(report) if report.exists() else {}
    is_new = done.get("fingerprint") != fingerprint
    if is_new:
        for stale in (out, out.with_name(out.name + ".part")):
            stale.unlink(missing_ok=True)
    if not out.exists():
        rows = _index(sources, settings)
        if is_new:
            done = {"fingerprint": fingerprint, "shares": [asdict(share) for share in _shares(rows, settings)]}
            store.write_json(report, done)
        names = list(settings.ratios)
        with Rereader(files) as reader, closing(ReplayWriter(out)) as output:
            for entry in _chosen(rows, settings):
                output.put(partial(_conversation, reader, entry, names[entry["source"]]))
            output.finish()
        done = done | {"content": store.sha256(out)}
        store.write_json(report, done)
    elif done.get("content") not in (None, store.sha256(out)):
        raise store.StoreError(f"{out} is damaged: it is not as it was written; delete it, and it is mixed again")
    return tuple(Share(**share) for share in done["shares"])


def _index(sources: Mapping[str, Sequence[Path]], settings: MixSettings) -> NDArray[Any]:
    """The place of each row and the hash that orders it: 26 bytes per row and repeat."""
    pieces = []
    files = [(number, name, path) for number, name in enumerate(settings.ratios) for path in sources[name]]
    for file, (number, name, path) in enumerate(files):
        entries = []
        for line in lines(path):
            sample = from_row(parsed(line, path, MAX_ROW_BYTES), file=str(path), number=line.number)
            for repeat in range(settings.max_repeats):
                # repeats differ in their highest bits: no row is taken twice before all are taken once
                place = stable_hash(f"{settings.seed}/{name}/{sample.id}/{repeat}") >> 8 | repeat << 56
                entries.append((file, number, line.offset, line.length, place))
        pieces.append(np.array(entries, dtype=_ROW))
    rows = np.concatenate([np.zeros(0, dtype=_ROW), *pieces])
    empty = [name for number, name in enumerate(settings.ratios) if not (rows["source"] == number).any()]
    if empty:
        raise ValueError(f"source {empty[0]} has no rows: leave it out of the ratios, or see why nothing was kept")
    return rows


def _shares(rows: NDArray[Any], settings: MixSettings) -> list[Share]:
    counts, parts = _quotas(rows, settings), sum(settings.ratios.values())
    return [
        Share(
            source=name,
            available=int((rows["source"] == number).sum()) // settings.max_repeats,
            taken=counts[number],
            share=counts[number] / max(1, sum(counts)),
            asked=ratio / parts,
        )
        for number, (name, ratio) in enumerate(settings.ratios.items())
    ]


def _quotas(rows: NDArray[Any], settings: MixSettings) -> list[int]:
    available = np.bincount(rows["source"], minlength=len(settings.ratios)).tolist()
    return quotas(available, list(settings.ratios.values()), settings.size)


def _chosen(rows: NDArray[Any], settings: MixSettings) -> NDArray[Any]:
    """The first rows of each source by key, up to its quota, then all of them in the order of another hash."""
    quotas_of = []
    for source, quota in enumerate(_quotas(rows, settings)):
        own = rows[rows["source"] == source]
        quotas_of.append(own[np.argsort(own["key"], kind="stable")][:quota])
    chosen = np.concatenate(quotas_of)
    mask = np.uint64(stable_hash(f"order/{settings.seed}") & (2**56 - 1))
    low = (chosen["key"] & np.uint64(2**56 - 1)) * np.uint64(0x9E3779B97F4A7C15) ^ mask
    return chosen[np.argsort(low, kind="stable")]


def _conversation(reader: Rereader, entry: Any, mixture: str) -> bytes:
    """A row as a `Conversation`, encoded: all columns except the messages become metadata."""
    row = parse_json(reader.read(int(entry["file"]), int(entry["offset"]), int(entry["length"])))
    metadata = {name: value for name, value in row.items() if name not in ("messages", "source") and value is not None}
    source = row.get("source") or mixture
    return encoded({"messages": row["messages"], "source": source, "metadata": {**metadata, "mixture": mixture}})
