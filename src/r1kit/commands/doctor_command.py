"""The command `doctor`: is a run broken, in which stage and way, how does one see it, and what helps?"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from r1kit.report.folders import UNREADABLE, StageFolder, find_stages, stage_name
from r1kit.report.health import Check, Verdict, checks, verdict
from r1kit.report.live.places import is_stage, require_runs
from r1kit.report.live.stage_state import StageState, States
from r1kit.report.run import Run
from r1kit.store import to_plain
from r1kit.terminal import printable

Row = dict[str, Any]


def doctor(path: Path) -> list[Row]:
    """For each run below `path`, or the one stage that it is: its stages with verdict, evidence, remedy and findings.

    Raises ValueError if there is no run. `ok` is false if a stage has a fault, cannot be believed, or failed.
    """
    if is_stage(path):
        rows = {path: _alone(StageFolder(stage_name(path.resolve()), path))}
        return [_run(path.resolve().parent.name, path, _with_failures(rows, {path: States().stage(path)}))]
    runs = require_runs(path)
    return [_run(name, folder, _stages(folder)) for name, folder in runs.items()]


def _stages(folder: Path) -> list[Row]:
    """A run's training stages, and those that failed."""
    states = {folder / state.id: state for state in States().run(folder).stages}
    return _with_failures(_judgements(folder), states)


def _judgements(folder: Path) -> dict[Path, Row]:
    """A run's training stages; if a file of the run is damaged, each by itself, without what a run compares."""
    with suppress(*UNREADABLE):
        run = Run.open(folder, beyond_report=True)
        folders = {stage.name: stage.folder for stage in run.stages}
        if not any(stage.damage(of_rows=True) for stage in run.stages):
            return {
                folders[name]: _judged(name, result, run.health.get(name, [])) for name, result in run.verdicts.items()
            }
    damaged, found, rows = dict[Path, str](), list[StageFolder](), dict[Path, Row]()
    with suppress(ValueError):  # no stage has begun, or none can be read
        found = find_stages(folder, damaged, beyond_report=True)
    for stage in found:
        if reason := stage.damage(of_rows=True):
            damaged[stage.folder] = reason
        elif stage.metrics and not stage.settings.get("is_control"):
            rows[stage.folder] = _alone(stage)
    return rows | {stage: _damaged(stage_name(stage), stage, reason) for stage, reason in damaged.items()}


def _with_failures(rows: dict[Path, Row], states: Mapping[Path, StageState]) -> list[Row]:
    """The rows, and one for each stage that failed before it had a fault."""
    for folder, state in states.items():
        known = rows.get(folder, {})
        if state.state == "failed" and not known.get("is_fault"):
            remedy = "repair what it names; the same command goes on from there"
            fault = {"name": "failed", "evidence": [state.error], "remedy": remedy, "is_fault": True}
            rows[folder] = {"stage": state.name, "findings": [], **known, **fault}
    return list(rows.values())


def _alone(stage: StageFolder) -> Row:
    try:
        reason = stage.damage(of_rows=True)
        return (
            _damaged(stage.name, stage.folder, reason)
            if reason
            else _judged(stage.name, verdict(stage), checks(stage, {}))
        )
    except UNREADABLE as error:
        return _damaged(stage.name, stage.folder, str(error))


def _judged(name: str, result: Verdict, findings: Sequence[Check]) -> Row:
    return {"stage": name, **to_plain(result), "is_fault": result.is_fault, "findings": to_plain(findings)}


def _damaged(name: str, folder: Path, reason: str) -> Row:
    remedy = f"{shlex.join(['r1kit', 'verify-run', str(folder)])} names every damaged file, and what to do"
    evidence = [f"a file is not as it was written: {reason}"]
    return {"stage": name, "name": "damaged", "evidence": evidence, "remedy": remedy, "is_fault": True, "findings": []}


def _run(name: str, folder: Path, stages: Sequence[Row]) -> Row:
    is_ok = not any(stage["is_fault"] for stage in stages)
    return {"run": name, "folder": str(folder), "ok": is_ok, "stages": stages}


def doctor_text(runs: Sequence[Mapping[str, Any]]) -> str:
    """For people: the verdict of each stage, with what speaks for it; of findings, those that need attention."""
    lines = []
    for run in runs:
        result = "a fault" if not run["ok"] else "no fault" if run["stages"] else "no stage has trained yet"
        lines.append(f"{run['run']}: {result}; {run['folder']}")
        for stage in run["stages"]:
            lines.append(f"  {stage['stage']}: {stage['name']}")
            lines += [f"    {evidence}" for evidence in stage["evidence"]]
            lines += [f"    remedy: {stage['remedy']}"] if stage["remedy"] else []
            for check in stage["findings"]:
                if check["status"] != "attention":
                    continue
                if stage["is_fault"]:  # without advice: the fault must be repaired first
                    lines.append(f"    symptom: {check['name']}: {check['evidence']}")
                else:
                    lines.append(f"    look at {check['name']}: {check['evidence']}; {check['advice']}")
    return printable("\n".join(lines))
