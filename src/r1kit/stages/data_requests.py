"""The stage `data-requests`: public instruction, preference and safety data, cut to a size, as files for other stages.

Inputs: `general` (instructions with responses), `preferences` and `safety` (chosen and rejected; of the latter a chosen
reply counts as safe and a rejected one as unsafe). Leaves files of those names with `.jsonl`, as `tiny-requests` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field

from r1kit.pipeline import Context, Kind
from r1kit.settings import Settings
from r1kit.store import RowWriter
from r1kit.tasks import TaskError
from r1kit.train import data
from r1kit.types import Conversation, PreferencePair

Rows = Iterator[dict[str, Any]]


class DataRequestsSettings(Settings):
    """How many rows of each file are taken, from the first on; longer ones and those that cannot be read are not."""

    rows: int = Field(1000, ge=1)
    max_chars: int = Field(2000, ge=1, description="of a request with its longest reply")


def general(record: Conversation) -> Rows:
    turns = [asdict(turn) for turn in record.messages]
    yield {"messages": turns, "source": record.source or "requests/general"}


def preferences(record: PreferencePair) -> Rows:
    yield {"prompt": [asdict(turn) for turn in record.prompt], "chosen": record.chosen, "rejected": record.rejected}


def safety(record: PreferencePair) -> Rows:
    asked = [asdict(turn) for turn in record.prompt]
    for reply, label in ((record.chosen, True), (record.rejected, False)):
        yield {"messages": [*asked, {"role": "assistant", "content": reply}], "label": label}


FILES: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Rows]]] = {
    "general": (data.conversation, general),
    "preferences": (data.preference, preferences),
    "safety": (data.preference, safety),
}


def run(context: Context) -> Mapping[str, Any]:
    """Write the files; the number of rows of each. Raises ValueError for an input of which no row can be used."""
    counts = {}
    for name in FILES:
        counts[name] = _written(context, name)
        if not counts[name]:
            raise ValueError(f"input {name} of stage {context.stage} has no row that fits: raise max_chars")
    return counts


def _written(context: Context, name: str) -> int:
    settings: DataRequestsSettings = context.settings
    path = context.folder / f"{name}.jsonl"
    path.unlink(missing_ok=True)
    with RowWriter(path) as file:
        count = 0
        for row in islice(_fitting(context.input(name), name, settings.max_chars), settings.rows):
            file.append(row)
            count += 1
    return count


def _fitting(path: Path, name: str, max_chars: int) -> Rows:
    read, made = FILES[name]
    for found in data.read([path], read):
        if isinstance(found, TaskError):
            continue
        for row in made(found.record):
            if len(str(row)) <= max_chars:
                yield row


DATA_REQUESTS = Kind(name="data-requests", run=run, settings=DataRequestsSettings, version=1)
