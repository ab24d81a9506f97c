"""Rows of data files: page by page with filters, by number, and by a text that they hold, without an index."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from r1kit.data.jsonl import BLOCK_BYTES, lines_of, parsed
from r1kit.report.folders import Row
from r1kit.report.live.answers import Answer, answer_of, test_of
from r1kit.report.live.places import NotThere, RowPlace, file_in

MAX_LIMIT = 200


def page_of_rows(
    stage: Path, file: str, start: str, limit: int, text: str, filters: Sequence[str], seconds: float
) -> dict[str, Any]:
    """Rows from the place `start` on ("" is the beginning) that pass all filters, until `seconds` have passed.

    `next` is the place of the next page. Raises `NotThere`, and ValueError for a place or a filter that is none.
    """
    path, passes = file_in(stage, file), test_of(text, filters)
    offset, number = place_of(start)
    deadline, rows, limit = time.monotonic() + seconds, list[Row](), min(limit, MAX_LIMIT)
    end = None
    with open(path, "rb") as opened:
        opened.seek(offset)
        for line in lines_of(opened, offset=offset, number=number):
            if len(rows) >= limit or (line.number > number + 1 and time.monotonic() > deadline):
                end = f"{line.offset}-{line.number - 1}"
                break
            answer = answer_of(parsed(line, path), RowPlace(stage=stage.name, file=file, row=line.number))
            if passes(answer):
                rows.append(answer_row(answer))
    return {"stage": stage.name, "file": file, "rows": rows, "next": end, "size": path.stat().st_size}


def answer_row(answer: Answer) -> Row:
    names = ("problem_id", "question", "text", "thinking", "answer", "extracted", "why", "facts")
    return answer.head | {name: getattr(answer, name) for name in names}


def place_of(start: str) -> tuple[int, int]:
    """`"81234-17"`: 17 rows end at byte 81,234."""
    offset, _, number = start.partition("-")
    if start and not (offset.isdecimal() and number.isdecimal()):
        raise ValueError(f"from is {start!r:.40}: it must be a page's `next`, or left out")
    return (int(offset), int(number)) if start else (0, 0)


def row_at(stage: Path, place: RowPlace) -> Row:
    """One row by its number; the rows before it are counted, not parsed. Raises `NotThere`."""
    path = file_in(stage, place.file)
    number, offset = 1, 0
    with open(path, "rb") as file:
        while number < place.row and (block := file.read(BLOCK_BYTES)):
            ends = block.count(b"\n")
            if number + ends < place.row:
                number, offset = number + ends, offset + len(block)
                continue
            cut = 0
            for _ in range(place.row - number):
                cut = block.index(b"\n", cut) + 1
            number, offset = place.row, offset + cut
        file.seek(offset)
        line = next(lines_of(file, offset=offset, number=number - 1), None)
    if line is None or line.number != place.row:
        raise NotThere(f"{stage.name}/{place.file} has no row {place.row}")
    return parsed(line, path)


def rows_with(
    stage: Path, file: str, value: str | int, matches: Callable[[Row], bool]
) -> Iterator[tuple[RowPlace, Row]]:
    """The rows that hold a value and match; the file is read in blocks, and only lines with the value are parsed.

    A file that does not exist has no rows.
    """
    try:
        path = file_in(stage, file)
    except NotThere:
        return
    needle = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    number, rest = 0, b""
    with open(path, "rb") as opened:
        while True:
            block = opened.read(BLOCK_BYTES)
            lines, rest = whole_lines(rest + block, is_last=not block)
            if needle in lines:
                for line_number, line in enumerate(lines.split(b"\n"), number + 1):
                    if needle in line and (row := row_of(line)) and matches(row):
                        yield RowPlace(stage=stage.name, file=file, row=line_number), row
            number += lines.count(b"\n")
            if not block:
                return


def whole_lines(data: bytes, *, is_last: bool) -> tuple[bytes, bytes]:
    """The lines of a block that have ended, and the rest."""
    end = len(data) if is_last else data.rfind(b"\n") + 1
    return data[:end], data[end:]


def row_of(line: bytes) -> Row:
    """A line as a row; empty if it is damaged or still being written."""
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def has(column: str, value: str) -> Callable[[Row], bool]:
    """Whether a row has a column of that value, itself or, as rows of `mix` do, inside `metadata`."""

    def matches(row: Row) -> bool:
        inner = row.get("metadata")
        return row.get(column) == value or (isinstance(inner, dict) and inner.get(column) == value)

    return matches
