"""A queue of samples for people: leases, decisions, undo, and the accepted rows.

A lease reserves a sample for one reviewer for some minutes. `database` holds the file and its SQL, `outcomes` the rules
that turn decisions into an outcome.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from r1kit.data.errors import shown
from r1kit.data.jsonl import encoded
from r1kit.review.database import EMPTY, PROGRESS, REVIEWERS, VOTES, Database, make_database, parse_text, stored_item
from r1kit.review.items import ReviewError, ReviewItem, Text, parse_item, with_text
from r1kit.review.outcomes import AUTO, Action, Agreement, Decision, agreement, outcome, wants_two
from r1kit.store import atomic_file, held, to_plain

DEFAULTS: Mapping[str, float] = {"double_share": 0.0, "lease_minutes": 15.0}


class LeaseLost(ReviewError):
    """A decision on a sample that is not reserved for this reviewer; nothing was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A sample reserved for a reviewer: the text to start from, the minutes left, and whether they skipped it before.

    `decisions` is filled only if reviewers disagreed: otherwise a second reviewer does not see the first decision.
    """

    item: ReviewItem
    start: Text
    minutes: float
    skipped: bool
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Counts of samples. `edited` is part of `accepted`; `second` and `disputed` are part of `pending`."""

    total: int
    pending: int
    accepted: int
    edited: int
    rejected: int
    second: int
    disputed: int
    leased: int


