"""A queue of samples for people: who has which sample, what was decided by whom, and what comes out.

One SQLite file. `history` is the truth and is only ever appended to, so an undo is a line of its own; `items.state` is
worked out from it in the same transaction. A lease keeps a sample with one reviewer for some minutes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from r1kit.data.jsonl import encoded
from r1kit.review.records import (
    AUTO,
    Action,
    Agreement,
    Decision,
    LeaseLost,
    ReviewError,
    ReviewItem,
    Text,
    agreement,
    outcome,
    parse_item,
    wants_two,
    with_text,
)
from r1kit.store import StoreError, atomic_file, held, storing, to_plain

__all__ = ["AUTO", "Agreement", "LeaseLost", "Progress", "ReviewError", "ReviewItem", "ReviewQueue", "Text", "Turn"]

APPLICATION = 0x72316B71  # "r1kq": marks an SQLite file as ours
VERSION = 1
DEFAULTS: Mapping[str, float] = {"double_share": 0.0, "lease_minutes": 15.0}
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
# Free for a reviewer: nobody else's lease runs, and in an open sample they have no vote yet.
FREE = """items.state <> 'done'
  AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.item = items.id AND who <> :who AND until > :now)"""
VOTED = "EXISTS (SELECT 1 FROM standing WHERE standing.item = items.id AND who = :who AND role <> 'skip')"
SKIPPED = "(SELECT MAX(seq) FROM standing WHERE standing.item = items.id AND who = :who AND role = 'skip')"
# In this order: what they have open, what is new to them, disagreements of their own, what they skipped (oldest first).
TURNS = (
    f"""SELECT items.* FROM items JOIN leases ON leases.item = items.id
    WHERE leases.who = :who AND {FREE} ORDER BY given DESC LIMIT 1""",
    f"SELECT * FROM items WHERE {FREE} AND NOT {VOTED} AND {SKIPPED} IS NULL ORDER BY position LIMIT 1",
    f"SELECT * FROM items WHERE {FREE} AND state = 'disputed' AND {SKIPPED} IS NULL ORDER BY position LIMIT 1",
    f"SELECT * FROM items WHERE {FREE} AND (state = 'disputed' OR NOT {VOTED}) ORDER BY {SKIPPED} LIMIT 1",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A sample that is now a reviewer's: the text to start from, how long it is theirs, and whether they skipped it.

    `decisions` is filled only where others disagreed; else a second reviewer does not see what the first one said.
    """

    item: ReviewItem
    start: Text
    minutes: float
    skipped: bool
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a queue is. `edited` are among `accepted`; `second` and `disputed` are among `pending`."""

    total: int
    pending: int
    accepted: int
    edited: int
    rejected: int
    second: int
    disputed: int
    leased: int


class ReviewQueue:
    """An open queue; safe to share between threads and, through SQLite, between processes.

    `clock` gives seconds since 1970. Failures of the disk raise `StoreError`; what was recorded before stays whole.
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = Path(path), clock
        if not self.path.is_file():
            remedy = f"make one with `r1kit review {self.path} --import FILE.jsonl`"
            raise ReviewError(f"there is no review queue {self.path}: {remedy}")
        self._lock = threading.RLock()
        self._db = self._connect()
        try:
            self._check_kind()
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def create(
        cls,
        path: Path | str,
        items: Iterable[Any] = (),
        *,
        double_share: float | None = None,
        lease_minutes: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the queue at `path`, made first where there is none, and add samples: all of them or, on an error, none.

        `items` are rows or records (`ReviewItem`, `CuratedSample`); `review_records.parse_item` says what is read.
        A sample whose id is there already is left as it is; raises `ReviewError` if it says something else.
        `double_share` of the samples added (0 to 1) are given to two reviewers. None keeps the queue's own values.
        """
        path = Path(path)
        chosen = _settings(double_share=double_share, lease_minutes=lease_minutes)
        fresh = not path.exists()
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        try:
            with contextlib.ExitStack() as opened:
                queue = cls(path, clock=clock)
                opened.callback(queue.close)
                with queue._change() as db:
                    db.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", chosen.items())
                    queue._add(items)
                opened.pop_all()
        except BaseException:
            if fresh:  # else an empty queue stays, and an empty queue is done
                for left in (path, *path.parent.glob(f"{path.name}-*")):
                    left.unlink(missing_ok=True)
            raise
        return queue

    def add(self, items: Iterable[Any]) -> int:
        """Add samples, all or none; returns how many were new."""
        with self._change():
            return self._add(items)

    def pending(self) -> int:
        """How many samples have no outcome yet."""
        return int(self._one("SELECT COUNT(*) FROM items WHERE state <> 'done'")[0])

    @property
    def done(self) -> bool:
        """Whether every sample has an outcome; true of an empty queue."""
        return self.pending() == 0

    def next(self, who: str) -> Turn | None:
        """Lease a sample to a reviewer, the one they have open first; None where there is none for them now."""
        who, now = reviewer(who), self.clock()
        with self._change() as db:
            for query in TURNS:
                row = db.execute(query, {"who": who, "now": now}).fetchone()
                if row:
                    return self._turn(row, who, now)
        return None

    def turn(self, who: str, item: str) -> Turn | None:
        """The sample once more for the reviewer who has it, with a lease that starts anew; None where they have not."""
        now = self.clock()
        with self._change() as db:
            if db.execute("SELECT 1 FROM leases WHERE item = ? AND who = ?", (item, who)).fetchone():
                return self._turn(self._item_row(item), who, now)
        return None

    def start(self, item: str) -> Text:
        """The text that a reviewer of this sample starts from."""
        return self._start(self._item_row(item))

    def decide(self, who: str, item: str, action: str, *, text: Text | None = None, reason: str = "") -> Decision:
        """Record "accept" (with `text` where it was edited), "reject" (with a reason) or "skip" of a leased sample.

        A lease that ran out still counts as long as nobody else was given the sample. Raises `LeaseLost` where the
        sample is no longer theirs and `ReviewError` for what cannot be meant.
        """
        who = reviewer(who)
        with self._change() as db:
            row = self._item_row(item)
            self._check_lease(who, row)
            before = self._start(row)
            taken = _action(action, before, text, reason.strip())
            if taken == "edit" and text is not None:
                with_text(json.loads(row["body"]), text)  # raises for a text that its format cannot hold
            after = (text or before) if taken in ("accept", "edit") else None
            role = "skip" if taken == "skip" else "settle" if row["state"] == "disputed" else "vote"
            db.execute("DELETE FROM leases WHERE item = ?", (item,))
            made = self._record(who, item, taken, role, reason=reason.strip(), before=before, after=after)
            self._refresh(item)
        return made

    def undo(self, who: str) -> Decision | None:
        """Take back a reviewer's last decision that stands, and lease the sample to them again where it is free.

        Returns the decision that was undone; None where there is none.
        """
        who, now = reviewer(who), self.clock()
        with self._change() as db:
            row = db.execute("SELECT * FROM standing WHERE who = ? ORDER BY seq DESC LIMIT 1", (who,)).fetchone()
            if row is None:
                return None
            last = _decision(row)
            self._record(who, last.item, "undo", last.role, before=last.after, after=last.before, undoes=last.seq)
            self._refresh(last.item)
            is_free = db.execute(
                f"SELECT 1 FROM items WHERE id = :id AND {FREE}", {"id": last.item, "who": who, "now": now}
            )
            if is_free.fetchone():
                self._lease(last.item, who, now)
        return last

    def auto_accept(self, who: str = AUTO) -> int:
        """Give every pending sample an outcome without people; returns how many.

        What nobody decided is accepted as it is; where people did, the sample is rejected if any of them rejected it.
        """
        with self._change() as db:
            rows = db.execute("SELECT * FROM items WHERE state <> 'done' ORDER BY position").fetchall()
            for row in rows:
                text = _item(row).text
                self._record(who, row["id"], "accept", "auto", before=text, after=text)
                db.execute("DELETE FROM leases WHERE item = ?", (row["id"],))
                self._refresh(row["id"])
        return len(rows)

    def export(self, path: Path | str, *, rejected: Path | str | None = None) -> int:
        """Write accepted samples as JSONL, and rejected ones to another file if asked; returns how many were accepted.

        Each row is the sample with its accepted text and, in `review`, whether it was edited, the original where it
        was, and every standing decision: who, when, what, why, before and after.
        """
        if rejected is not None:
            self._write(Path(rejected), 0)
        return self._write(Path(path), 1)

    def rows(self, *, accepted: bool = True) -> Iterator[dict[str, Any]]:
        """The rows of `export`, in the order in which samples came in."""
        found = self._all("SELECT id FROM items WHERE state = 'done' AND accepted = ? ORDER BY position", int(accepted))
        for name in found:
            yield self._exported(self._item_row(name["id"]))

    def history(self, *, who: str | None = None, item: str | None = None, limit: int = -1) -> list[Decision]:
        """Lines of the history, newest first, undone ones and undos among them."""
        wanted = "WHERE (?1 IS NULL OR who = ?1) AND (?2 IS NULL OR item = ?2)"
        rows = self._all(f"SELECT * FROM history {wanted} ORDER BY seq DESC LIMIT ?3", who, item, limit)
        return [_decision(row) for row in rows]

    def progress(self) -> Progress:
        """Counts of samples by state."""
        row = self._one(
            """SELECT COUNT(*) AS total, COALESCE(SUM(state <> 'done'), 0) AS pending,
            COALESCE(SUM(state = 'done' AND accepted = 1), 0) AS accepted,
            COALESCE(SUM(state = 'done' AND accepted = 0), 0) AS rejected,
            COALESCE(SUM(state = 'done' AND text IS NOT NULL), 0) AS edited,
            COALESCE(SUM(state = 'disputed'), 0) AS disputed,
            (SELECT COUNT(DISTINCT item) FROM standing JOIN items ON items.id = standing.item
              WHERE role = 'vote' AND state = 'open') AS second,
            (SELECT COUNT(*) FROM leases WHERE until > ?) AS leased FROM items""",
            self.clock(),
        )
        return Progress(**dict(row))

    def reviewers(self) -> list[dict[str, Any]]:
        """Per reviewer: how many decisions of theirs stand, by kind, and when they decided last."""
        rows = self._all(
            """SELECT who, SUM(action = 'accept') AS accepted, SUM(action = 'edit') AS edited,
            SUM(action = 'reject') AS rejected, SUM(action = 'skip') AS skipped, MAX(at) AS last
            FROM standing GROUP BY who ORDER BY COUNT(*) DESC, who"""
        )
        return [dict(row) for row in rows]

    def agreement(self) -> Agreement:
        """Of the samples given to two reviewers: the first two votes on each, blind to each other."""
        rows = self._all(
            """SELECT standing.item, action FROM standing JOIN items ON items.id = standing.item
            WHERE role = 'vote' AND wanted = 2 ORDER BY position, seq"""
        )
        votes = [[row["action"] != "reject" for row in group] for _, group in groupby(rows, lambda row: row["item"])]
        return agreement([(first, second) for first, second, *_ in (vote for vote in votes if len(vote) > 1)])

    @property
    def lease_s(self) -> float:
        """Seconds that a lease lasts."""
        return float(self.setting("lease_minutes")) * 60

    def setting(self, name: str) -> str:
        """A value kept with the queue; a secret is made when it is first asked for."""
        row = self._all("SELECT value FROM settings WHERE name = ?", name)
        if row:
            return str(row[0]["value"])
        if name in DEFAULTS:
            return str(DEFAULTS[name])
        with self._change() as db:
            db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, secrets.token_hex(32)))
        return self.setting(name)

    @contextlib.contextmanager
    def serving(self, address: str) -> Iterator[None]:
        """Hold the one place for a server of this queue; raises `StoreError` where another process has it."""
        refusal = f"{self.path} is served already, at {{holder}}: use that page or stop it"
        with held(self.path.with_name(f"{self.path.name}.lock"), f"{address} (process {os.getpid()})", refusal):
            yield

    def close(self) -> None:
        """Close the file; SQLite then folds its journal into it."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ---- inside a transaction

    def _add(self, items: Iterable[Any]) -> int:
        share = float(self.setting("double_share"))
        start = count = int(self._one("SELECT COUNT(*) FROM items")[0])
        for number, given in enumerate(items, 1):
            row = to_plain(given)
            if not isinstance(row, dict):
                raise ReviewError(f"sample {number} is {row!r:.60}: it must be an object or a record")
            item = parse_item(row, f"sample {number}")
            known = self._all("SELECT * FROM items WHERE id = ?", item.id)
            if known:
                _check_same(_item(known[0]), item)
                continue
            wanted = 2 if wants_two(count, share) else 1
            body = json.dumps(row | {"id": item.id})  # ASCII: text may hold what UTF-8 cannot, as lone surrogates
            values = (count, item.id, body, wanted)
            self._db.execute("INSERT INTO items (position, id, body, wanted) VALUES (?, ?, ?, ?)", values)
            count += 1
        return count - start

    def _turn(self, row: sqlite3.Row, who: str, now: float) -> Turn:
        self._lease(row["id"], who, now)
        votes = self._standing(row["id"])
        return Turn(
            item=_item(row),
            start=self._start(row),
            minutes=round(self.lease_s / 60, 1),
            skipped=any(line.who == who and line.role == "skip" for line in votes),
            decisions=tuple(line for line in votes if line.role != "skip") if row["state"] == "disputed" else (),
        )

    def _lease(self, item: str, who: str, now: float) -> None:
        self._db.execute(
            """INSERT INTO leases VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (item) DO UPDATE SET given = IIF(who = ?2, given, ?3), who = ?2, until = ?4""",
            (item, who, now, now + self.lease_s),
        )

    def _start(self, row: sqlite3.Row) -> Text:
        """The text a reviewer starts from: the original, or in a disagreement the accepted one."""
        accepted = [line for line in self._standing(row["id"]) if line.accepts] if row["state"] == "disputed" else []
        return accepted[-1].after or _item(row).text if accepted else _item(row).text

    def _check_lease(self, who: str, row: sqlite3.Row) -> None:
        item = row["id"]
        lease = self._all("SELECT * FROM leases WHERE item = ?", item)
        if lease and lease[0]["who"] == who:
            return
        own = [line for line in self._standing(item) if line.who == who and line.role != "skip"]
        if own:
            raise LeaseLost(f"you decided this sample already ({own[-1].action}): undo that to decide anew")
        why = "it is not reserved for you: open the page again for your next sample"
        if row["state"] == "done":
            why = "your time with it ran out and its outcome was decided meanwhile"
        elif lease:
            why = f"your time with it ran out and it was given to {lease[0]['who']}"
        raise LeaseLost(f"this was not recorded: {why}")

    def _record(
        self,
        who: str,
        item: str,
        action: Action,
        role: str,
        *,
        reason: str = "",
        before: Text | None = None,
        after: Text | None = None,
        undoes: int | None = None,
    ) -> Decision:
        at = datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="milliseconds")
        values = (at, who, item, action, role, _plain(reason), _dumped(before), _dumped(after), undoes)
        made = self._db.execute(
            """INSERT INTO history (at, who, item, action, role, reason, before, after, undoes)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            values,
        )
        return _decision(self._one("SELECT * FROM history WHERE seq = ?", made.lastrowid))

    def _refresh(self, item: str) -> None:
        row = self._item_row(item)
        found = outcome(self._standing(item), row["wanted"])
        changed = found.text if found.text != _item(row).text else None
        values = (found.state, found.accepted, _dumped(changed), item)
        self._db.execute("UPDATE items SET state = ?, accepted = ?, text = ? WHERE id = ?", values)

    # ---- reading

    def _standing(self, item: str) -> list[Decision]:
        return [_decision(row) for row in self._all("SELECT * FROM standing WHERE item = ? ORDER BY seq", item)]

    def _item_row(self, item: str) -> sqlite3.Row:
        found = self._all("SELECT * FROM items WHERE id = ?", item)
        if not found:
            raise ReviewError(f"there is no sample {item!r:.60} in {self.path}")
        return found[0]

    def _exported(self, row: sqlite3.Row) -> dict[str, Any]:
        original = _item(row)
        text = _text(row["text"]) or original.text
        decisions = [line for line in self._standing(row["id"]) if line.role != "skip"]
        review = {
            "accepted": bool(row["accepted"]),
            "edited": text != original.text,
            "original": asdict(original.text) if text != original.text else None,
            "decisions": [line.row for line in decisions],
        }
        return with_text(json.loads(row["body"]), text) | {"review": review}

    def _write(self, path: Path, accepted: int) -> int:
        count = 0
        with atomic_file(path) as file:
            for row in self.rows(accepted=bool(accepted)):
                file.write(encoded(row))
                count += 1
        return count

    def _one(self, query: str, *values: Any) -> sqlite3.Row:
        return self._all(query, *values)[0]

    def _all(self, query: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock, _telling(self.path):
            return self._db.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it or nothing, and no other process writes meanwhile."""
        with self._lock, _telling(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have rolled back already
                    self._db.execute("ROLLBACK")
                raise

    def _connect(self) -> sqlite3.Connection:
        with _telling(self.path):
            db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        return db

    def _check_kind(self) -> None:
        with _telling(self.path):
            names = ("application_id", "user_version")
            kind, version = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
            if kind == 0 and not self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
                with self._change() as db:
                    for statement in _statements(SCHEMA):
                        db.execute(statement)
                    db.execute(f"PRAGMA application_id = {APPLICATION}")
                    db.execute(f"PRAGMA user_version = {VERSION}")
            elif (kind, version) != (APPLICATION, VERSION):
                raise ReviewError(f"{self.path} is an SQLite file but not a review queue of this version of r1kit")
            self._db.execute("PRAGMA journal_mode = WAL")


def reviewer(name: str) -> str:
    """A reviewer's name, trimmed; raises `ReviewError` for one that cannot be told apart or is not a person's."""
    name = " ".join(name.split())
    if not name or len(name) > 40 or not name.isprintable():
        raise ReviewError(f"the reviewer's name is {name!r:.60}: give 1 to 40 letters, as in ana")
    if name.lower() == AUTO:
        raise ReviewError(f"{AUTO!r} stands for decisions that nobody made: choose another name")
    return name


def _settings(**values: float | None) -> dict[str, float]:
    chosen = {name: value for name, value in values.items() if value is not None}
    if not 0 <= chosen.get("double_share", 0) <= 1:
        raise ReviewError(f"double_share is {chosen['double_share']}: the share given to two reviewers is from 0 to 1")
    if not 0 < chosen.get("lease_minutes", 1) <= 7 * 24 * 60:
        raise ReviewError(f"lease_minutes is {chosen['lease_minutes']}: it must be above 0 and at most a week")
    return chosen


def _action(action: str, before: Text, text: Text | None, reason: str) -> Action:
    if action == "accept":
        if text is None or text == before:
            return "accept"
        if not (text.reasoning.strip() or text.summary.strip()):
            raise ReviewError("the edited sample is empty: reject it, or restore the original")
        return "edit"
    if action == "reject":
        if not reason:
            raise ReviewError("a rejection needs a reason: a few words that tell what is wrong")
        return "reject"
    if action == "skip":
        return "skip"
    raise ReviewError(f"the decision is {action!r:.60}: it must be accept, reject or skip")


def _check_same(known: ReviewItem, item: ReviewItem) -> None:
    for name in ("problem", "reasoning", "summary"):
        if getattr(known, name) != getattr(item, name):
            raise ReviewError(
                f"sample {item.id} is in the queue already, with another {name}: give it an id of its own"
            )


def _item(row: sqlite3.Row) -> ReviewItem:
    return parse_item(json.loads(row["body"]))


def _decision(row: sqlite3.Row) -> Decision:
    return Decision(**(dict(row) | {"before": _text(row["before"]), "after": _text(row["after"])}))


def _text(value: str | None) -> Text | None:
    return None if value is None else Text(**json.loads(value))


def _dumped(text: Text | None) -> str | None:
    return None if text is None else json.dumps(asdict(text))


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the file into one message; what it says of a wrong query stays a bug."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorname", "")
        for known, (kind, text) in TOLD.items():
            if code.startswith(known):
                raise kind(f"{path}: {text}") from error
        raise


TOLD: Mapping[str, tuple[type[ReviewError] | type[StoreError], str]] = {
    "SQLITE_FULL": (StoreError, "the disk is full; earlier decisions are whole: make room and try again"),
    "SQLITE_IOERR": (StoreError, "the disk failed to read or write; earlier decisions are whole: see to it, try again"),
    "SQLITE_BUSY": (StoreError, "another process holds the queue: wait for it or stop it, then try again"),
    "SQLITE_READONLY": (StoreError, "the queue cannot be written: check its permissions and those of its folder"),
    "SQLITE_CANTOPEN": (StoreError, "the queue cannot be opened: check its permissions and those of its folder"),
    "SQLITE_NOTADB": (ReviewError, "this is not a review queue: name the file that a pipeline or `--import` made"),
    "SQLITE_CORRUPT": (StoreError, "the file is damaged: restore it from a copy"),
}
