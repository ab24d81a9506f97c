"""Replies on disk: each is stored as it arrives, so that a kill at any instant costs only what was under way."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from r1kit.engines.openai.responses import Reply
from r1kit.store import StoreError, storing, to_plain

_TABLE = """CREATE TABLE IF NOT EXISTS replies
(key TEXT PRIMARY KEY, model TEXT, prompt_id TEXT, stored_at REAL, reply TEXT) WITHOUT ROWID"""


class ReplyCache:
    """Replies by key in an SQLite file, which any number of engines and processes may share.

    Raises `StoreError` where the file is no such cache, is damaged, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._guarded():
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            try:
                self._db.execute("PRAGMA journal_mode=WAL")  # a killed process loses nothing that was committed
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute(_TABLE)
            except sqlite3.Error:
                self._db.close()
                raise

    def get(self, key: str) -> Reply | None:
        with self._guarded():
            row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        values = json.loads(row[0])
        values["token_ids"], values["logprobs"] = tuple(values["token_ids"]), tuple(values["logprobs"])
        return Reply(**values)

    def put(self, key: str, model: str, prompt_id: str, reply: Reply) -> None:
        text = json.dumps(to_plain(reply))  # ASCII: a lone surrogate in model text comes back as it was
        row = (key, model, prompt_id.encode("utf-8", "replace").decode(), time.time(), text)
        with self._guarded():
            self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot use the cache of replies {self.path}: {error}: make room, or set the engine's cache to "
                "another file (replies stored so far stay in this one)"
            ) from error
