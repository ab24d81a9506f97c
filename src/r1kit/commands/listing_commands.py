"""The commands `models` and `data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from r1kit.models.known import KNOWN, ModelError, parameters_in
from r1kit.tasks import check_file


def models() -> list[dict[str, str]]:
    """One row per known model, all with the same columns."""
    rows = []
    for model in KNOWN.values():
        parameters = model.parameters
        if not parameters:  # the model comes with the package: count those in its weights
            try:
                parameters = f"{parameters_in(model.folder() / 'model.safetensors') / 1e6:.2f}M"
            except ModelError:
                parameters = "not made"
        rows.append({"name": model.name, "parameters": parameters, "licence": model.licence, "about": model.about})
    return rows


def check_data(file: Path) -> dict[str, Any]:
    """What a data file holds, and all its faults with file, row and field.

    "ok" tells whether it has no fault, "text" is the report for people. A fault raises nothing.
    """
    report = check_file(file)
    head = f"{report.file}: {report.problems} of {report.rows} rows are usable (schema {report.schema or 'unknown'})"
    counts = [f"{count} x {kind}" for kind, count in report.counts.items()]
    return report.as_dict() | {"text": "\n".join([head, *counts, *map(str, report.issues)])}
