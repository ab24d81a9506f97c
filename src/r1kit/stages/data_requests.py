"""The stage `data-requests`: public instruction, preference and safety data, cut to a size, as files for other stages.

Inputs: `general` (instructions with responses), `preferences` (pairs of chosen and rejected) and `safety` (labelled
responses, one by one or in pairs as in PKU-SafeRLHF, or pairs of a safe one, chosen, and an unsafe one, rejected).

Leaves files of these names with `.jsonl`, as `tiny-requests` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import Field

from r1kit.data import conversations
from r1kit.data.conversations import Labelled
from r1kit.data.errors import DataError
from r1kit.data.jsonl import RowWriter
from r1kit.pipeline import Context, Kind
from r1kit.settings import Settings
from r1kit.stages.shared.costs import rows_unchanged
from r1kit.types import Conversation, PreferencePair

Rows = Iterator[dict[str, Any]]


class DataRequestsSettings(Settings):
    """Take the first `rows` rows of each file that are readable and not too long."""

    rows: int = Field(1000, ge=1)
    max_chars: int = Field(2000, ge=1, description="characters of a request with its longest reply")


def general(record: Conversation) -> Rows:
    turns = [asdict(turn) for turn in record.messages]
    yield {"messages": turns, "source": record.source or "requests/general"}


def preferences(record: PreferencePair) -> Rows:
    yield {"prompt": [asdict(turn) for turn in record.prompt], "chosen": record.chosen, "rejected": record.rejected}


def labelled(row: Mapping[str, Any]) -> tuple[Labelled, ...]:
    """The labelled responses of a row."""
    if row.get("chosen") is not None:
        pair = conversations.preference(row)
        replies = ((pair.chosen, True), (pair.rejected, False))
        return tuple(Labelled(prompt=pair.prompt, response=text, label=label) for text, label in replies)
    if row.get("response_0") is None:
        return (conversations.labelled(row),)
    return tuple(
        conversations.labelled(
            {**row, "response": row.get(f"response_{side}"), "label": row.get(f"is_response_{side}_safe")}
        )
        for side in (0, 1)
    )


def safety(records: Sequence[Labelled]) -> Rows:
    for record in records:
        prompt = [asdict(turn) for turn in record.prompt]
        yield {"messages": [*prompt, {"role": "assistant", "content": record.response}], "label": record.label}


FILES: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Rows]]] = {
    "general": (conversations.conversation, general),
    "preferences": (conversations.preference, preferences),
    "safety": (labelled, safety),
}


def run(context: Context) -> Mapping[str, Any]:
    """Write the files; returns counts of the rows read and used, per file.

    Raises ValueError for an input without a usable row.
    """
    counts_of = {}
    for name in FILES:
        counts = counts_of[name] = _write(context, name)
        if not counts["kept"]:
            unfit = f"{counts['too_long']:,} are too long, {counts['unreadable']:,} cannot be read"
            raise ValueError(
                f"input {name!r} of stage {context.stage} has no row that fits ({unfit}): raise max_chars, "
                "or see `r1kit data check`"
            )
    return counts_of


def _write(context: Context, name: str) -> dict[str, int]:
    """Write one file; returns counts of rows read, kept, too long and unreadable. A pair can give two rows."""
    settings: DataRequestsSettings = context.settings
    path, counts = context.folder / f"{name}.jsonl", dict.fromkeys(("read", "too_long", "unreadable", "kept"), 0)
    convert, rows_of = FILES[name]
    records = conversations.read([context.input(name)], convert)
    rows = (row for record in records for row in ([None] if isinstance(record, DataError) else rows_of(record.record)))
    path.unlink(missing_ok=True)
    with RowWriter(path) as file:
        for row in rows:
            counts["read"] += 1
            if row is None or len(str(row)) > settings.max_chars:
                counts["unreadable" if row is None else "too_long"] += 1
                continue
            file.append(row)
            counts["kept"] += 1
            if counts["kept"] == settings.rows:
                break
    return counts


DATA_REQUESTS = Kind(
    name="data-requests",
    run=run,
    settings=DataRequestsSettings,
    version=1,
    cost=lambda stage, rows: rows_unchanged(stage, stage.settings.rows),
)
