"""The commands `models` and `data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r1kit.models.known import KNOWN, ModelError, parameters_in
from r1kit.tasks import check_file


def models() -> list[dict[str, str]]:
    """One row per known model, all with the same columns."""
    columns = ("name", "parameters", "licence", "about")
    rows = [{column: str(getattr(model, column)) for column in columns} for model in KNOWN.values()]
    return [row | {"parameters": row["parameters"] or _shipped_size(row["name"])} for row in rows]


def _shipped_size(name: str) -> str:
    """The number of parameters in the weights of a model that comes with the package: "0.87M"."""
    try:
        return f"{parameters_in(KNOWN[name].folder() / 'model.safetensors') / 1e6:.2f}M"
    except ModelError:
        return "not made"


def check_data(file: Path) -> dict[str, Any]:
    """What a data file holds, and all its faults with file, row and field.

    "ok" tells whether it has no fault, "text" is the report for people. A fault raises nothing.
    """
    report = check_file(file)
    head = f"{report.file}: {report.problems} of {report.rows} rows are usable (schema {report.schema or 'unknown'})"
    counts = [f"{count} x {kind}" for kind, count in report.counts.items()]
    return report.as_dict() | {"text": "\n".join([head, *counts, *map(str, report.issues)])}
