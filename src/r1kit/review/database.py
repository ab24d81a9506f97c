"""The SQLite file of a review queue: its schema, every SQL statement, transactions, and errors in plain words.

`history` is the truth and is append-only, so an undo is a line of its own. `items.state` is derived from it in the same
transaction. The view `standing` has the lines that are neither undone nor undos.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from r1kit.review.items import ReviewError, ReviewItem, Text, parse_item
from r1kit.review.outcomes import Decision, Outcome
from r1kit.store import StoreError, storing

APPLICATION = 0x72316B71  # "r1kq": marks an SQLite file as a review queue
VERSION = 1
SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (
  position INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, body TEXT NOT NULL, wanted INTEGER NOT NULL,
  state TEXT NOT NULL DEFAULT 'open', accepted INTEGER, text TEXT);
CREATE INDEX items_by_state ON items (state, accepted, position);
CREATE TABLE leases (item TEXT PRIMARY KEY REFERENCES items (id), who TEXT NOT NULL, given REAL, until REAL NOT NULL);
CREATE TABLE history (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL, who TEXT NOT NULL, item TEXT NOT NULL REFERENCES items (id),
  action TEXT NOT NULL, role TEXT NOT NULL, reason TEXT NOT NULL, before TEXT, after TEXT,
  undoes INTEGER UNIQUE REFERENCES history (seq));
CREATE INDEX history_by_item ON history (item, seq);
CREATE INDEX history_by_who ON history (who, seq);
CREATE TRIGGER history_stays BEFORE UPDATE ON history BEGIN SELECT RAISE (ABORT, 'history is never changed'); END;
CREATE TRIGGER history_lasts BEFORE DELETE ON history BEGIN SELECT RAISE (ABORT, 'history is never deleted'); END;
CREATE VIEW standing AS SELECT * FROM history AS line
  WHERE action <> 'undo' AND NOT EXISTS (SELECT 1 FROM history WHERE undoes = line.seq);
"""
# Queues of earlier versions lack it.
INDEX = "CREATE INDEX IF NOT EXISTS items_left ON items (position) WHERE state <> 'done'"
# Available to a reviewer: not done, and no other reviewer's lease is running.
AVAILABLE = """items.state <> 'done'
  AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.item = items.id AND who <> :who AND until > :now)"""
# With `+`, SQLite looks the decisions up by item, of which there are few, and not by reviewer, of whom there are many.
VOTED = "EXISTS (SELECT 1 FROM standing WHERE standing.item = items.id AND +who = :who AND role <> 'skip')"
SKIPPED = "(SELECT MAX(seq) FROM standing WHERE standing.item = items.id AND +who = :who AND role = 'skip')"
# A reviewer's next sample, by priority: the one they have open, a new one, a disagreement, the one skipped first.
NEXT_ITEM = (
    f"""SELECT items.* FROM items JOIN leases ON leases.item = items.id
    WHERE leases.who = :who AND {AVAILABLE} ORDER BY given DESC LIMIT 1""",
    f"SELECT * FROM items WHERE {AVAILABLE} AND NOT {VOTED} AND {SKIPPED} IS NULL ORDER BY position LIMIT 1",
    f"SELECT * FROM items WHERE {AVAILABLE} AND state = 'disputed' AND {SKIPPED} IS NULL ORDER BY position LIMIT 1",
    f"SELECT * FROM items WHERE {AVAILABLE} AND (state = 'disputed' OR NOT {VOTED}) ORDER BY {SKIPPED} LIMIT 1",
)
PROGRESS = """SELECT COUNT(*) AS total, COALESCE(SUM(state <> 'done'), 0) AS pending,
  COALESCE(SUM(state = 'done' AND accepted = 1), 0) AS accepted,
  COALESCE(SUM(state = 'done' AND accepted = 0), 0) AS rejected,
  COALESCE(SUM(state = 'done' AND text IS NOT NULL), 0) AS edited,
  COALESCE(SUM(state = 'disputed'), 0) AS disputed,
  (SELECT COUNT(DISTINCT item) FROM standing JOIN items ON items.id = standing.item
    WHERE role = 'vote' AND state = 'open') AS second,
  (SELECT COUNT(*) FROM leases WHERE until > ?) AS leased FROM items"""
REVIEWERS = """SELECT who, SUM(action = 'accept') AS accepted, SUM(action = 'edit') AS edited,
  SUM(action = 'reject') AS rejected, SUM(action = 'skip') AS skipped, MAX(at) AS last
  FROM standing GROUP BY who ORDER BY COUNT(*) DESC, who"""
VOTES = """SELECT standing.item, action FROM standing JOIN items ON items.id = standing.item
  WHERE role = 'vote' AND wanted = 2 ORDER BY position, seq"""
