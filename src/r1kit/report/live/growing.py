"""JSONL files that grow: each look reads only what was added since the last one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from r1kit.data.jsonl import lines_of, parsed
from r1kit.report.metrics import Metrics
from r1kit.store import open_file

TAIL_BYTES = 256  # before the place where reading stopped: if they differ, the file is another one
MAX_FILES = 64  # whose rows stay in memory


class GrowingMetrics:
    """One `metrics.jsonl`. If a resumed run wrote the file again, it is read from the start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._offset, self._number, self._tail = 0, 0, b""
        self._metrics = Metrics()

    def metrics(self) -> Metrics:
        """What is in the file now. Raises `DataError` for a damaged row."""
        with self._lock:
            try:
                self._read()
            except FileNotFoundError:
                self._forget()
            return self._metrics

    def _read(self) -> None:
        with open_file(self.path) as file:
            file.seek(max(0, self._offset - TAIL_BYTES))
            if file.read(min(TAIL_BYTES, self._offset)) != self._tail:
                self._forget()
            file.seek(self._offset)
            grown, offset, number = self._metrics.copy(), self._offset, self._number  # the old ones may be in use
            for line in lines_of(file, offset=offset, number=number):
                grown.add(parsed(line, self.path))
                offset, number = line.offset + line.length, line.number
            file.seek(max(0, offset - TAIL_BYTES))
            tail = file.read(min(TAIL_BYTES, offset))
        self._offset, self._number, self._tail, self._metrics = offset, number, tail, grown

    def _forget(self) -> None:
        self._offset, self._number, self._tail, self._metrics = 0, 0, b"", Metrics()


class MetricsCache:
    """The metrics of the stages that were asked for last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[Path, GrowingMetrics] = OrderedDict()

    def of(self, stage: Path) -> Metrics:
        with self._lock:
            path = stage / "metrics.jsonl"
            file = self._files.setdefault(path, GrowingMetrics(path))
            self._files.move_to_end(path)
            if len(self._files) > MAX_FILES:
                self._files.popitem(last=False)
        return file.metrics()
