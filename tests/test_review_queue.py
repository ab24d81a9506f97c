"""The review queue: leases, decisions, undo, double review, export, and files that are not as they should be."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1kit import cli
from r1kit.curate.record import from_row
from r1kit.data.jsonl import read_rows
from r1kit.review.database import NEXT_ITEM, require_whole
from r1kit.review.items import ReviewError, ReviewItem, Text, checks, parse_item
from r1kit.review.outcomes import Agreement, agreement, wants_two
from r1kit.review.queue import LeaseLost, ReviewQueue
from r1kit.store import StoreError


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sample(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"s{number}",
        "problem": f"What is {number} + 1?",
        "reasoning": "I add.",
        "summary": f"{number + 1}",
    } | more


Make = Callable[..., ReviewQueue]


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Iterator[Make]:
    opened: list[ReviewQueue] = []

    def made(count: int = 3, **settings: Any) -> ReviewQueue:
        path = tmp_path / f"queue{len(opened)}.db"
        opened.append(ReviewQueue.create(path, map(sample, range(count)), clock=clock, **settings))
        return opened[-1]

    yield made
    for queue in opened:
        queue.close()


def take(queue: ReviewQueue, who: str) -> str:
    turn = queue.next(who)
    assert turn is not None
    return turn.item.id


def decide_all(queue: ReviewQueue, who: str, action: str = "accept") -> None:
    while turn := queue.next(who):
        queue.decide(who, turn.item.id, action, reason="wrong")


def test_a_sample_given_to_one_reviewer_is_given_to_another_only_when_the_lease_ends(make: Make, clock: Clock) -> None:
    queue = make(2, lease_minutes=10)
    assert [take(queue, "ana"), take(queue, "bo"), take(queue, "ana")] == ["s0", "s1", "s0"]
    assert queue.next("cy") is None
    clock.now += 601
    assert take(queue, "cy") == "s0"


def test_typing_keeps_a_sample_reserved(make: Make, clock: Clock) -> None:
    queue = make(1, lease_minutes=10)
    take(queue, "ana")
    clock.now += 500
    assert queue.turn("ana", "s0") is not None
    clock.now += 500
    assert queue.next("bo") is None
    assert queue.turn("bo", "s0") is None


def test_a_late_decision_counts_while_nobody_else_was_given_the_sample(make: Make, clock: Clock) -> None:
    queue = make(1, lease_minutes=10)
    take(queue, "ana")
    clock.now += 10_000
    queue.decide("ana", "s0", "accept")
    assert queue.done


def test_a_late_decision_on_a_sample_that_went_to_another_is_refused_and_says_to_whom(make: Make, clock: Clock) -> None:
    queue = make(1, lease_minutes=10)
    take(queue, "ana")
    clock.now += 601
    take(queue, "bo")
    with pytest.raises(LeaseLost, match="given to bo"):
        queue.decide("ana", "s0", "reject", reason="wrong")
    queue.decide("bo", "s0", "accept")
    with pytest.raises(LeaseLost, match="decided meanwhile"):
        queue.decide("ana", "s0", "reject", reason="wrong")
    assert [line.who for line in queue.history()] == ["bo"]


def test_a_sample_cannot_be_decided_unasked_or_twice(make: Make) -> None:
    queue = make(1)
    with pytest.raises(LeaseLost, match="not reserved"):
        queue.decide("ana", "s0", "accept")
    take(queue, "ana")
    queue.decide("ana", "s0", "accept")
    with pytest.raises(LeaseLost, match="undo that"):
        queue.decide("ana", "s0", "reject", reason="no")


def test_decisions_keep_who_when_before_and_after(make: Make) -> None:
    queue = make(1)
    take(queue, "ana")
    queue.decide("ana", "s0", "accept", text=Text(reasoning="I add one.", summary="1"))
    (line,) = queue.history()
    assert (line.who, line.action, line.at) == ("ana", "edit", "2027-01-15T08:00:00.000+00:00")
    assert line.before == Text(reasoning="I add.", summary="1")
    assert line.after == Text(reasoning="I add one.", summary="1")


def test_an_undo_is_a_line_of_its_own_and_gives_the_sample_back(make: Make) -> None:
    queue = make(2)
    take(queue, "ana")
    queue.decide("ana", "s0", "reject", reason="wrong step")
    undone = queue.undo("ana")
    assert undone is not None and undone.reason == "wrong step"
    assert queue.pending() == 2
    assert take(queue, "ana") == "s0"
    assert [line.action for line in queue.history()] == ["undo", "reject"]
    assert queue.undo("ana") is None


def test_undo_goes_back_decision_by_decision_and_only_through_ones_own(make: Make) -> None:
    queue = make(3)
    for who in ("ana", "bo", "ana"):
        queue.decide(who, take(queue, who), "accept")
    found = [queue.undo("ana"), queue.undo("ana"), queue.undo("ana")]
    assert [line and line.item for line in found] == ["s2", "s0", None]
    assert queue.progress().accepted == 1


def test_history_cannot_be_changed_or_deleted(make: Make) -> None:
    queue = make(1)
    queue.auto_accept()
    queue.close()
    with sqlite3.connect(queue.path) as db:
        for statement in ("UPDATE history SET who = 'eve'", "DELETE FROM history"):
            with pytest.raises(sqlite3.IntegrityError, match="history is never"):
                db.execute(statement)
    db.close()


def test_skipped_samples_come_back_last_and_others_get_them_first(make: Make) -> None:
    queue = make(3)
    assert take(queue, "ana") == "s0"
    queue.decide("ana", "s0", "skip")
    assert [take(queue, "ana"), take(queue, "bo")] == ["s1", "s0"]
    queue.decide("bo", "s0", "skip")
    queue.decide("ana", "s1", "accept")
    queue.decide("ana", take(queue, "ana"), "accept")
    turn = queue.next("ana")
    assert turn is not None and turn.item.id == "s0" and turn.skipped
    assert queue.pending() == 1


def test_double_review_needs_two_people_who_do_not_see_each_other(make: Make) -> None:
    queue = make(1, double_share=1.0)
    queue.decide("ana", take(queue, "ana"), "accept")
    assert queue.next("ana") is None and not queue.done
    turn = queue.next("bo")
    assert turn is not None and turn.decisions == ()
    queue.decide("bo", "s0", "accept")
    assert queue.done
    assert queue.agreement() == Agreement(pairs=1, agreed=1, kappa=None)


def test_a_disagreement_is_settled_by_one_more_decision_and_stays_in_the_agreement_rate(make: Make) -> None:
    queue = make(1, double_share=1.0)
    queue.decide("ana", take(queue, "ana"), "accept", text=Text(reasoning="Mended.", summary="1"))
    queue.decide("bo", take(queue, "bo"), "reject", reason="wrong step")
    assert (queue.progress().disputed, queue.pending()) == (1, 1)
    turn = queue.next("cy")
    assert turn is not None and [line.who for line in turn.decisions] == ["ana", "bo"]
    assert turn.start.reasoning == "Mended."
    queue.decide("cy", "s0", "accept")
    assert queue.done
    assert next(queue.rows())["reasoning"] == "Mended."
    assert (queue.agreement().pairs, queue.agreement().agreed) == (1, 0)
    queue.undo("cy")
    assert queue.progress().disputed == 1


def test_two_reviewers_alone_can_settle_their_disagreement(make: Make) -> None:
    queue = make(2, double_share=1.0)
    queue.decide("ana", take(queue, "ana"), "accept")
    queue.decide("bo", take(queue, "bo"), "reject", reason="no")
    assert take(queue, "ana") == "s1"  # what is new comes first
    queue.decide("ana", "s1", "accept")
    queue.decide("ana", take(queue, "ana"), "reject", reason="bo is right")
    assert queue.progress().rejected == 1


def test_agreement_is_set_against_chance() -> None:
    assert agreement([]) == Agreement(pairs=0, agreed=0, kappa=None)
    pairs = [(True, True)] * 4 + [(False, False)] * 4 + [(True, False), (False, True)]
    found = agreement(pairs)
    assert (found.pairs, found.agreed) == (10, 8)
    assert found.kappa == pytest.approx(0.6)


@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.25, 0.7, 1.0])
def test_the_set_share_of_samples_is_doubled_and_not_always_at_the_same_place(share: float) -> None:
    chosen = [position for position in range(1000) if wants_two(position, share)]
    assert abs(len(chosen) - 1000 * share) <= 1
    if share == 0.1:
        assert len({position % 10 for position in chosen}) > 5


def test_adding_the_same_samples_again_changes_nothing(make: Make) -> None:
    queue = make(3)
    queue.decide("ana", take(queue, "ana"), "accept")
    with ReviewQueue.create(queue.path, map(sample, range(4))) as again:
        assert (again.progress().total, again.pending()) == (4, 3)
        assert again.add(map(sample, range(4))) == 0


def test_a_known_id_with_another_text_is_refused_and_nothing_is_added(make: Make) -> None:
    queue = make(2)
    with pytest.raises(ReviewError, match="s1 is in the queue already, with a different summary"):
        queue.add([sample(7), sample(1, summary="3")])
    assert queue.progress().total == 2


def test_auto_accept_finishes_the_queue_without_overruling_people(make: Make) -> None:
    queue = make(4, double_share=1.0)
    queue.decide("ana", take(queue, "ana"), "reject", reason="wrong")
    queue.decide("ana", take(queue, "ana"), "accept", text=Text(reasoning="Mended.", summary="2"))
    take(queue, "ana")
    assert queue.auto_accept() == 4
    assert queue.done and queue.auto_accept() == 0
    rows = {row["id"]: row for row in queue.rows()}
    assert set(rows) == {"s1", "s2", "s3"}
    assert rows["s1"]["reasoning"] == "Mended."
    assert rows["s3"]["review"]["decisions"][0]["who"] == "auto-accept"
    with pytest.raises(LeaseLost):
        queue.decide("ana", "s2", "accept")


def test_export_has_accepted_rows_with_edits_and_provenance_and_rejected_ones_apart(make: Make, tmp_path: Path) -> None:
    queue = make(3)
    queue.decide("ana", take(queue, "ana"), "accept", text=Text(reasoning="Better 加 \ud800.", summary="1"))
    queue.decide("ana", take(queue, "ana"), "reject", reason="wrong step")
    assert queue.export(tmp_path / "out" / "kept.jsonl", rejected=tmp_path / "dropped.jsonl") == 1
    (kept,), (dropped,) = list(read_rows(tmp_path / "out" / "kept.jsonl")), list(read_rows(tmp_path / "dropped.jsonl"))
    assert kept["reasoning"] == "Better 加 ?."  # UTF-8 has no lone surrogate
    assert kept["review"]["edited"] and kept["review"]["original"] == {"reasoning": "I add.", "summary": "1"}
    (decision,) = kept["review"]["decisions"]
    assert (decision["who"], decision["action"], decision["at"][:10]) == ("ana", "edit", "2027-01-15")
    assert dropped["review"]["decisions"][0]["reason"] == "wrong step"
    assert not list(tmp_path.glob("**/.*tmp*"))


def test_a_conversation_goes_out_in_the_shape_and_format_in_which_it_came(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "<think>I add.</think> <answer>2</answer>"},
    ]
    row = {"id": "c1", "messages": turns, "answer": "2", "pass_rate": 0.25, "verdicts": {"math": {"correct": True}}}
    with ReviewQueue.create(tmp_path / "q.db", [from_row(row)]) as queue:
        turn = queue.next("ana")
        assert turn is not None
        assert (turn.item.problem, turn.item.reference, turn.item.reasoning) == ("1 + 1?", "2", "I add.")
        with pytest.raises(ReviewError, match="the reasoning is empty"):
            queue.decide("ana", "c1", "accept", text=Text(reasoning="", summary="2"))
        with pytest.raises(ReviewError, match="contains </think>"):
            queue.decide("ana", "c1", "accept", text=Text(reasoning="a</think>", summary="2"))
        queue.decide("ana", "c1", "accept", text=Text(reasoning="One and one.", summary="2"))
        out = from_row(next(queue.rows()))
    assert out.response == "<think>One and one.</think> <answer>2</answer>"
    assert (out.messages[0].content, out.pass_rate, out.verdicts["math"].correct) == ("Be brief.", 0.25, True)


def test_a_response_that_is_accepted_unread_stays_as_it_is_however_broken(tmp_path: Path) -> None:
    broken = "before <think>a</think> tail without an answer tag"
    with ReviewQueue.create(tmp_path / "q.db", [{"problem": "p", "response": broken}]) as queue:
        turn = queue.next("ana")
        assert turn is not None
        assert turn.item.text == Text(reasoning="before a", summary="tail without an answer tag")
        queue.auto_accept()
        assert next(queue.rows())["response"] == broken


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"summary": "x"}, "sample 2: there is no question"),
        ({"problem": "p"}, "sample 2: there is no response"),
        ({"problem": "p", "summary": 3}, "summary is 3: it must be text"),
        ({"problem": "p", "summary": "s", "response": "r"}, "a whole response and"),
        ({"problem": "p", "summary": "s", "verdicts": [1]}, r"verdicts is \[1\]: it must be an object"),
        ({"problem": "p", "summary": "s", "filters": {"long": "yes"}}, "filters.long is 'yes'"),
        ({"problem": "p", "summary": "s", "id": True}, "id is True"),
        ({"problem": "p", "summary": "s", "id": "a\nb"}, "text that can be printed"),
        ({"messages": [{"role": "user", "content": "p"}]}, "messages must end with"),
        ({"messages": "p"}, "field messages: the value is 'p'"),
        ([1], r"sample 2 is \[1\]"),
    ],
)
def test_a_broken_row_is_named_and_no_queue_is_made(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(ReviewError, match=message):
        ReviewQueue.create(tmp_path / "q.db", [sample(1), row])
    assert list(tmp_path.iterdir()) == []


def test_verdicts_are_right_wrong_or_cannot_tell() -> None:
    results = {
        "math": {"correct": True, "extracted": "72", "detail": "equal"},
        "judge": None,
        "long": {"passed": False},
    }
    found = checks(parse_item(sample(1, verdicts=results)).verdicts)
    assert [(check.name, check.passed, check.detail) for check in found] == [
        ("math", True, "72 · equal"),
        ("judge", None, ""),
        ("long", False, ""),
    ]


def test_a_record_can_be_given_in_place_of_a_row(tmp_path: Path) -> None:
    item = ReviewItem(id="x", problem="p", reasoning="r", summary="s", filters={"readable": True})
    with ReviewQueue.create(tmp_path / "q.db", [item]) as queue:
        turn = queue.next("ana")
        assert turn is not None and turn.item == item


@pytest.mark.parametrize(
    ("action", "text", "reason", "message"),
    [
        ("reject", None, "  ", "needs a reason"),
        ("accept", Text(reasoning=" ", summary=""), "", "edited sample is empty"),
        ("burn", None, "", "must be accept, reject or skip"),
    ],
)
def test_a_decision_that_cannot_be_meant_is_refused_and_the_sample_kept(
    make: Make, action: str, text: Text | None, reason: str, message: str
) -> None:
    queue = make(1)
    take(queue, "ana")
    with pytest.raises(ReviewError, match=message):
        queue.decide("ana", "s0", action, text=text, reason=reason)
    assert queue.turn("ana", "s0") is not None and queue.history() == []


@pytest.mark.parametrize("name", ["", "  ", "a" * 41, "a\u202eb", "Auto-Accept"])
def test_a_name_that_cannot_be_told_apart_is_refused(make: Make, name: str) -> None:
    with pytest.raises(ReviewError):
        make(1).next(name)


@pytest.mark.parametrize("settings", [{"double_share": 1.5}, {"double_share": -0.1}, {"lease_minutes": 0}])
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, settings: dict[str, float]) -> None:
    with pytest.raises(ReviewError, match=next(iter(settings))):
        ReviewQueue.create(tmp_path / "q.db", **settings)


def test_files_that_are_no_queue_get_one_clear_message(tmp_path: Path) -> None:
    text, other = tmp_path / "text.db", tmp_path / "other.db"
    text.write_text("not a database, but long enough to have a header of its own" * 20)
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (a)")
    db.close()
    for path, message in (
        (text, "not a review queue"),
        (other, "not a review queue"),
        (tmp_path / "no.db", "there is no"),
    ):
        with pytest.raises(ReviewError, match=message):
            ReviewQueue(path)
    with pytest.raises(ReviewError, match="not a review queue"):
        ReviewQueue.create(text, [sample(1)])
    assert text.exists()


def test_a_full_disk_loses_the_decision_being_made_and_no_other(make: Make) -> None:
    queue = make(2)
    queue.decide("ana", take(queue, "ana"), "accept")
    take(queue, "ana")
    pages = queue.database.one("PRAGMA page_count")[0]
    queue.database.all(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="the disk is full; earlier decisions are safe"):
        queue.decide("ana", "s1", "accept", text=Text(reasoning="long " * 20_000, summary="2"))
    queue.database.all("PRAGMA max_page_count = 1000000")
    assert queue.progress().accepted == 1
    queue.decide("ana", "s1", "accept")
    assert queue.done


def test_a_queue_that_another_process_holds_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = make(1)
    queue.database.all("PRAGMA busy_timeout = 1")
    with sqlite3.connect(queue.path, isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process holds the queue"):
            queue.next("ana")
        db.execute("ROLLBACK")
    db.close()


def test_many_reviewers_at_once_never_get_the_same_sample(make: Make) -> None:
    queue = make(60)
    names = [f"r{number}" for number in range(6)]
    threads = [threading.Thread(target=decide_all, args=(queue, name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert queue.done
    assert sorted(line.item for line in queue.history()) == sorted(f"s{number}" for number in range(60))


def test_what_was_decided_outlives_a_killed_process(tmp_path: Path) -> None:
    code = """
