"""Starts the trackers of a run, says what they report, and lets them finish."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

import r1kit
from r1kit.pipeline import Display, PlanRow
from r1kit.pipeline.fingerprint import settings_of
from r1kit.settings import SettingsError, nearest
from r1kit.store import to_plain
from r1kit.tracking.trackers import FINISH_S, TRACKERS

REST = "the same command sends what is missing"


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of trackers without repetitions; raises `SettingsError` for an unknown one."""
    for name in names:
        if name not in TRACKERS:
            raise SettingsError(f"track: there is no tracker {name!r}: {nearest(name, TRACKERS)}")
    return tuple(dict.fromkeys(names))


@contextlib.contextmanager
def tracked(names: Sequence[str], rows: Sequence[PlanRow], display: Display) -> Iterator[None]:
    """Show all stages of a plan in these trackers while the block runs, also those that are done already.

    Nothing that a tracker does reaches the block: not an error, not a delay, not a hang.
    """
    if not names:
        yield
        return
    folder = rows[-1].folder.parent
    stages = [
        {
            "folder": str(row.folder.absolute()),
            "config": {"stage": row.stage.name, "kind": row.stage.kind.name, **settings_of(row.stage, all_fields=True)},
        }
        for row in rows
    ]
    plan = json.dumps(to_plain({"recipe": folder.name, "stages": stages}))
    followers = [_Follower(name, plan, folder / f"tracking-{name}.log", display) for name in names]
    try:
        yield
    finally:
        for follower in followers:
            follower.end()
        try:
            for follower in followers:
                follower.wait()
        finally:  # also after a second Ctrl-C
            for follower in followers:
                follower.kill()


class _Follower:
    """A tracker's process as the run sees it."""

    def __init__(self, name: str, plan: str, log: Path, display: Display) -> None:
        self.name, self.log, self.display = name, log, display
        self._plan, self._ended, self._is_killed = plan, threading.Event(), False
        self._threads: list[threading.Thread] = []
        package = str(Path(r1kit.__file__).parents[1])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "ab") as output:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "r1kit.tracking.follow", name],  # -P: not a wandb.py of this folder
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    encoding="utf-8",
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                    start_new_session=True,  # Ctrl-C in the terminal does not reach it
                )
        except OSError as error:
            self._say(f"cannot start: {error}; the run goes on, and {REST}")
            return
        # threads: the run waits neither for the process to read nor for it to write
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._instruct, self._relay)]
        for thread in self._threads:
            thread.start()

    def _instruct(self) -> None:
        stdin = cast(IO[str], self.process.stdin)
        with contextlib.suppress(OSError), stdin:  # it may have ended by itself
            stdin.write(f"{self._plan}\n")
            stdin.flush()
            self._ended.wait()

    def _relay(self) -> None:
        with cast(IO[str], self.process.stdout) as messages:
            for line in messages:
                self._say(line.rstrip())
        status = self.process.wait()
        if status and not self._is_killed:
            self._say(f"its process ended with status {status} (see {self.log}); the run is not affected, and {REST}")

    def _say(self, text: str) -> None:
        self.display.say(f"{self.name}: {text}")

    def end(self) -> None:
        """Report the end of the run to the process."""
        self._ended.set()

    def wait(self) -> None:
        """Wait until everything was sent, for a limited time."""
        if not self._threads:
            return
        _, relay = self._threads
        relay.join(FINISH_S)
        if relay.is_alive():
            self._say(f"not everything was sent in {FINISH_S} s (see {self.log}); {REST}")

    def kill(self) -> None:
        """End the process if it still runs, with all that the tracker's library has started."""
        if not self._threads:
            return
        self._is_killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left (macOS: but a zombie)
            os.killpg(self.process.pid, signal.SIGKILL)
        for thread in self._threads:
            thread.join()
