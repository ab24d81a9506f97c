"""The stage `compare-algorithms`: one table of algorithms that were trained with equal rollouts and several seeds.

Inputs: `training/ARM/SEED` and `measured/ARM/SEED`, the folders of training and of its evaluation. Leaves
`summary.json` and `table.txt`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Context, Kind
from r1kit.report import algorithms
from r1kit.report.folders import StageFolder
from r1kit.settings import Settings
from r1kit.store import write_json, write_text


class CompareSettings(Settings):
    """The arm that all others are compared with, and the arm that is the same with other seeds ('': none)."""

    reference: str
    null: str = ""


def run(context: Context) -> Mapping[str, Any]:
    """Compare all arms with the reference, measure by measure."""
    settings: CompareSettings = context.settings
    trained, measured = context.inputs("training/"), context.inputs("measured/")
    arms: dict[str, list[dict[str, float]]] = {}
    for name, folder in trained.items():
        arm = name.rpartition("/")[0]
        row = algorithms.figures(StageFolder(name, folder), StageFolder(name, measured[name]))
        arms.setdefault(arm, []).append(row)
    summary = algorithms.to_json(arms, settings.reference, settings.null)
    write_json(context.folder / "summary.json", summary)
    write_text(context.folder / "table.txt", summary["table"] + "\n")
    return {"arms": len(arms), "models": len(trained)}


COMPARE_ALGORITHMS = Kind(name="compare-algorithms", run=run, settings=CompareSettings)