import os, sys
from r1kit.review.queue import ReviewQueue
queue = ReviewQueue.create(sys.argv[1], [{"id": str(i), "problem": "p", "summary": "s"} for i in range(3)])
queue.decide("ana", queue.next("ana").item.id, "accept")
os._exit(9)
"""
    path = tmp_path / "q.db"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 9
    with ReviewQueue(path) as queue:
        assert (queue.progress().accepted, queue.pending()) == (1, 2)


def test_progress_and_reviewers_count_what_stands(make: Make) -> None:
    queue = make(4)
    queue.decide("ana", take(queue, "ana"), "accept")
    queue.decide("ana", take(queue, "ana"), "accept", text=Text(reasoning="x", summary="y"))
    queue.decide("bo", take(queue, "bo"), "reject", reason="no")
    queue.decide("ana", take(queue, "ana"), "reject", reason="no")
    queue.undo("ana")
    found = queue.progress()
    assert (found.total, found.pending, found.accepted, found.edited, found.rejected, found.leased) == (
        4,
        1,
        2,
        1,
        1,
        1,
    )
    counts = {row["who"]: (row["accepted"], row["edited"], row["rejected"]) for row in queue.reviewers()}
    assert counts == {"ana": (1, 1, 0), "bo": (0, 0, 1)}


def test_the_command_imports_accepts_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, out, queue = tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tmp_path / "q.db"
    rows.write_text("".join(json.dumps(sample(number)) + "\n" for number in range(3)))
    assert cli.main(["review", str(queue), "--import", str(rows), "--export", str(out)]) == 0
    told = capsys.readouterr()
    assert "0 accepted samples" in told.out and "3 samples are still pending" in told.err
    assert cli.main(["review", str(queue), "--auto-accept", "--export", str(out)]) == 0
    assert "auto-accepted 3 pending samples" in capsys.readouterr().out
    assert [row["id"] for row in read_rows(out)] == ["s0", "s1", "s2"]


def test_the_next_sample_is_found_without_a_walk_through_all_decisions_or_all_decided_samples(make: Make) -> None:
    values = {"who": "ana", "now": 0.0}
    plan = [
        str(tuple(row)) for query in NEXT_ITEM for row in make().database.all(f"EXPLAIN QUERY PLAN {query}", values)
    ]
    assert any("items_left" in step for step in plan) and any("history_by_item" in step for step in plan)
    assert not any("history_by_who" in step or "SCAN items'" in step for step in plan)


def test_a_queue_of_an_earlier_version_gets_the_index_when_it_is_opened(make: Make) -> None:
    queue = make()
    queue.database.all("DROP INDEX items_left")
    queue.close()
    with ReviewQueue(queue.path) as reopened:
        assert reopened.database.all("SELECT 1 FROM sqlite_master WHERE name = 'items_left'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.db"], "there is no review queue no.db"),
        (["no.db", "--import", "gone.jsonl"], "error: gone.jsonl: there is no such file"),
        (["rows.jsonl", "--export", "x.jsonl"], "not a review queue"),
        (["q.db", "--import", "rows.jsonl"], "rows.jsonl, row 2: not valid JSON"),
        (["q.db", "--rejected", "x.jsonl"], "--rejected needs --export"),
    ],
)
def test_the_command_tells_bad_input_in_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(json.dumps(sample(1)) + "\n{broken\n" + json.dumps(sample(2)) + "\n")
    assert cli.main(["review", *arguments]) == 1
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told
    assert not (tmp_path / "q.db").exists()


def test_a_queue_that_was_cut_to_nothing_is_refused_and_no_kill_leaves_one(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    with ReviewQueue.create(path, [{"id": "a", "problem": "1+1", "response": "2"}]):
        assert os.listdir(tmp_path).count(path.name) == 1
    path.write_bytes(b"")
    for open_again in (ReviewQueue, ReviewQueue.create):
        with pytest.raises(
            ReviewError, match=r"review.db has 0 bytes: it was cut; restore it from a copy, or delete it"
        ):
            open_again(path)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("page", [0, 1, 2, 5])
def test_a_damaged_page_of_a_queue_is_one_message(tmp_path: Path, page: int) -> None:
    path = tmp_path / "review.db"
    rows = [{"id": str(n), "problem": f"{n}+1", "response": "2" * 200} for n in range(200)]
    ReviewQueue.create(path, rows).close()
    require_whole(path)
    with open(path, "r+b") as file:
        file.seek(4096 * page + (100 if not page else 0))
        file.write(b"Z" * 900)
    with pytest.raises((ReviewError, StoreError), match=r"review.db: (the file is damaged|this is not a review queue)"):
        require_whole(path)