LEASE = """INSERT INTO leases VALUES (?1, ?2, ?3, ?4)
  ON CONFLICT (item) DO UPDATE SET given = IIF(who = ?2, given, ?3), who = ?2, until = ?4"""
RECORD = """INSERT INTO history (at, who, item, action, role, reason, before, after, undoes)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
EMPTY = "{path} has 0 bytes: it was cut; restore it from a copy, or delete it to begin the review again"
DAMAGED = "the file is damaged: restore it from a copy"
# What SQLite's errors mean for the user; all others are bugs.
ERRORS: Mapping[str, tuple[type[ReviewError] | type[StoreError], str]] = {
    "SQLITE_FULL": (StoreError, "the disk is full; earlier decisions are safe: make room and try again"),
    "SQLITE_IOERR": (
        StoreError,
        "the disk failed to read or write; earlier decisions are safe: check it and try again",
    ),
    "SQLITE_BUSY": (StoreError, "another process holds the queue: wait for it or stop it, then try again"),
    "SQLITE_READONLY": (StoreError, "the queue cannot be written: check its permissions and those of its folder"),
    "SQLITE_CANTOPEN": (StoreError, "the queue cannot be opened: check its permissions and those of its folder"),
    "SQLITE_NOTADB": (ReviewError, "this is not a review queue: name the file that a pipeline or `--import` made"),
    "SQLITE_CORRUPT": (StoreError, DAMAGED),
    "SQLITE_ERROR": (StoreError, DAMAGED),  # no such table or column: a page of the schema was damaged
}


def make_database(path: Path) -> None:
    """Make a queue without samples, whole or not at all, so that an empty file is always a damaged one."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            Database(temporary).close()
            with contextlib.suppress(FileExistsError):  # another process made it meanwhile
                os.link(temporary, path)  # unlike a rename, it never replaces a queue
        finally:
            temporary.unlink(missing_ok=True)


def require_whole(path: Path) -> None:
    """Raise `ReviewError` or `StoreError` unless the file is a whole queue; only reads."""
    if not path.stat().st_size:
        raise ReviewError(EMPTY.format(path=path))
    # a file without a log is not written by anybody: `immutable` opens it in a folder that cannot be written, too
    has_log = path.with_name(f"{path.name}-wal").exists()
    address = f"file:{quote(str(path.absolute()))}?mode=ro{'' if has_log else '&immutable=1'}"
    with errors_of(path), contextlib.closing(sqlite3.connect(address, uri=True)) as db:
        [(first,), *_] = db.execute("PRAGMA integrity_check").fetchall()
        if first != "ok":
            raise StoreError(f"{path}: {DAMAGED} ({first})")
        for table in ("settings", "items", "history"):
            db.execute(f"SELECT COUNT(*) FROM {table}").fetchall()
        for (body,) in db.execute("SELECT body FROM items"):
            _parsed(body)


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into messages that say what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorname", "")
        for known, (kind, text) in ERRORS.items():
            if code.startswith(known):
                raise kind(f"{path}: {text}") from error
        raise


def _parsed(text: Any) -> Any:
    """A stored text as JSON; raises `StoreError` if it is none."""
    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:
        raise StoreError(f"a row of the review queue is not JSON ({error}): {DAMAGED}") from None


