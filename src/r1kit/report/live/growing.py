"""JSONL files that grow: each look reads only what was added since the last one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from r1kit.data.jsonl import lines_of, parsed
from r1kit.report.folders import Row, is_number, with_shared_names
from r1kit.store import open_file

TAIL_BYTES = 256  # before the place where reading stopped: if they differ, the file is another one
MAX_FILES = 64  # whose rows stay in memory


class GrowingMetrics:
    """The rows of one `metrics.jsonl` by step. If a resumed run wrote the file again, it is read from the start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._offset, self._number, self._tail = 0, 0, b""
        self._by_step: dict[float, Row] = {}
        self._rows: list[Row] = []

    def rows(self) -> list[Row]:
        """One row per step, in order; the last of a repeated step counts. Raises `DataError` for a damaged row."""
        with self._lock:
            try:
                self._read()
            except FileNotFoundError:
                self._forget()
            return self._rows

    def _read(self) -> None:
        with open_file(self.path) as file:
            file.seek(max(0, self._offset - TAIL_BYTES))
            if file.read(min(TAIL_BYTES, self._offset)) != self._tail:
                self._forget()
            file.seek(self._offset)
            added = False
            for line in lines_of(file, offset=self._offset, number=self._number):
                row = parsed(line, self.path)
                self._offset, self._number, added = line.offset + line.length, line.number, True
                if is_number(step := row.get("step")):
                    self._by_step[step] = with_shared_names(row)
            file.seek(max(0, self._offset - TAIL_BYTES))
            self._tail = file.read(min(TAIL_BYTES, self._offset))
        if added:  # a new list: the old one may be in use
            self._rows = [self._by_step[step] for step in sorted(self._by_step)]

    def _forget(self) -> None:
        self._offset, self._number, self._tail, self._by_step, self._rows = 0, 0, b"", {}, []


class MetricsCache:
    """The metrics of the stages that were asked for last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, GrowingMetrics] = OrderedDict()

    def rows(self, stage: Path) -> list[Row]:
        with self._lock:
            path = stage / "metrics.jsonl"
            file = self._files.setdefault(path, GrowingMetrics(path))
            self._files.move_to_end(path)
            if len(self._files) > MAX_FILES:
                self._files.popitem(last=False)
        return file.rows()
