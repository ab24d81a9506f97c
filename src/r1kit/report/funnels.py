"""What stages that make data kept and dropped, for the page: the steps of `funnel.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from r1kit.report.folders import Stage, read_json

SHOWN = 2  # examples of each step


def funnel(stage: Stage) -> dict[str, Any] | None:
    """The funnel of a stage that made data: steps that dropped rows, with reasons and examples; None without one."""
    told = read_json(stage.folder / "funnel.json")
    if not told:
        return None
    steps = [step for step in told.get("funnel", ()) if step["rows_in"] != step["rows_out"]]
    return {
        "asked": told.get("asked", 0),
        "samples": told.get("samples", 0),
        "kept": told.get("kept", 0),
        "steps": [_step(step) for step in steps],
        "decontamination": [
            {"set": one.get("set", ""), "rows": one.get("rows", 0)} for one in told.get("decontamination", ())
        ],
    }


def _step(step: Mapping[str, Any]) -> dict[str, Any]:
    reasons = sorted(step["reasons"].items(), key=lambda item: -item[1])
    return {
        "name": str(step["name"]).replace("_", " "),
        "rows_in": step["rows_in"],
        "rows_out": step["rows_out"],
        "reasons": ", ".join(f"{name} {count:,}" for name, count in reasons),
        "examples": _examples(step["examples"]),
    }


def _examples(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first of each reason, as many as are shown."""
    first = {one["reason"]: one for one in reversed(given)}
    return [f"{one['detail']}: {one['text']}" if one.get("text") else str(one["detail"]) for one in first.values()][
        :SHOWN
    ]
