"""The stage `report`: a page and a summary of all earlier stages. Its folder is the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from r1kit.pipeline import Context, Kind
from r1kit.report import write_report
from r1kit.settings import Settings


class ReportSettings(Settings):
    """The title of the page, and the column that later ones (its students) are compared with."""

    title: str = "r1kit run"
    teacher: str = ""


class NotedReportSettings(ReportSettings):
    """Also notes under the title, such as the data's licences.

    As a field of `ReportSettings`, they would change the fingerprint of every report.
    """

    notes: tuple[str, ...] = ()


class ControlledReportSettings(NotedReportSettings):
    """Also control arms: for a trained model's column, the columns of its base (`base`), of the base on fresh problems
    (`fresh`), and of each arm."""

    controls: dict[str, dict[str, str]] = Field({})


def run(context: Context) -> Mapping[str, Any]:
    """Write report.html and summary.json; the inputs are the folders of the stages, in the order of the recipe."""
    settings: ReportSettings = context.settings
    notes = settings.notes if isinstance(settings, NotedReportSettings) else ()
    controls = settings.controls if isinstance(settings, ControlledReportSettings) else {}
    write_report(context.inputs(), context.folder, settings.title, settings.teacher, notes, controls)
    return {"stages": len(context.paths)}


REPORT = Kind(name="report", run=run, settings=ReportSettings, version=3)
