"""The stage `report`: a page and a summary of all earlier stages. Its folder is the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Context, Kind
from r1kit.report import write_report
from r1kit.settings import Settings


class ReportSettings(Settings):
    """The title of the page, and the column that later ones (its students) are compared with."""

    title: str = "r1kit run"
    teacher: str = ""


def run(context: Context) -> Mapping[str, Any]:
    """Write report.html and summary.json; the inputs are the folders of the stages, in the order of the recipe."""
    write_report(context.inputs(), context.folder, context.settings.title, context.settings.teacher)
    return {"stages": len(context.paths)}


REPORT = Kind(name="report", run=run, settings=ReportSettings, version=3)
