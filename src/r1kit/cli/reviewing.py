"""`review`: people read what models wrote."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from r1kit.cli.options import add_address, add_command


def add_review(commands: Any) -> None:
    command = add_command(commands, "review", review, "read, edit, accept or reject samples in the browser")
    command.add_argument("queue", metavar="QUEUE", type=Path, help="a queue's file, or the folder of a review stage")
    text = "add samples; creates the queue if needed"
    command.add_argument("--import", dest="rows", metavar="FILE.jsonl", type=Path, help=text)
    text = "share of the samples that two reviewers each decide, 0 to 1 (0)"
    command.add_argument("--double", metavar="SHARE", type=float, help=text)
    text = "how long a sample is reserved for a reviewer (15)"
    command.add_argument("--lease", metavar="MINUTES", type=float, help=text)
    command.add_argument("--auto-accept", action="store_true", help="accept all pending samples, without a page")
    command.add_argument("--export", metavar="FILE.jsonl", type=Path, help="write the accepted samples, without a page")
    command.add_argument("--rejected", metavar="FILE.jsonl", type=Path, help="with --export: also write rejected ones")
    command.add_argument("--reviewer", default="", metavar="NAME", help="your name (default: the page asks)")
    add_address(command, 8765)


def review(options: argparse.Namespace) -> None:
    """Import, accept, export, in this order; without the last two, serve the page until Ctrl+C."""
    from r1kit.data.rows import readable_rows
    from r1kit.review.items import ReviewError
    from r1kit.review.queue import ReviewQueue

    path = options.queue / "review.db" if options.queue.is_dir() else options.queue
    if options.rejected and not options.export:
        raise ReviewError("--rejected needs --export: give both")
    shared = {"double_share": options.double, "lease_minutes": options.lease}
    if options.rows is not None:
        ReviewQueue.create(path, readable_rows(options.rows), **shared).close()
    with ReviewQueue.create(path, **shared) if path.exists() else ReviewQueue(path) as queue:
        if options.auto_accept:
            print(f"auto-accepted {queue.auto_accept()} pending samples")
        if options.export:
            print(f"{queue.export(options.export, rejected=options.rejected)} accepted samples in {options.export}")
            if left := queue.pending():
                print(f"{left} samples are still pending", file=sys.stderr)
    if options.auto_accept or options.export:
        return
    from r1kit.web.serve import serve

    serve(path, host=options.host, port=options.port, who=options.reviewer)
