"""What a data stage kept and dropped (`funnel.json`), for the page."""

from __future__ import annotations

from typing import Any

from r1kit.report.folders import StageFolder, read_object

EXAMPLES = 2  # shown for each step


def funnel(stage: StageFolder) -> dict[str, Any] | None:
    """The steps that dropped rows, with reasons and examples; None if the stage has no funnel."""
    data = read_object(stage.folder / "funnel.json")
    if not data:
        return None
    steps = []
    for step in data.get("funnel", ()):
        if step["rows_in"] == step["rows_out"]:
            continue
        reasons = sorted(step["reasons"].items(), key=lambda item: -item[1])
        first_of_reason = {example["reason"]: example for example in reversed(step["examples"])}
        texts = [
            f"{example['detail']}: {example['text']}" if example.get("text") else str(example["detail"])
            for example in first_of_reason.values()
        ]
        steps.append(
            {
                "name": str(step["name"]).replace("_", " "),
                "rows_in": step["rows_in"],
                "rows_out": step["rows_out"],
                "reasons": ", ".join(f"{name} {count:,}" for name, count in reasons),
                "examples": texts[:EXAMPLES],
            }
        )
    sets = [{"set": entry.get("set", ""), "rows": entry.get("rows", 0)} for entry in data.get("decontamination", ())]
    return {name: data.get(name, 0) for name in ("asked", "samples", "kept")} | {
        "steps": steps,
        "decontamination": sets,
    }
