"""The answers of the live page: parameters of a request in, plain data out."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request

from r1kit.report.live.curve_points import plot_curves
from r1kit.report.live.data_rows import page_of_rows
from r1kit.report.live.growing import MetricsCache
from r1kit.report.live.health_reader import HealthReader
from r1kit.report.live.lineage import Lineage
from r1kit.report.live.places import RowPlace, file_in, find_runs, run_folder, stage_folder
from r1kit.report.live.rollouts import RolloutReader, step_files
from r1kit.report.live.stage_facts import stage_facts
from r1kit.report.live.stage_state import RunState, StageState, States

POINTS, ROWS, HITS = 600, 20, 50  # unless the request says otherwise
SEARCH_S = 0.4  # how long one answer may read rollouts or rows; the page asks for the rest
LOG_LINES, LOG_BYTES = 200, 2**18  # of the end of a log


class Api:
    """Reads the runs below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.states, self.metrics, self.rollouts = States(), MetricsCache(), RolloutReader()
        self._health = HealthReader()

    def runs(self, request: Request) -> dict[str, Any]:
        """All runs, the last changed first."""
        rows = [self._run_row(name, path, self.states.run(path)) for name, path in find_runs(self.root).items()]
        rows.sort(key=lambda row: -(row["changed"] or 0.0))
        return {"folder": str(self.root.resolve()), "runs": rows}

    def run(self, request: Request) -> dict[str, Any]:
        """One run with all its stages."""
        folder = self._run(request)
        state = self.states.run(folder)
        stages = {name: [stage_row(stage) for stage in getattr(state, name)] for name in ("stages", "earlier")}
        row = self._run_row(request.path_params["run"], folder, state)
        return row | {"title": state.title, "command": state.command} | stages

    def _run_row(self, name: str, folder: Path, state: RunState) -> dict[str, Any]:
        stages = state.stages
        return {
            "id": name,
            "name": name,
            "path": str(folder.resolve()),
            "state": state.state,
            "says": state.says,
            "stage": state.at.id if state.at else None,
            "stages_done": sum(stage.state == "done" for stage in stages),
            "stages_total": len(stages),
            "started": min((stage.started for stage in stages if stage.started), default=None),
            "changed": max((stage.changed for stage in stages if stage.changed), default=None),
        }

    def curves(self, request: Request) -> dict[str, Any]:
        """The plots of one stage."""
        folder = self._stage(request)
        metrics, state = self.metrics.of(folder), self.states.stage(folder)
        drawn = plot_curves(metrics, number(request, "since", -1), number(request, "points", POINTS))
        ends = {"first": metrics.steps[0], "last": metrics.steps[-1]} if metrics else {"first": None, "last": None}
        return {"stage": folder.name, "kind": state.kind, **ends, "total": state.total, "plots": drawn}

    def health(self, request: Request) -> dict[str, Any]:
        """The verdict on a run and on each stage that trains, with their evidence."""
        return self._health.read(self._run(request))

    def steps(self, request: Request) -> dict[str, Any]:
        """The steps of a stage whose rollouts are stored."""
        folder = self._stage(request)
        return {"stage": folder.name, "steps": list(step_files(folder))}

    def step(self, request: Request) -> dict[str, Any]:
        """The groups of one step, filtered."""
        text, filters = request.query_params.get("text", ""), names(request, "filter")
        sort = request.query_params.get("sort", "")
        return self.rollouts.step(self._stage(request), request.path_params["step"], text, filters, sort)

    def group(self, request: Request) -> dict[str, Any]:
        """All completions of one prompt at one step."""
        place = request.path_params
        return self.rollouts.group(
            self._stage(request), place["step"], place["group"], request.query_params.get("tokens") == "1"
        )

    def search(self, request: Request) -> dict[str, Any]:
        """Completions of all steps."""
        text, filters = request.query_params.get("text", ""), names(request, "filter")
        before = number(request, "before", 0) or None
        limit = number(request, "limit", HITS)
        return self.rollouts.search(self._stage(request), text, filters, before, limit, SEARCH_S)

    def rows(self, request: Request) -> dict[str, Any]:
        """A page of a data file."""
        query = request.query_params
        place, limit, text = query.get("from", ""), number(request, "limit", ROWS), query.get("text", "")
        file, filters = query.get("file", ""), names(request, "filter")
        return page_of_rows(self._stage(request), file, place, limit, text, filters, SEARCH_S)

    def lineage(self, request: Request) -> dict[str, Any]:
        """The chain behind one row."""
        query = request.query_params
        row = number(request, "row", 0)
        place = RowPlace(stage=self._stage(request).name, file=query.get("file", ""), row=row)
        links = [asdict(link) for link in Lineage(self._run(request)).trace(place)]
        for link in links:
            check = link.pop("check")
            link |= {"check": check["result"], "how": check["how"], "why": check["why"]}
        return {"at": place, "links": links}

    def settings(self, request: Request) -> dict[str, Any]:
        """The settings of a stage, its inputs, and what it ran on."""
        return stage_facts(self._stage(request))

    def log(self, request: Request) -> dict[str, Any]:
        """The end of a stage's log; empty if it has none, as with one job. A link out of the folder is not followed."""
        folder, lines = self._stage(request), list[str]()
        if os.path.lexists(folder / "log.txt"):
            with open(file_in(folder, "log.txt"), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LOG_BYTES))
                lines = file.read(LOG_BYTES).decode(errors="replace").splitlines()
                lines = lines[1:] if size > LOG_BYTES else lines  # the first one is cut
        return {"stage": folder.name, "lines": lines[-LOG_LINES:]}

    def _run(self, request: Request) -> Path:
        return run_folder(self.root, request.path_params["run"])

    def _stage(self, request: Request) -> Path:
        name = request.path_params.get("stage") or request.query_params.get("stage", "")
        return stage_folder(self._run(request), name)


def stage_row(stage: StageState) -> dict[str, Any]:
    return asdict(stage) | {"measures": stage.measures}


def number(request: Request, name: str, default: int) -> int:
    """A whole number of the query; raises ValueError."""
    text = request.query_params.get(name, "")
    if text and not text.removeprefix("-").isdecimal():
        raise ValueError(f"{name} is {text!r:.40}: it must be a whole number")
    return int(text) if text else default


def names(request: Request, name: str) -> list[str]:
    """A list of names with commas between them."""
    return [part for part in request.query_params.get(name, "").split(",") if part]
