"""Results on stdout: as JSON, or as text for people."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from r1kit.store import to_plain


def print_json(value: Any) -> None:
    print(json.dumps(to_plain(value), ensure_ascii=False, indent=2))


def print_json_line(row: Any) -> None:
    print(json.dumps(to_plain(row), ensure_ascii=False), flush=True)


def print_table(rows: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    """Rows with the same keys, as JSON or as aligned columns with a head."""
    rows = list(rows)
    if as_json:
        print_json(rows)
    elif rows:
        from r1kit.evaluate.table import align

        names = list(rows[0])
        print(align([names, *([str(row[name]) for name in names] for row in rows)]))


def print_stream(rows: Iterable[Mapping[str, Any]], options: argparse.Namespace) -> Iterator[Any]:
    """The same rows; each is printed as a line of JSON unless a file (--out) or a summary (--json) replaces it."""
    for row in rows:
        if options.out is None and not options.json:
            print_json_line(row)
        yield row


def print_summary(summary: dict[str, Any], options: argparse.Namespace) -> None:
    """As JSON or as text; the text goes to stderr if rows went to stdout."""
    text = summary.pop("text")
    if options.json:
        print_json(summary)
    else:
        print(text, file=sys.stderr if options.out is None else sys.stdout)


def print_check(result: dict[str, Any], options: argparse.Namespace) -> int:
    """The result of a check, as JSON or as text. Returns the exit status: 1 if it failed."""
    text = result.pop("text")
    print_json(result) if options.json else print(text)
    return 0 if result["ok"] else 1
