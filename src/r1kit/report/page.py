"""The run's page: one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from r1kit.evaluate.table import show
from r1kit.numeric import is_number
from r1kit.report import gains
from r1kit.report.compare import sentence
from r1kit.report.completions import held_out, training
from r1kit.report.curves import panels
from r1kit.report.folders import StageFolder
from r1kit.report.mask_pictures import mask_pictures
from r1kit.report.page_tables import comparison_table, stage_columns
from r1kit.report.run import Run
from r1kit.report.stage_graph import picture

HERE = Path(__file__).parent
# control characters that HTML does not allow
UNPRINTABLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127), "\N{REPLACEMENT CHARACTER}")


def render(run: Run) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    main = run.main
    page = templates.get_template("page.html").render(
        title=run.title,
        notes=run.notes,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        verdict=sentence(main) if main else "",
        whole=stage_columns(run.stage_table) if run.stage_table else None,
        graph=Markup(picture(run.stages)),
        funnels=run.funnels,
        tables=[comparison_table(comparison) for comparison in run.comparisons],
        corrections={name: show(estimate, "pass@1") for name, estimate in run.corrected.items()},
        error_rates=run.error_rates.text() if run.error_rates else "",
        gains=[
            (name, split, gains.sentences(split), Markup(gains.picture(split))) for name, split in run.gains.items()
        ],
        verdicts=run.verdicts,
        health=run.health,
        curves=[(stage, *panels(stage)) for stage in run.stages if stage.metrics],
        pairs=held_out(main.stages[0], main.stages[-1]) if main and len(main.stages) > 1 else [],
        rollouts=[(stage.name, pairs) for stage in run.rl_stages if (pairs := training(stage))],
        masks=[(stage.name, pictures) for stage in run.stages if (pictures := mask_pictures(stage))],
        stages=[described(stage) for stage in run.stages],
        command=next((str(stage.manifest["command"]) for stage in run.stages if "command" in stage.manifest), ""),
    )
    return page.translate(UNPRINTABLE)


def described(stage: StageFolder) -> dict[str, Any]:
    """A stage for the template: facts as text, settings under dotted names."""
    versions = stage.manifest.get("versions")
    step = f", step {stage.metrics.steps[-1]}" if stage.metrics else ""
    return {
        "name": stage.name,
        "kind": stage.kind,
        "state": "done" if stage.finished else f"not finished{step}",
        "started": datetime.fromtimestamp(stage.started, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "took": duration(stage.manifest.get("seconds")),
        "seed": stage.manifest.get("seed", ""),
        "folder": stage.folder.name,
        "settings": dict(flat(stage.settings)),
        "versions": versions if isinstance(versions, Mapping) else {},
    }


def flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """`{"a": {"b": 1}}` as `[("a.b", "1")]`."""
    if isinstance(value, Mapping) and value:
        return [pair for key, item in value.items() for pair in flat(item, f"{prefix}.{key}" if prefix else str(key))]
    return [(prefix, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))] if prefix else []


def duration(seconds: Any) -> str:
    """`48 s`, `7 min 12 s`, `1 h 05 min`; empty if the stage did not say."""
    if not is_number(seconds):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
