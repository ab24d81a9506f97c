"""The progress of a stage on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_EVERY_S = 1.0  # without a terminal, at most one line per second, so that logs stay readable


class Progress:
    """Shows one stage's progress. As a context manager it can draw a bar; otherwise it prints plain lines."""

    def __init__(
        self, title: str = "", *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.title = title
        self._stream = stream or sys.stderr
        self._clock = clock
        self._bar: Bar | None = None
        self._first: tuple[int, float] | None = None
        self._last_line = float("-inf")

    def __enter__(self) -> Self:
        self._bar = _bar(self._stream)
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """Print one line."""
        line = f"{self.title}: {text}" if self.title else text
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=self._stream, flush=True)

    def step(self, done: int, total: int, fields: Mapping[str, float | str] | None = None) -> None:
        """Show that `done` of `total` steps are done, and the values of `fields`. Resumed work starts above 0."""
        now, left = self._clock(), ""
        first_done, since = self._first = self._first or (done, now)
        if first_done < done < total:  # at the speed since the first call; steps of an earlier attempt do not count
            seconds = round((now - since) / (done - first_done) * (total - done))
            hours, minutes = seconds // 3600, seconds // 60 % 60
            left = f"{hours}:{minutes:02}:{seconds % 60:02} left" if hours else f"{minutes}:{seconds % 60:02} left"
        values = [
            f"{name} {value}" if isinstance(value, str | int) else f"{name} {value:.4g}"
            for name, value in (fields or {}).items()
        ]
        note = "  ".join([f"{left:>9}", *values])
        if self._bar is not None:
            task = self._bar.task_ids[0] if self._bar.task_ids else self._bar.add_task(self.title, note="")
            self._bar.update(task, completed=done, total=total, note=note)
        elif done >= total or now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            width = len(str(total))
            self.say(f"{done:>{width}}/{total}  {note}".rstrip())


def _bar(stream: TextIO) -> Bar | None:
    if not stream.isatty():
        return None
    from rich.console import Console  # rich respects NO_COLOR
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(file=stream)
    if console.is_dumb_terminal:
        return None
    note = TextColumn("{task.fields[note]}", markup=False)
    name = TextColumn("{task.description}", markup=False)
    return Bar(name, BarColumn(bar_width=24), MofNCompleteColumn(), note, console=console)
