"""The run's page and the run's summary: everything read, put together and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from r1kit import store
from r1kit.evaluate.table import align, json_table, text_table
from r1kit.report.compare import Comparison, change_lines, column, comparisons, lines, sentence, until
from r1kit.report.completions import held_out, training
from r1kit.report.curves import panels
from r1kit.report.folders import Stage, find_stages, is_number, last_report
from r1kit.report.funnels import funnel
from r1kit.report.health import checks
from r1kit.report.mask_pictures import mask_pictures
from r1kit.report.stage_graph import picture
from r1kit.report.stage_table import StageTable, pages_rows, retention_lines, stage_table, text, to_json

Source = Path | str | Sequence[Path | str] | Mapping[str, Path]
HERE = Path(__file__).parent
# control characters that HTML does not allow
UNPRINTABLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "\N{REPLACEMENT CHARACTER}")


def write_report(source: Source, out: Path | str, title: str = "", teacher: str = "") -> dict[str, Any]:
    """Write `summary.json` and `report.html` into `out`, each whole or not at all; returns the summary.

    From a run's folder, a list of stage folders, or a mapping of them (name -> folder, in order); they may be
    unfinished. `teacher` is the column whose accuracy those after it are compared with; of a run's folder with a
    report, title and teacher are that report's where they are not given.
    """
    stages = find_stages(source)
    title, teacher = title_of(source, title), teacher_of(source, teacher)
    page = render(stages, title, teacher)
    data = summarise_run(stages, title, teacher)
    # Text first, files second: an error above leaves an earlier report whole.
    store.write_text(Path(out) / "report.html", page)
    store.write_json(Path(out) / "summary.json", data)
    return data


def build(source: Source, title: str = "") -> str:
    """The page as text: one self-contained HTML file without scripts and without a single address to load."""
    return render(find_stages(source), title_of(source, title), teacher_of(source))


def summary(source: Source, title: str = "") -> dict[str, Any]:
    """The run for programs: the page's tables, intervals and findings, with settings, seeds and times."""
    return summarise_run(find_stages(source), title_of(source, title), teacher_of(source))


def title_of(source: Source, given: str = "") -> str:
    return given or _told(source, "title") or (Path(source).name if isinstance(source, (str, Path)) else "run")


def teacher_of(source: Source, given: str = "") -> str:
    return given or _told(source, "teacher")


def _told(source: Source, name: str) -> str:
    """A setting of the run's own report; empty where there is none."""
    report = last_report(source)
    return str(report.manifest.get("settings", {}).get(name, "")) if report else ""


def summarise_run(stages: Sequence[Stage], title: str, teacher: str = "") -> dict[str, Any]:
    found = comparisons(stages)
    whole = stage_table(found, teacher)
    data = {
        "title": title,
        "table_of_stages": to_json(whole) if whole else {},
        "funnels": {stage.name: told for stage in stages if (told := funnel(stage))},
        "stages": {stage.name: stage_facts(stage) for stage in stages},
        "tables": [
            {"problems": item.problems, "changes": [asdict(one) for one in item.changes]}
            | json_table(item.summaries, item.differences or None, item.by_source)
            for item in found
        ],
        "table": text(whole) if whole else "\n\n".join(text_of(item) for item in found),
        "health": {stage.name: [asdict(check) for check in findings(stage, found)] for stage in rl_stages(stages)},
    }
    return dict(store.to_plain(data))


def text_of(item: Comparison) -> str:
    """A table as plain text, and under it what changed from one model to the next."""
    table, changes = text_table(item.summaries, item.differences or None, item.by_source), change_lines(item)
    return f"{table}\n\n{align(changes)}" if changes else table


def stage_facts(stage: Stage) -> dict[str, Any]:
    """What was run: the manifest's facts, and how far the stage is."""
    known = "fingerprint command seed started attempts seconds host git versions settings metrics"
    facts = {key: stage.manifest[key] for key in known.split() if key in stage.manifest}
    steps = {"steps": stage.metrics[-1]["step"]} if stage.metrics else {}
    return {"kind": stage.kind, "finished": stage.finished, "folder": stage.folder.name, **steps, **facts}


def rl_stages(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages if stage.kind == "rl" and stage.metrics]


def findings(stage: Stage, found: Sequence[Comparison]) -> list[Any]:
    """Health of an RL stage; the change to its own column speaks for it, or the only difference that there is."""
    if not found or not found[0].changes:
        return checks(stage, found[0].differences if found else {})
    own = (change.differences for change in found[0].changes if change.after == column(stage))
    return checks(stage, next(own, {}))


def render(stages: Sequence[Stage], title: str, teacher: str = "") -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    found = comparisons(stages)
    main = until(found[0], teacher) if found else None  # a student's answers are not the run's result
    places = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = places.get_template("page.html").render(
        title=title,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        verdict=sentence(main) if main else "",
        whole=shown_table(stage_table(found, teacher)),
        graph=Markup(picture(stages)),
        funnels=[(stage.name, told) for stage in stages if (told := funnel(stage))],
        tables=[table(item) for item in found],
        health=[(stage.name, findings(stage, found)) for stage in rl_stages(stages)],
        curves=[(stage, *panels(stage)) for stage in stages if stage.metrics],
        pairs=held_out(main.stages[0], main.stages[-1]) if main and len(main.stages) > 1 else [],
        rollouts=[(stage.name, pairs) for stage in rl_stages(stages) if (pairs := training(stage))],
        masks=[(stage.name, shown) for stage in stages if (shown := mask_pictures(stage))],
        stages=[described(stage) for stage in stages],
        command=next((str(s.manifest["command"]) for s in stages if "command" in s.manifest), ""),
    )
    return page.translate(UNPRINTABLE)


def shown_table(whole: StageTable | None) -> dict[str, Any] | None:
    """What the page needs of the table of stages."""
    if whole is None:
        return None
    return {"columns": whole.columns, "rows": pages_rows(whole), "kept": retention_lines(whole)}


def table(item: Comparison) -> dict[str, Any]:
    """What the page's table macro needs."""
    sources = list(dict.fromkeys(name for summary in item.summaries.values() for name in summary.by_source))
    return {
        "names": list(item.summaries),
        "lines": lines(item),
        "sources": [(name or "(no source)", lines(item, name)) for name in sources] if len(sources) > 1 else [],
        "problems": item.problems,
        "samples": list(dict.fromkeys(summary.k for summary in item.summaries.values())),
        "has_difference": bool(item.differences),
        "changes": change_lines(item),
    }


def described(stage: Stage) -> dict[str, Any]:
    """A stage for the page: facts as words, settings as dotted names."""
    manifest = stage.manifest
    at = f", step {stage.metrics[-1]['step']}" if stage.metrics else ""
    return {
        "name": stage.name,
        "kind": stage.kind,
        "state": "done" if stage.finished else f"not finished{at}",
        "started": datetime.fromtimestamp(stage.started, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "took": duration(manifest.get("seconds")),
        "seed": manifest.get("seed", ""),
        "folder": stage.folder.name,
        "settings": dict(flat(manifest.get("settings", {}))),
        "versions": manifest.get("versions", {}) if isinstance(manifest.get("versions"), Mapping) else {},
    }


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """`{"a": {"b": 1}}` as `[("a.b", "1")]`."""
    if isinstance(value, Mapping) and value:
        return [pair for key, item in value.items() for pair in flat(item, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))] if prefix else []


def duration(value: Any) -> str:
    """Seconds as `48 s`, `7 min 12 s`, `1 h 05 min`."""
    if not is_number(value):
        return ""
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
