"""The stage `tiny-requests`: the tiny world's everyday and harmful requests as files that other stages read.

Leaves `general.jsonl` (requests with good replies, for `generate`), `preferences.jsonl` and `safety.jsonl` (for
`reward-model`). On real models, instruction files and preference data of one's own stand in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1kit.pipeline import Context, Kind
from r1kit.settings import Settings
from r1kit.store import RowWriter
from r1kit.tiny import requests

FILES = {"general": requests.replies, "preferences": requests.preferences, "safety": requests.safety_labels}


class TinyRequestsSettings(Settings):
    """Nothing to set: the files are the same wherever they are written."""


def run(context: Context) -> Mapping[str, Any]:
    """Write the files; the number of rows of each."""
    counts: dict[str, int] = {}
    for name, rows in FILES.items():
        path = context.folder / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        with RowWriter(path) as file:
            for row in rows():
                file.append(row)
                counts[name] = counts.get(name, 0) + 1
    return counts


TINY_REQUESTS = Kind(name="tiny-requests", run=run, settings=TinyRequestsSettings, version=2)
