"""The process of one tracker: `python -m r1kit.tracking.follow NAME`.

It reads one line of JSON from stdin: the stages to follow. The end of stdin says that the run has ended, also if it was
killed: then the process sends what is left and exits, within about two minutes. Lines on stdout are for the people who
watch the run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from r1kit.tracking.feed import Feed
from r1kit.tracking.trackers import FINISH_S, TrackedStage

POLL_S = 1.0
NEWLINE = "\n"
RETRY_S = 60.0  # after an error of the tracker
REST = "the run goes on; the same command sends what is missing"


def main() -> None:
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)  # what libraries print belongs in the log
    os.nice(10)  # training comes first
    plan, ended = json.loads(sys.stdin.readline()), threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()
        time.sleep(FINISH_S + 5)  # the run waits no longer; if it was killed, nobody else would end this process
        os.killpg(0, signal.SIGKILL)  # with the processes of the tracker's library

    threading.Thread(target=wait_for_end, daemon=True).start()
    stages = [TrackedStage(plan["recipe"], Path(stage["folder"]), stage["config"]) for stage in plan["stages"]]
    with suppress(BrokenPipeError):  # the run was killed, so nobody reads
        follow(sys.argv[1], stages, ended, lambda text: print(text, file=messages, flush=True))


def follow(tracker: str, stages: Sequence[TrackedStage], ended: threading.Event, say: Callable[[str], None]) -> None:
    """Send the rows of all stages until they are done, or `ended` is set and nothing is left.

    Says how to look at them, and a failure once.
    """
    feeds = [Feed(tracker, stage) for stage in stages]
    left, hints, has_failed, retry_at = list(feeds), set[str](), False, 0.0
    while left:
        is_last = ended.is_set()  # before the last rows are read
        error = send_round(left, is_last) if is_last or time.monotonic() >= retry_at else None
        for hint in sorted({feed.hint for feed in feeds} - hints - {""}):
            say(hint)
            hints.add(hint)
        if error is not None:
            retry_at = time.monotonic() + RETRY_S
            if not has_failed:
                remedy = f"pip install 'r1kit[{tracker}]'; " if isinstance(error, ImportError) else ""
                say(f"{type(error).__name__}: {str(error).strip().partition(NEWLINE)[0]}; {remedy}{REST}")
                has_failed = True
        if isinstance(error, ImportError) or (is_last and not any(feed.is_waiting for feed in left)):
            return
        time.sleep(POLL_S) if is_last else ended.wait(POLL_S)


def send_round(feeds: list[Feed], is_last: bool) -> Exception | None:
    """Send what is new and remove the feeds that are done. Returns the first error, after which no other is tried: each
    call may take long."""
    for feed in list(feeds):
        try:
            if feed.send():
                feeds.remove(feed)
            elif is_last:
                feed.close()
        except Exception as error:
            traceback.print_exc()
            feed.restart()
            return error
    return None


if __name__ == "__main__":
    main()
