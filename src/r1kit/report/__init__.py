"""One self-contained HTML page and one `summary.json` per run, built from the files that its stages wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1kit import store
from r1kit.report.folders import Source
from r1kit.report.gains import Controls
from r1kit.report.page import render
from r1kit.report.run import Run
from r1kit.report.run_summary import summarise_run


def write_report(
    source: Source,
    out: Path | str,
    title: str = "",
    teacher: str = "",
    notes: Sequence[str] = (),
    controls: Controls | None = None,
) -> dict[str, Any]:
    """Write `report.html` and `summary.json` into `out`, each atomically; returns the summary.

    `source` is a run's folder, a list of stage folders, or a mapping of names to stage folders in order. Stages may be
    unfinished. `teacher` names the column whose accuracy the columns after it are compared with, and
    `notes` are lines under the title. `controls` name the control arms of trained models; see `Run`.
    """
    run = Run.open(source, title, teacher, notes, controls)
    page, data = render(run), summarise_run(run)  # both before the first file: an error leaves an earlier report whole
    store.write_text(Path(out) / "report.html", page)
    store.write_json(Path(out) / "summary.json", data)
    return data
