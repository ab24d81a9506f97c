"""The command `doctor`: is a run broken, in which stage and way, how does one see it, and what helps?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from r1kit.report.folders import StageFolder, stage_name
from r1kit.report.health import Check, Verdict, checks, verdict
from r1kit.report.live.places import find_runs, is_stage
from r1kit.report.run import Run
from r1kit.store import to_plain
from r1kit.terminal import printable


def doctor(path: Path) -> list[dict[str, Any]]:
    """For each run below `path`, or the one stage that it is: its stages with verdict, evidence, remedy and findings.

    Raises ValueError if there is no run. `ok` is false if a stage has a fault.
    """
    if is_stage(path):
        stage = StageFolder(stage_name(path.resolve()), path)
        found = {stage.name: verdict(stage)}
        return [_run(path.resolve().parent.name, path, found, {stage.name: checks(stage, {})})]
    runs = find_runs(path)
    if not runs:
        raise ValueError(f"{path} holds no run: name a run's folder, one of its stages, or a folder of runs")
    opened = {name: Run.open(folder) for name, folder in runs.items()}
    return [_run(name, runs[name], run.verdicts, run.health) for name, run in opened.items()]


def _run(name: str, folder: Path, verdicts: dict[str, Verdict], findings: dict[str, list[Check]]) -> dict[str, Any]:
    stages = [
        {"stage": stage, **to_plain(result), "findings": to_plain(findings.get(stage, []))}
        for stage, result in verdicts.items()
    ]
    return {
        "run": name,
        "folder": str(folder),
        "ok": not any(result.is_fault for result in verdicts.values()),
        "stages": stages,
    }


def doctor_text(runs: Sequence[dict[str, Any]]) -> str:
    """For people: the verdict of each stage, with what speaks for it; of findings, those that need attention."""
    lines = []
    for run in runs:
        lines.append(f"{run['run']}: {'no fault' if run['ok'] else 'a fault'}; {run['folder']}")
        for stage in run["stages"]:
            lines.append(f"  {stage['stage']}: {stage['name']}")
            lines += [f"    {evidence}" for evidence in stage["evidence"]]
            lines += [f"    remedy: {stage['remedy']}"] if stage["remedy"] else []
            for check in stage["findings"]:
                if check["status"] == "attention":
                    lines.append(f"    look at {check['name']}: {check['evidence']}; {check['advice']}")
    return printable("\n".join(lines))
