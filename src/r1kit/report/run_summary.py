"""`summary.json`: a run's tables, findings and facts for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from r1kit import store
from r1kit.evaluate.table import align, json_table, text_table
from r1kit.evaluate.verifier_error import correction_line
from r1kit.report.compare import change_table
from r1kit.report.run import Run
from r1kit.report.stage_table import stage_table_json, stage_table_text

FACTS = (
    *("fingerprint", "command", "seed", "started", "attempts", "seconds"),
    *("host", "git", "versions", "settings", "metrics"),
)


def summarise_run(run: Run) -> dict[str, Any]:
    """Plain data, as in `summary.json`."""
    whole, stages, texts = run.stage_table, {}, []
    for stage in run.stages:  # the manifest's facts, and the last step if the stage trains
        facts = {key: stage.manifest[key] for key in FACTS if key in stage.manifest}
        steps = {"steps": stage.metrics.steps[-1]} if stage.metrics else {}
        head = {"kind": stage.kind, "finished": stage.finished, "folder": stage.folder.name}
        stages[stage.name] = head | steps | facts
    for comparison in run.comparisons:  # each table, and under it the changes from one model to the next
        texts.append(text_table(comparison.summaries, comparison.differences or None, comparison.by_source))
        texts += [align(changes)] if (changes := change_table(comparison)) else []
    rates = run.error_rates
    corrections = [
        f"{name} {correction_line(estimate, rates, 'audit')}" for name, estimate in run.corrected.items() if rates
    ]
    gains = [split.text(name) for name, split in run.gains.items()]
    table = stage_table_text(whole) if whole else "\n\n".join(texts)
    data = {
        "title": run.title,
        "table_of_stages": stage_table_json(whole) if whole else {},
        "funnels": run.funnels,
        "stages": stages,
        "tables": [
            {"problems": comparison.problems, "changes": [asdict(change) for change in comparison.changes]}
            | json_table(comparison.summaries, comparison.differences or None, comparison.by_source)
            for comparison in run.comparisons
        ],
        "error_rates": asdict(rates) if rates else {},
        "corrected": {name: asdict(estimate) for name, estimate in run.corrected.items()},
        "gains": {name: split.to_json() for name, split in run.gains.items()},
        "table": "\n\n".join(filter(None, [table, "\n".join(corrections), *gains])),
        "verdicts": {stage: asdict(verdict) for stage, verdict in run.verdicts.items()},
        "health": {stage: [asdict(check) for check in checks] for stage, checks in run.health.items()},
    }
    return dict(store.to_plain(data))
