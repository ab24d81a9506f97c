"""The command `status`: which runs are at work, how far they are, how healthy, and why the others ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from r1kit.evaluate.table import align
from r1kit.pipeline.progress import duration
from r1kit.report.folders import StageFolder
from r1kit.report.health import Verdict, run_verdict, verdict
from r1kit.report.live.places import is_stage, require_runs
from r1kit.report.live.stage_state import RunState, StageState, States
from r1kit.store import to_plain
from r1kit.terminal import printable, shortened

ENDED_BADLY = ("failed", "died", "damaged", "unknown", "stopped")
REASONS = {
    "died": "its process ended without an error message: it was killed, or the machine went down",
    "unknown": "it was started on another machine: run `r1kit status` there",
    "stopped": "stopped by a signal",
}
MESSAGE = 300  # characters of an error or of evidence


def status(path: Path) -> list[dict[str, Any]]:
    """The runs in a folder, one run, or one stage alone; raises ValueError if there is none.

    A damaged file makes its stage "damaged" and says what is wrong; the others are not affected.
    """
    states, only = States(), ""
    if is_stage(path):
        path, only = path.resolve().parent, path.resolve().name
    runs = require_runs(path)
    return [run_status(name, folder, states.run(folder), only) for name, folder in runs.items()]


def run_status(name: str, folder: Path, state: RunState, only: str = "") -> dict[str, Any]:
    """Plain data about a run and its stages, or about the one stage whose folder is `only`.

    `health` belongs to the stage that decides the run's: the first with a fault, otherwise the last that trains.
    """
    # of folders with other settings than the last plan's, those that another call works on, or that cannot be read
    others = [stage for stage in state.earlier if stage.id == only or stage.state in ("running", "damaged")]
    stages = [stage for stage in [*state.stages, *others] if only in ("", stage.id)]
    health = {stage.name: found for stage in stages if (found := health_of(folder, stage)) is not None}
    decides = run_verdict({name: found for name, found in health.items() if isinstance(found, Verdict)})
    return {
        "run": name,
        "folder": str(folder),
        "state": "running" if any(stage.state == "running" for stage in others) else state.state,
        "says": state.says,
        "command": state.command,
        "health": None if decides is None else {"stage": decides[0], **to_plain(decides[1])},
        "stages_done": sum(stage.state == "done" for stage in state.stages),
        "stages_total": len(state.stages),
        "stages": [stage_status(folder / stage.id, stage, health.get(stage.name)) for stage in stages],
    }


def health_of(run: Path, state: StageState) -> Verdict | str | None:
    """The stage's verdict, or why there is none; None for control arms, and for stages that do not train."""
    try:
        stage = StageFolder(state.name, run / state.id)
        return verdict(stage) if state.has.get("curves") and not stage.settings.get("is_control") else None
    except Exception as error:  # whatever a damaged file holds
        return f"cannot tell: {error}"


def stage_status(folder: Path, state: StageState, health: Verdict | str | None) -> dict[str, Any]:
    """The stage's state with its health, and why and where it ended if it did not end well."""
    log = folder / "log.txt"
    facts: dict[str, Any] = to_plain(asdict(state))
    facts["error"] = state.error or REASONS.get(state.state, "")
    unknown = {"name": "cannot tell", "evidence": [health], "remedy": ""}
    facts["health"] = unknown if isinstance(health, str) else to_plain(health)
    return facts | {"folder": str(folder), "log": str(log) if log.exists() else None}


def status_text(runs: Sequence[dict[str, Any]]) -> str:
    """For people: all started stages of a single run, otherwise those that run, ended badly or have a fault."""
    return printable("\n".join(_run_text(run, is_alone=len(runs) == 1) for run in runs))


def _run_text(run: dict[str, Any], is_alone: bool) -> str:
    health = f", {run['health']['name']} ({run['health']['stage']})" if run["health"] else ""
    count = f"{run['stages_done']} of {run['stages_total']} stages done"
    lines = [f"{run['run']}: {run['state']}, {count}{health}; {run['folder']}"]
    stages = [stage for stage in run["stages"] if stage["state"] != "waiting"]
    if not is_alone:
        stages = [stage for stage in stages if stage["state"] != "done" or _fault(stage)]
    if stages:
        rows = [["stage", "state", "step", "time", "health", ""], *map(_stage_cells, stages)]
        lines += [f"  {line}" for line in align(rows).splitlines()]
    for stage in stages:
        if stage["state"] in ENDED_BADLY:
            where = f"; its log: {stage['log']}" if stage["log"] else ""
            reason = shortened(stage["error"], MESSAGE)
            said = reason if reason.startswith(stage["state"]) else f"{stage['state']}: {reason}"
            lines.append(f"  {stage['name']} {said}{where}")
        if fault := _fault(stage):
            lines.append(f"  {stage['name']} {fault}")
    waiting = [stage["name"] for stage in run["stages"] if stage["state"] == "waiting"]
    lines += [f"  waiting: {', '.join(waiting)}"] if is_alone and waiting else []
    return "\n".join(lines)


def _fault(stage: dict[str, Any]) -> str:
    """The evidence against the stage's health, and the remedy; empty without a fault."""
    health = stage["health"]
    if health is None or health["name"] in ("healthy", "too early to tell"):
        return ""
    remedy = f"; {health['remedy']}" if health["remedy"] else ""
    return f"{health['name']}: {shortened('; '.join(health['evidence']), MESSAGE)}{remedy}"


def _stage_cells(stage: dict[str, Any]) -> list[str]:
    done, total, left, took = (stage[name] for name in ("done", "total", "seconds_left", "seconds"))
    is_running = stage["state"] == "running"
    step = "" if done is None else f"{done}" if total is None else f"{done}/{total}"
    spent = "" if took is None else duration(round(took))
    clock = f"{duration(round(left))} left" if is_running and left is not None else spent
    silence = f"last sign {duration(max(0, round(time.time() - stage['changed'])))} ago" if is_running else ""
    note = "  ".join(filter(None, [stage["note"] if is_running else "", silence]))
    return [stage["name"], stage["state"], step, clock, (stage["health"] or {"name": ""})["name"], note]