class ReviewQueue:
    """An open queue; threads can share it and, through SQLite, so can processes.

    `clock` returns seconds since 1970. A failing disk raises `StoreError`; recorded decisions survive.
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock = Path(path), clock
        if not self.path.is_file():
            remedy = f"make one with `r1kit review {self.path} --import FILE.jsonl`"
            raise ReviewError(f"there is no review queue {self.path}: {remedy}")
        if not self.path.stat().st_size:
            raise ReviewError(EMPTY.format(path=self.path))
        self.database = Database(self.path)

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
        """Open the queue at `path`, create it if needed, and add samples: all of them or, after an error, none.

        `items` are rows or records (`ReviewItem`, `CuratedSample`), read by `items.parse_item`. A sample whose id is
        in the queue already is skipped; raises `ReviewError` if its text differs. `double_share` (0 to 1) of the new
        samples get two reviewers. None keeps the queue's own values.
        """
        path = Path(path)
        if double_share is not None and not 0 <= double_share <= 1:
            raise ReviewError(f"double_share is {double_share}: give a share from 0 to 1")
        if lease_minutes is not None and not 0 < lease_minutes <= 7 * 24 * 60:
            raise ReviewError(f"lease_minutes is {lease_minutes}: it must be above 0 and at most a week")
        is_new = not path.exists()
        if is_new:
            make_database(path)
        try:
            with contextlib.ExitStack() as on_error:
                queue = cls(path, clock=clock)
                on_error.callback(queue.close)
                with queue.database.transaction():
                    for name, value in (("double_share", double_share), ("lease_minutes", lease_minutes)):
                        if value is not None:
                            queue.database.set(name, value)
                    queue.add(items)
                on_error.pop_all()
        except BaseException:
            if is_new:  # an empty queue that stays would count as done
                for left in (path, *path.parent.glob(f"{path.name}-*")):
                    left.unlink(missing_ok=True)
            raise
        return queue

    def add(self, items: Iterable[Any]) -> int:
        """Add samples, all or none; returns how many were new."""
        with self.database.transaction():
            share = float(self.setting("double_share"))
            start = count = self.database.count_items()
            for number, item in enumerate(items, 1):
                row = to_plain(item)
                if not isinstance(row, dict):
                    raise ReviewError(f"sample {number} is {row!r:.60}: it must be an object or a record")
                parsed = parse_item(row, f"sample {number}")
                known = self.database.find_item(parsed.id)
                if known is None:
                    wanted = 2 if wants_two(count, share) else 1
                    self.database.add_item(count, parsed.id, row | {"id": parsed.id}, wanted)
                    count += 1
                    continue
                original = stored_item(known)
                names = ("problem", "reasoning", "summary")
                if changed := [name for name in names if getattr(original, name) != getattr(parsed, name)]:
                    reason = f"is in the queue already, with a different {changed[0]}: give it an id of its own"
                    raise ReviewError(f"sample {parsed.id} {reason}")
        return count - start

    # ---- what reviewers do

    def next(self, who: str) -> Turn | None:
        """Lease a sample to a reviewer, the one they have open first; None if there is none for them now."""
        who, now = reviewer(who), self.clock()
        with self.database.transaction():
            row = self.database.next_item(who, now)
            return None if row is None else self._turn(row, who, now)

    def turn(self, who: str, item: str) -> Turn | None:
        """Renew a reviewer's lease on a sample; None if the sample is not reserved for them."""
        with self.database.transaction():
            if self.database.holder(item) != who:
                return None
            return self._turn(self.database.item(item), who, self.clock())

    def _turn(self, row: sqlite3.Row, who: str, now: float) -> Turn:
        self.database.lease(row["id"], who, now, now + self.lease_s)
        decisions = self.database.standing(row["id"])
        return Turn(
            item=stored_item(row),
            start=self._start(row),
            minutes=round(self.lease_s / 60, 1),
            skipped=any(line.who == who and line.role == "skip" for line in decisions),
            decisions=tuple(line for line in decisions if line.role != "skip") if row["state"] == "disputed" else (),
        )

    def start(self, item: str) -> Text:
        """The text that a reviewer of this sample starts from."""
        return self._start(self.database.item(item))

    def _start(self, row: sqlite3.Row) -> Text:
        """The original text or, in a disagreement, the accepted one."""
        is_disputed = row["state"] == "disputed"
        accepted = [line.after for line in self.database.standing(row["id"]) if line.accepts] if is_disputed else []
        return (accepted and accepted[-1]) or stored_item(row).text

    def decide(self, who: str, item: str, action: str, *, text: Text | None = None, reason: str = "") -> Decision:
        """Record "accept" (with `text` if it was edited), "reject" (with a reason) or "skip" of a leased sample.

        A lease that ran out still counts until the sample goes to another reviewer. Raises `LeaseLost` if the sample
        is no longer theirs and `ReviewError` for an invalid decision.
        """
        who, reason = reviewer(who), reason.strip()
        with self.database.transaction():
            row, holder = self.database.item(item), self.database.holder(item)
            if holder != who:
                own = [line for line in self.database.standing(item) if line.who == who and line.role != "skip"]
                if own:
                    raise LeaseLost(f"you decided this sample already ({own[-1].action}): undo that to decide again")
                why = "it is not reserved for you: open the page again for your next sample"
                if row["state"] == "done":
                    why = "your time with it ran out and its outcome was decided meanwhile"
                elif holder is not None:
                    why = f"your time with it ran out and it was given to {holder}"
                raise LeaseLost(f"this was not recorded: {why}")
            before = self._start(row)
            action = _checked_action(action, before, text, reason)
            if action == "edit" and text is not None:
                with_text(json.loads(row["body"]), text)  # raises for a text that the row's format cannot hold
            after = (text or before) if action in ("accept", "edit") else None
            role = "skip" if action == "skip" else "settle" if row["state"] == "disputed" else "vote"
            self.database.end_lease(item)
            return self._record(who, item, action, role, reason=reason, before=before, after=after)

    def undo(self, who: str) -> Decision | None:
        """Undo a reviewer's last decision, and lease the sample to them again if it is available.

        Returns the decision that was undone, or None if there is none.
        """
        who, now = reviewer(who), self.clock()
        with self.database.transaction():
            last = self.database.last_standing(who)
            if last is not None:
                self._record(who, last.item, "undo", last.role, before=last.after, after=last.before, undoes=last.seq)
                if self.database.is_available(last.item, who, now):
                    self.database.lease(last.item, who, now, now + self.lease_s)
        return last

    def auto_accept(self) -> int:
        """Decide every pending sample without people; returns how many.

        A sample without a decision is accepted as it is. A sample that any reviewer rejected is rejected.
        """
        with self.database.transaction():
            rows = self.database.pending_items()
            for row in rows:
                text = stored_item(row).text
                self.database.end_lease(row["id"])
                self._record(AUTO, row["id"], "accept", "auto", before=text, after=text)
        return len(rows)

    def _record(
        self,
        who: str,
        item: str,
        action: Action,
        role: str,
        *,
        before: Text | None,
        after: Text | None,
        reason: str = "",
        undoes: int | None = None,
    ) -> Decision:
        """Append a decision to the history and update the outcome of its sample."""
        decision = self.database.record(
            at=datetime.fromtimestamp(self.clock(), UTC).isoformat(timespec="milliseconds"),
            who=who,
            item=item,
            action=action,
            role=role,
            reason=reason.encode("utf-8", "replace").decode(),
            before=before,
            after=after,
            undoes=undoes,
        )
        row = self.database.item(item)
        result = outcome(self.database.standing(item), row["wanted"])
        self.database.set_outcome(item, result, result.text if result.text != stored_item(row).text else None)
        return decision

    # ---- how far it is

    def pending(self) -> int:
        """How many samples have no outcome yet."""
        return self.progress().pending

    @property
    def done(self) -> bool:
        """Whether every sample has an outcome; true of an empty queue."""
        return self.pending() == 0

    def progress(self) -> Progress:
        """Counts of samples by state."""
        return Progress(**dict(self.database.one(PROGRESS, self.clock())))

    def reviewers(self) -> list[dict[str, Any]]:
        """Per reviewer: the number of decisions of each kind, without undone ones, and the time of the last one."""
        return [dict(row) for row in self.database.all(REVIEWERS)]

    def agreement(self) -> Agreement:
        """How often the first two votes agree, over the samples with two reviewers. Neither saw the other's vote."""
        by_item = groupby(self.database.all(VOTES), lambda row: row["item"])
        votes = [[row["action"] != "reject" for row in rows] for _, rows in by_item]
        return agreement([(first, second) for first, second, *_ in (vote for vote in votes if len(vote) > 1)])

    def history(self, *, who: str | None = None, item: str | None = None, limit: int = -1) -> list[Decision]:
        """Lines of the history, newest first, including undone ones and undos."""
        return self.database.history(who, item, limit)

    # ---- what comes out

    def rows(self, *, accepted: bool = True) -> Iterator[dict[str, Any]]:
        """The accepted (or rejected) samples, in the order in which they came in.

        Each row is the sample with its accepted text and, in `review`, whether it was edited, the original if it was,
        and every standing decision: who, when, what, why, before and after.
        """
        for item in self.database.decided_ids(accepted=accepted):
            row = self.database.item(item)
            original = stored_item(row).text
            text = parse_text(row["text"]) or original
            decisions = [line.row for line in self.database.standing(item) if line.role != "skip"]
            is_edited = text != original
            review = {
                "accepted": bool(row["accepted"]),
                "edited": is_edited,
                "original": asdict(original) if is_edited else None,
                "decisions": decisions,
            }
            yield with_text(json.loads(row["body"]), text) | {"review": review}

    def export(self, path: Path | str, *, rejected: Path | str | None = None) -> int:
        """Write the accepted `rows` as JSONL, and the rejected ones to another file; returns how many were accepted."""
        if rejected is not None:
            self._write(Path(rejected), accepted=False)
        return self._write(Path(path), accepted=True)

    def _write(self, path: Path, *, accepted: bool) -> int:
        count = 0
        with atomic_file(path) as file:
            for row in self.rows(accepted=accepted):
                file.write(encoded(row))
                count += 1
        return count

    # ---- the open file

    @property
    def lease_s(self) -> float:
        """Seconds that a lease lasts."""
        return float(self.setting("lease_minutes")) * 60

    def setting(self, name: str) -> str:
        """A value stored with the queue. A name without a default is a secret, created on first use."""
        value = self.database.setting(name)
        if value is not None:
            return value
        if name in DEFAULTS:
            return str(DEFAULTS[name])
        with self.database.transaction():
            self.database.set(name, secrets.token_hex(32), keep=True)
        return self.setting(name)

    @contextlib.contextmanager
    def serving(self, address: str) -> Iterator[None]:
        """Be the only server of this queue; raises `StoreError` if another process serves it."""
        refusal = f"{self.path} is served already, at {{holder}}: use that page or stop it"
        with held(self.path.with_name(f"{self.path.name}.lock"), f"{address} (process {os.getpid()})", refusal):
            yield

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def reviewer(name: str) -> str:
    """A reviewer's name, trimmed; raises `ReviewError` for an unprintable, empty, long or reserved one."""
    name = " ".join(name.split())
    if not name or len(name) > 40 or not name.isprintable():
        raise ReviewError(f"the reviewer's name is {shown(name)}: give 1 to 40 printable characters, as in ana")
    if name.lower() == AUTO:
        raise ReviewError(f"{AUTO!r} is reserved for automatic decisions: choose another name")
    return name


def _checked_action(action: str, before: Text, text: Text | None, reason: str) -> Action:
    """The action to record: an "accept" with a changed text is an "edit"."""
    if action == "accept":
        if text is None or text == before:
            return "accept"
        if not (text.reasoning.strip() or text.summary.strip()):
            raise ReviewError("the edited sample is empty: reject it, or restore the original")
        return "edit"
    if action == "reject":
        if not reason:
            raise ReviewError("a rejection needs a reason: say in a few words what is wrong")
        return "reject"
    if action == "skip":
        return "skip"
    raise ReviewError(f"the decision is {action!r:.60}: it must be accept, reject or skip")
