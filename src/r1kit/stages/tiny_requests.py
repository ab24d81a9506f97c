"""The stage `tiny-requests`: the tiny world's everyday and harmful requests as files that other stages read.

Leaves `general.jsonl` (requests with replies, for `generate`), `preferences.jsonl` and `safety.jsonl` (for
`reward-model`). Runs with real models use instruction files and preference data of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from r1kit.data.jsonl import RowWriter
from r1kit.pipeline import Context, External, Kind
from r1kit.settings import Settings
from r1kit.stages.shared.costs import rows_unchanged
from r1kit.tasks import TaskSpec, source_files
from r1kit.tiny import everyday

FILES = {"general": everyday.replies, "preferences": everyday.preferences, "safety": everyday.safety_labels}


class TinyRequestsSettings(Settings):
    """The files are the same on every machine. `rows` limits each file to so many rows, spread over all kinds."""

    rows: int | None = Field(None, ge=1)


def run(context: Context) -> Mapping[str, Any]:
    """Write the files; returns the number of rows of each."""
    settings: TinyRequestsSettings = context.settings
    counts: dict[str, int] = {}
    for name, rows in FILES.items():
        path, every = context.folder / f"{name}.jsonl", list(rows())
        counts[name] = min(len(every), settings.rows or len(every))
        path.unlink(missing_ok=True)
        with RowWriter(path) as file:
            for place in range(counts[name]):
                file.append(every[place * len(every) // counts[name]])
    return counts


TINY_REQUESTS = Kind(
    name="tiny-requests",
    run=run,
    settings=TinyRequestsSettings,
    version=3,
    sources=lambda settings: {
        f"code/{path.name}": External(path) for path in source_files(TaskSpec(name="tiny/general"))
    },
    cost=lambda stage, rows: rows_unchanged(stage, stage.settings.rows or sum(1 for _ in everyday.replies())),
)
