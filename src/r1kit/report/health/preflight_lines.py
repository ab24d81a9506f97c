"""The checks that a stage made before its first step, as a verdict if one of them fails."""

from __future__ import annotations

from r1kit.report.folders import Row, StageFolder
from r1kit.report.health.course import Check, finding
from r1kit.report.health.signals import Name, Signals, Verdict
from r1kit.store import StoreError, read_json

FILE, KEYS = "preflight.json", {"check", "value", "verdict", "remedy"}
# What a run is that trains in spite of a failing check (preflight=warn); all other checks compare two sides.
MEANING: dict[str, Name] = {
    "verifier on your references": "starved",
    "form of the references": "starved",
    "rewards on your references": "hacking",
    "answers in the prompts": "leaking",
}
CONSTANT = "not constant"  # the limit of rewards that failed it: then no group has a gradient


def preflight_lines(stage: StageFolder) -> list[Row]:
    """Raises `StoreError` for a file that does not hold such lines."""
    path = stage.folder / FILE
    lines = read_json(path) if path.exists() else []
    if not isinstance(lines, list) or not all(isinstance(line, dict) and line.keys() >= KEYS for line in lines):
        raise StoreError(f"{path} does not hold the checks that r1kit wrote: it was damaged or edited; delete it")
    return lines


def failed_before(signals: Signals) -> Verdict | None:
    """A check before the first step failed, and the stage trained in spite of it."""
    failing = [line for line in preflight_lines(signals.stage) if line["verdict"] == "fails"]
    if not failing:
        return None
    first = failing[0]
    evidence = [f"before the first step, {line['check']}: {line['value']}" for line in failing[:3]]
    is_constant = first.get("limit") == CONSTANT
    name = "starved" if is_constant else MEANING.get(first["check"], "mismatched")
    return Verdict(name=name, evidence=tuple(evidence), remedy=str(first["remedy"]))


def preflight(stage: StageFolder) -> Check | None:
    """How the checks before the first step went; None if there were none."""
    lines = preflight_lines(stage)
    if not lines:
        return None
    failing = [line for line in lines if line["verdict"] == "fails"]
    unclear = [str(line["check"]) for line in lines if line["verdict"] == "unclear"]
    evidence = f"{len(lines) - len(failing) - len(unclear)} of {len(lines)} checks before the first step pass"
    evidence += f"; not clear: {', '.join(unclear)}" if unclear else ""
    evidence += "".join(f"; {line['check']}: {line['value']}" for line in failing)
    return finding("Preflight", bool(failing), evidence, str(failing[0]["remedy"]) if failing else "")
