"""The progress of stages on stderr: on a terminal a bar with the time left for each, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_EVERY_S = 1.0  # without a terminal, at most one line per second and stage, so that logs stay readable


class Display:
    """Shows the progress of all running stages. As a context manager it can draw bars; otherwise it prints lines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bars: Bars | None = None
        self._ids: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self._stream.isatty():
            from rich.console import Console  # rich respects NO_COLOR
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bars

            console = Console(file=self._stream)
            note = TextColumn("{task.fields[note]}", markup=False)
            name = TextColumn("{task.description}", markup=False)
            if not console.is_dumb_terminal:
                self._bars = Bars(name, BarColumn(bar_width=24), MofNCompleteColumn(), note, console=console)
                self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    @property
    def every_s(self) -> float:
        """How often a stage shows its steps."""
        return LINE_EVERY_S if self._bars is None else 0.0

    def say(self, line: str) -> None:
        """Print one line."""
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._print(line)

    def step(self, title: str, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` steps of the stage `title` are done."""
        if self._bars is None:
            width = len(str(total))
            self._print(_line(title, f"{done:>{width}}/{total}  {note}".rstrip()))
            return
        if title not in self._ids:
            self._ids[title] = self._bars.add_task(title, note="")
        self._bars.update(self._ids[title], completed=done, total=total, note=note)

    def end(self, title: str) -> None:
        """Remove the bar of a stage."""
        if self._bars is not None and title in self._ids:
            self._bars.remove_task(self._ids.pop(title))

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Progress:
    """The progress of one stage."""

    def __init__(
        self, title: str = "", display: Display | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._display = display or Display()
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._last_step = float("-inf")

    def say(self, text: str) -> None:
        """Print one line."""
        self._display.say(_line(self._title, text))

    def step(self, done: int, total: int, fields: Mapping[str, float | str] | None = None) -> None:
        """Show that `done` of `total` steps are done, and the values of `fields`. Resumed work starts above 0."""
        now, left = self._clock(), ""
        first_done, since = self._first = self._first or (done, now)
        if done < total and now - self._last_step < self._display.every_s:
            return
        self._last_step = now
        if first_done < done < total:  # at the speed since the first call; steps of an earlier attempt do not count
            seconds = round((now - since) / (done - first_done) * (total - done))
            hours, minutes = seconds // 3600, seconds // 60 % 60
            left = f"{hours}:{minutes:02}:{seconds % 60:02} left" if hours else f"{minutes}:{seconds % 60:02} left"
        values = [
            f"{name} {value}" if isinstance(value, str | int) else f"{name} {value:.4g}"
            for name, value in (fields or {}).items()
        ]
        self._display.step(self._title, done, total, "  ".join([f"{left:>9}", *values]))


def _line(title: str, text: str) -> str:
    return f"{title}: {text}" if title else text
