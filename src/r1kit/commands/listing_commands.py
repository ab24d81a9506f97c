"""The commands `models`, `data list` and `data check`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit.models.known import KNOWN, ModelError, parameters_in
from r1kit.tasks import KNOWN as KNOWN_SETS
from r1kit.tasks import check_file
from r1kit.tasks.public_files import FILES, on_this_machine
from r1kit.tasks.public_sets import find_local

SHOWN, SHOWN_CHARS = 300, {"prompt": 2000}  # characters of a text in the report of a check


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


def data_sets() -> list[dict[str, str]]:
    """One row per public set: what it holds, its licence, and where it is."""
    rows = []
    for name, known in KNOWN_SETS.items():
        splits = known.splits.values()
        trains = any(not split.evaluate_only for split in splits)
        holds = "traces" if known.traces else "problems" if trains else "problems, evaluation only"
        here = any(find_local(split.local) for split in splits)
        rows.append((name, holds, known.licence, here, known.hub, known.about))
    for file in FILES.values():
        rows.append((file.name, file.holds, file.licence, on_this_machine(file) is not None, file.hub, file.about))
    return [
        {"name": name, "holds": holds, "licence": licence, "here": "yes" if here else "", "hub": hub, "about": about}
        for name, holds, licence, here, hub, about in rows
    ]


def check_data(file: Path, columns: Mapping[str, str] | None = None, verifier: str | None = None) -> dict[str, Any]:
    """The first prompts and references of a data file, and all its faults with file, row and field.

    "ok" tells whether it has no fault, "text" is the report for people. A fault raises nothing.
    """
    report = check_file(file, columns, verifier)
    lines = [f"{report.file}: {report.problems} of {report.rows} rows are usable (schema {report.schema or 'unknown'})"]
    lines += [report.reading] if report.reading else []
    for item in report.first:
        lines.append(f"row {item.row}")
        for name, text in item.fields.items():
            limit = SHOWN_CHARS.get(name, SHOWN)
            text = text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"
            lines.append(f"  {name + ':':10}" + text.replace("\n", "\n" + " " * 12))
    lines += [f"{count} x {kind}" for kind, count in report.counts.items()]
    return report.as_dict() | {"text": "\n".join([*lines, *map(str, report.issues)])}
