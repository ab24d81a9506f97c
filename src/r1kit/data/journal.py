"""Rows that are produced in batches. A kill costs the current batch; finished batches are never produced again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from r1kit import store
from r1kit.data.jsonl import RowWriter, encoded


class Journal:
    """A JSONL file that grows by whole batches; use as a context manager.

    `<name>.state.json` holds the number of finished batches, their size in bytes and their hash, and the counts of what
    happened while they were produced. Opening cuts off everything after those bytes, so a batch that is started again
    is neither lost nor written twice. Raises `StoreError` if the file does not begin with these bytes.
    `keeps_stateless`: rows without a state, which an older version wrote, are kept.
    """

    def __init__(self, path: Path, *, keeps_stateless: bool = False) -> None:
        self.path, self._state = path, path.with_name(f"{path.name}.state.json")
        is_new = not self._state.exists()
        empty: dict[str, Any] = {"batches": 0, "rows": 0, "bytes": 0}
        state = empty if is_new else store.read_object(self._state)
        again = "restore it, or delete its folder to start again"
        try:
            self.batches, self.rows, size = (int(state[name]) for name in ("batches", "rows", "bytes"))
            self.done = bool(state.get("done", False))
            self.counts: Counter[str] = Counter({str(key): int(n) for key, n in dict(state.get("counts", {})).items()})
        except (KeyError, TypeError, ValueError) as error:
            raise store.StoreError(f"{self._state} is not the state of {path.name} ({error}): {again}") from None
        self._rows = RowWriter(path)
        if self._rows.size < size:
            self._rows.close()
            reason = f"has {self._rows.size} bytes, and {size} were written"
            raise store.StoreError(f"{path} {reason}: {again}")
        if is_new and keeps_stateless:
            size = self._rows.size
        self._hash, left = hashlib.sha256(), size
        for block in self._rows.blocks():
            self._hash.update(block[:left])
            left = max(0, left - len(block))
        if state.get("sha256") not in (None, self._hash.hexdigest()):  # None: an older version wrote it
            self._rows.close()
            raise store.StoreError(f"{path} is damaged: its rows are not those that were written; {again}")
        self._rows.truncate(size)  # last: a damaged file stays as it is

    def append(self, rows: Iterable[Any], counts: Mapping[str, int]) -> None:
        """Add a batch and its counts. When this returns, the batch would survive a power cut."""
        lines = [encoded(store.to_plain(row)) for row in rows]
        written = b"".join(lines)
        self._rows.write(written)
        self._rows.sync()
        self._hash.update(written)
        self.batches, self.rows = self.batches + 1, self.rows + len(lines)
        self.counts.update(counts)
        self._save()

    def finish(self) -> None:
        """Record that no batch is missing."""
        self.done = True
        self._save()

    def _save(self) -> None:
        size, digest = self._rows.size, self._hash.hexdigest()
        state = {"batches": self.batches, "rows": self.rows, "bytes": size, "sha256": digest, "done": self.done}
        store.write_json(self._state, state | {"counts": dict(sorted(self.counts.items()))})

    def close(self) -> None:
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
