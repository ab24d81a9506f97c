"""The stage `data-requests`: public instruction, preference and safety data, cut to a size, as files for other stages.

Inputs: `general` (instructions with responses), `preferences` and `safety` (chosen and rejected; of the latter a chosen
reply counts as safe and a rejected one as unsafe). Leaves files of those names with `.jsonl`, as `tiny-requests` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from r1kit.data import conversations
from r1kit.data.errors import DataError
from r1kit.data.jsonl import RowWriter
from r1kit.pipeline import Context, Kind, Stage, Work
from r1kit.settings import Settings
from r1kit.stages.shared.costs import rows_unchanged
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
    "general": (conversations.conversation, general),
    "preferences": (conversations.preference, preferences),
    "safety": (conversations.preference, safety),
}


def run(context: Context) -> Mapping[str, Any]:
    """Write the files; what became of the rows of each, as far as they were read.

    Raises ValueError for an input of which no row can be used.
    """
    told = {}
    for name in FILES:
        counts = told[name] = _written(context, name)
        if not counts["kept"]:
            unfit = f"{counts['too_long']:,} are too long, {counts['unreadable']:,} cannot be read"
            raise ValueError(
                f"input {name} of stage {context.stage} has no row that fits ({unfit}): raise max_chars, "
                "or see `r1kit data check`"
            )
    return told


def _written(context: Context, name: str) -> dict[str, int]:
    """Write one file; rows read and kept, too long and unreadable. Where a pair gives two rows, each counts."""
    settings: DataRequestsSettings = context.settings
    path, counts = context.folder / f"{name}.jsonl", dict.fromkeys(("read", "too_long", "unreadable", "kept"), 0)
    path.unlink(missing_ok=True)
    with RowWriter(path) as file:
        for row in _rows(context.input(name), name):
            counts["read"] += 1
            if row is None or len(str(row)) > settings.max_chars:
                counts["unreadable" if row is None else "too_long"] += 1
                continue
            file.append(row)
            counts["kept"] += 1
            if counts["kept"] == settings.rows:
                break
    return counts


def _rows(path: Path, name: str) -> Iterator[dict[str, Any] | None]:
    """The rows of a file in the stage's form; None for one that cannot be read."""
    read, made = FILES[name]
    for found in conversations.read([path], read):
        if isinstance(found, DataError):
            yield None
        else:
            yield from made(found.record)


def _cost(stage: Stage, rows: int) -> Work:
    settings: Any = stage.settings
    return rows_unchanged(stage, settings.rows)


DATA_REQUESTS = Kind(name="data-requests", run=run, settings=DataRequestsSettings, version=1, cost=_cost)
