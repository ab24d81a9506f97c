"""Replies on disk, stored as they arrive: a kill at any time loses only the requests in flight."""

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

BUSY_S = 60.0  # how long to wait for another process that holds the file's lock
_TABLE = """CREATE TABLE IF NOT EXISTS replies
(key TEXT PRIMARY KEY, model TEXT, prompt_id TEXT, stored_at REAL, reply TEXT) WITHOUT ROWID"""


class ReplyCache:
    """Replies by key in an SQLite file that any number of engines and processes may share.

    Raises `StoreError` if the file is damaged, is not such a cache, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._store_errors():
            self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None)
            try:
                self._use_wal()
                # enough with the write-ahead log: only a power failure can lose the newest replies
                self._db.execute("PRAGMA synchronous=NORMAL")
                self._db.execute(_TABLE)
            except sqlite3.Error:
                self._db.close()
                raise

    def get(self, key: str) -> Reply | None:
        with self._store_errors():
            row = self._db.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        values = json.loads(row[0])
        values["token_ids"], values["logprobs"] = tuple(values["token_ids"]), tuple(values["logprobs"])
        return Reply(**values)

    def put(self, key: str, model: str, prompt_id: str, reply: Reply) -> None:
        text = json.dumps(to_plain(reply))  # ASCII, so a lone surrogate in model text comes back unchanged
        row = (key, model, prompt_id.encode("utf-8", "replace").decode(), time.time(), text)
        with self._store_errors():
            # two processes that asked the same at once: the first reply stays
            self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._db.close()

    def _use_wal(self) -> None:
        """Switch to the write-ahead log, with which a killed process loses nothing that was committed.

        If another process writes at this moment, SQLite refuses the switch at once instead of waiting for `timeout`.
        """
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                # the low byte is the error; the rest says which kind of busy it is
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            remedy = "free some space, or set" if full else "set"
            raise StoreError(
                f"cannot use the reply cache {self.path} ({error}): {remedy} the engine's cache to another file "
                "(stored replies stay in this one)"
            ) from error
