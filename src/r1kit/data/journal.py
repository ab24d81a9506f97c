"""Rows that are made batch after batch: a kill costs the batch under way, and what is there is never made again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from r1kit import store
from r1kit.data.jsonl import encoded


class Journal:
    """A JSONL file that grows by whole batches; use as a context manager.

    `<name>.state.json` beside it says how many batches are whole, how many bytes they take, and what was counted while
    they were made. What stands behind those bytes was left by a kill and is cut off, so a batch that is begun again by
    the same rule is neither lost nor there twice. Raises `StoreError` where the file is shorter than its state says.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._state = path, path.with_name(f"{path.name}.state.json")
        state = store.read_json(self._state) if self._state.exists() else {}
        self.batches, self.rows, self._bytes = (int(state.get(name, 0)) for name in ("batches", "rows", "bytes"))
        self.done = bool(state.get("done", False))
        self.counts: Counter[str] = Counter(state.get("counts", {}))
        with store.storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "ab")  # noqa: SIM115 (closed by close)
            size = os.fstat(self._file.fileno()).st_size
            if size < self._bytes:
                self._file.close()
                reason = f"has {size} bytes, and {self._bytes} were written"
                raise store.StoreError(f"{path} {reason}: restore it, or delete its folder to begin anew")
            os.truncate(path, self._bytes)

    def append(self, rows: Iterable[Any], counts: Mapping[str, int]) -> None:
        """Add a batch and what was counted in it; with the return of this call it is there for good."""
        lines = [encoded(store.to_plain(row)) for row in rows]
        with store.storing(self.path):
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.batches, self.rows = self.batches + 1, self.rows + len(lines)
        self._bytes += sum(map(len, lines))
        self.counts.update(counts)
        self._save()

    def finish(self) -> None:
        """All batches are there."""
        self.done = True
        self._save()

    def _save(self) -> None:
        state = {"batches": self.batches, "rows": self.rows, "bytes": self._bytes, "done": self.done}
        store.write_json(self._state, state | {"counts": dict(sorted(self.counts.items()))})

    def close(self) -> None:
        with store.storing(self.path):  # closing writes what is left in the buffer
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