class Database:
    """An open queue file. Threads share it through a lock, processes through SQLite."""

    def __init__(self, path: Path) -> None:
        """Open the file and create the tables in an empty one; raises `ReviewError` if it is not a review queue."""
        self.path, self._lock = path, threading.RLock()
        with errors_of(self.path):
            self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            with errors_of(self.path):
                kind, version = (self.one(f"PRAGMA {name}")[0] for name in ("application_id", "user_version"))
                if kind == 0 and not self.one("SELECT COUNT(*) FROM sqlite_master")[0]:  # an empty file
                    with self.transaction():
                        for statement in SCHEMA.split(";\n"):  # `executescript` would commit the transaction
                            self.all(statement)
                        self.all(f"PRAGMA application_id = {APPLICATION}")
                        self.all(f"PRAGMA user_version = {VERSION}")
                elif (kind, version) != (APPLICATION, VERSION):
                    known = "an SQLite file but not a review queue of this version of r1kit"
                    raise ReviewError(f"{self.path} is {known}: name another file")
                self.all(INDEX)
                self.all("PRAGMA journal_mode = WAL")
        except BaseException:
            self._db.close()
            raise

    def one(self, query: str, *values: Any) -> sqlite3.Row:
        return self.all(query, *values)[0]

    def all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """The rows of a query with positional values, or with one mapping of named values."""
        with self._lock, errors_of(self.path):
            named = values[0] if values and isinstance(values[0], Mapping) else values
            return self._db.execute(query, named).fetchall()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All changes in the block take effect, or none; no other process writes meanwhile. Inner blocks join in."""
        with self._lock, errors_of(self.path):
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite itself rolls back when the disk is full
                    self._db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file; SQLite then folds its journal into it."""
        with self._lock:
            self._db.close()

    # ---- settings

    def setting(self, name: str) -> str | None:
        rows = self.all("SELECT value FROM settings WHERE name = ?", name)
        return str(rows[0]["value"]) if rows else None

    def set(self, name: str, value: Any, *, keep: bool = False) -> None:
        """Store a setting; `keep` leaves an existing value alone."""
        self.all(f"INSERT OR {'IGNORE' if keep else 'REPLACE'} INTO settings VALUES (?, ?)", name, value)

    # ---- items and leases

    def count_items(self) -> int:
        return int(self.one("SELECT COUNT(*) FROM items")[0])

    def find_item(self, item: str) -> sqlite3.Row | None:
        return next(iter(self.all("SELECT * FROM items WHERE id = ?", item)), None)

    def item(self, item: str) -> sqlite3.Row:
        row = self.find_item(item)
        if row is None:
            raise ReviewError(f"there is no sample {item!r:.60} in {self.path}")
        return row

    def add_item(self, position: int, item: str, row: Mapping[str, Any], wanted: int) -> None:
        body = json.dumps(dict(row))  # ASCII, because text can hold lone surrogates, which UTF-8 cannot
        self.all("INSERT INTO items (position, id, body, wanted) VALUES (?, ?, ?, ?)", position, item, body, wanted)

    def next_item(self, who: str, now: float) -> sqlite3.Row | None:
        """The sample that a reviewer gets next."""
        rows = (row for query in NEXT_ITEM for row in self.all(query, {"who": who, "now": now}))
        return next(rows, None)

    def is_available(self, item: str, who: str, now: float) -> bool:
        query = f"SELECT 1 FROM items WHERE id = :id AND {AVAILABLE}"
        return bool(self.all(query, {"id": item, "who": who, "now": now}))

    def pending_items(self) -> list[sqlite3.Row]:
        return self.all("SELECT * FROM items WHERE state <> 'done' ORDER BY position")

    def decided_ids(self, *, accepted: bool) -> list[str]:
        query = "SELECT id FROM items WHERE state = 'done' AND accepted = ? ORDER BY position"
        return [row["id"] for row in self.all(query, int(accepted))]

    def set_outcome(self, item: str, outcome: Outcome, changed: Text | None) -> None:
        query = "UPDATE items SET state = ?, accepted = ?, text = ? WHERE id = ?"
        self.all(query, outcome.state, outcome.accepted, dump_text(changed), item)

    def holder(self, item: str) -> str | None:
        """The reviewer who has the sample's last lease, whether or not it has run out."""
        rows = self.all("SELECT who FROM leases WHERE item = ?", item)
        return rows[0]["who"] if rows else None

    def lease(self, item: str, who: str, now: float, until: float) -> None:
        self.all(LEASE, item, who, now, until)

    def end_lease(self, item: str) -> None:
        self.all("DELETE FROM leases WHERE item = ?", item)

    # ---- history

    def record(self, **line: Any) -> Decision:
        """Append a line to the history; `line` has its columns but `seq`."""
        texts = {name: dump_text(line[name]) for name in ("before", "after")}
        names = ("at", "who", "item", "action", "role", "reason", "before", "after", "undoes")
        self.all(RECORD, *((line | texts)[name] for name in names))
        return parse_decision(self.one("SELECT * FROM history ORDER BY seq DESC LIMIT 1"))

    def standing(self, item: str) -> list[Decision]:
        """The decisions on a sample that count, oldest first."""
        return [parse_decision(row) for row in self.all("SELECT * FROM standing WHERE item = ? ORDER BY seq", item)]

    def last_standing(self, who: str) -> Decision | None:
        rows = self.all("SELECT * FROM standing WHERE who = ? ORDER BY seq DESC LIMIT 1", who)
        return parse_decision(rows[0]) if rows else None

    def history(self, who: str | None, item: str | None, limit: int) -> list[Decision]:
        """Lines of the history, newest first."""
        wanted = "(?1 IS NULL OR who = ?1) AND (?2 IS NULL OR item = ?2)"
        rows = self.all(f"SELECT * FROM history WHERE {wanted} ORDER BY seq DESC LIMIT ?3", who, item, limit)
        return [parse_decision(row) for row in rows]


def stored_item(row: sqlite3.Row) -> ReviewItem:
    return parse_item(_parsed(row["body"]))


def parse_decision(row: sqlite3.Row) -> Decision:
    return Decision(**(dict(row) | {"before": parse_text(row["before"]), "after": parse_text(row["after"])}))


def parse_text(value: str | None) -> Text | None:
    return None if value is None else Text(**_parsed(value))


def dump_text(text: Text | None) -> str | None:
    return None if text is None else json.dumps(asdict(text))
