"""The progress of stages: on stderr (a bar for each on a terminal, plain lines elsewhere), and in each stage's folder.

`progress.json` is for readers outside of the process, such as `r1kit watch`: how far a stage is, and how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

from r1kit.terminal import printable, shortened

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from r1kit.pipeline.other_nodes import Summons

FILE = "progress.json"
SAVE_EVERY_S = 1.0
CELL, LINE_CELL = 400, 120  # characters of a table's cell on a terminal, and in a line
LINE_EVERY_S = 1.0  # without a terminal, at most one line per second and stage, so that logs stay readable


class Display:
    """Shows the progress of all running stages. As a context manager it can draw bars; otherwise it prints lines.

    `on_step` is called with the title of a stage after steps that are shown.
    """

    def __init__(self, stream: TextIO | None = None, on_step: Callable[[str], object] | None = None) -> None:
        self._stream, self._on_step = stream or sys.stderr, on_step
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
            self._bars.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
        else:
            self._print(line)

    def table(self, title: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Print rows of text, which may come from a model; elsewhere than on a terminal each is one line."""
        if self._bars is None:
            for row in rows:
                self._print(_line(title, " | ".join(shortened(cell, LINE_CELL) for cell in row.values())))
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(*rows[0], title=Text(title), title_justify="left", show_lines=True)
        for row in rows:
            table.add_row(*(Text(printable(shortened(cell, CELL))) for cell in row.values()))  # Text has no markup
        self._bars.console.print(table)

    def step(self, title: str, done: int, total: int, note: str) -> None:
        """Show that `done` of `total` steps of the stage `title` are done."""
        if self._bars is None:
            width = len(str(total))
            self._print(_line(title, f"{done:>{width}}/{total}  {note}".rstrip()))
        else:
            if title not in self._ids:
                self._ids[title] = self._bars.add_task(title, note="")
            self._bars.update(self._ids[title], completed=done, total=total, note=printable(note))
        if self._on_step is not None:
            self._on_step(title)

    def summon(self, summons: Summons) -> None:
        """Start the agents of a stage's other nodes: only displays on a cluster can."""
        raise NotImplementedError

    def end(self, title: str) -> None:
        """Remove the bar of a stage."""
        if self._bars is not None and title in self._ids:
            self._bars.remove_task(self._ids.pop(title))

    def _print(self, line: str) -> None:
        print(printable(line), file=self._stream, flush=True)


class Progress:
    """The progress of one stage. With a `folder`, `progress.json` there repeats it."""

    def __init__(
        self,
        title: str = "",
        display: Display | None = None,
        clock: Callable[[], float] = time.monotonic,
        folder: Path | None = None,
    ) -> None:
        self._title = title
        self._display = display or Display()
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._last_step = self._last_save = float("-inf")
        self._folder = folder
        self._state: dict[str, Any] = {"done": None, "total": None, "seconds_left": None, "note": ""}

    def say(self, text: str) -> None:
        """Print one line."""
        self._display.say(_line(self._title, text))

    def table(self, text: str, rows: Sequence[Mapping[str, str]]) -> None:
        """Print rows of text under a title."""
        self._display.table(_line(self._title, text), rows)

    def step(self, done: int, total: int, fields: Mapping[str, float | str] | None = None) -> None:
        """Show that `done` of `total` steps are done, and the values of `fields`. Resumed work starts above 0."""
        now, left = self._clock(), None
        first_done, since = self._first = self._first or (done, now)
        is_shown = done >= total or now - self._last_step >= self._display.every_s
        is_saved = self._folder is not None and (done >= total or now - self._last_save >= SAVE_EVERY_S)
        if not (is_shown or is_saved):
            return
        if first_done < done < total:  # at the speed since the first call; steps of an earlier attempt do not count
            left = round((now - since) / (done - first_done) * (total - done))
        note = "  ".join(
            f"{name} {value}" if isinstance(value, str | int) else f"{name} {value:.4g}"
            for name, value in (fields or {}).items()
        )
        if is_shown:
            self._last_step = now
            self._display.step(
                self._title, done, total, f"{'' if left is None else duration(left) + ' left':>9}  {note}"
            )
        if is_saved:
            self._last_save = now
            self._state |= {"done": done, "total": total, "seconds_left": left, "note": note}
            self.save("running")

    def take_over(self) -> None:
        """Continue with the steps that another process wrote to `progress.json`."""
        if self._folder is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                written = json.loads((self._folder / FILE).read_bytes())
                self._state = {name: written[name] for name in self._state}

    def save(self, state: Literal["running", "done", "stopped", "failed"], error: str = "") -> None:
        """Write `progress.json`. A failure is ignored: it must not stop the stage."""
        if self._folder is None:
            return
        process = {"process": os.getpid(), "host": socket.gethostname(), "changed": time.time()}
        text = json.dumps({"state": state, "error": error, **self._state, **process}, ensure_ascii=False)
        file = self._folder / FILE
        temporary = file.with_name(f".{FILE}.{threading.get_ident()}.tmp-{os.getpid()}")
        with contextlib.suppress(OSError):  # no fsync, unlike `store`: it would cost more than all the rest
            temporary.write_bytes(text.encode("utf-8", "replace"))
            os.replace(temporary, file)


def duration(seconds: int) -> str:
    """`1:02:03`, or `2:03` for less than an hour."""
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def _line(title: str, text: str) -> str:
    return f"{title}: {text}" if title else text
