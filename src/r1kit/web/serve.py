"""Serves the pages of r1kit until Ctrl+C: the review page of one queue, and the live page over run folders."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

from r1kit.net.address import is_loopback, listening, names_of
from r1kit.review.items import ReviewError
from r1kit.review.queue import ReviewQueue

MISSING = "the review page needs {}: pip install 'r1kit[web]' (a queue can be imported and exported without)"
MISSING_WATCH = "the live page needs {}: pip install 'r1kit[web]'"


def serve(path: Path, *, host: str = "127.0.0.1", port: int = 8765, who: str = "") -> None:
    """Serve a queue and print its address; returns on Ctrl+C.

    On an address that other machines can reach, visitors need the key in the printed address. Raises `ReviewError` if
    the extra `web` is missing, ValueError if the port is taken or the host is not this machine's, and `StoreError` if
    the queue is already being served.
    """
    try:
        import latex2mathml  # noqa: F401 (first used when a formula is shown)
        import uvicorn  # noqa: F401 (before the queue is opened)

        from r1kit.net.server import StoppableServer
        from r1kit.web.app import make_app, new_key
    except ModuleNotFoundError as error:
        raise ReviewError(MISSING.format(error.name)) from None

    with ReviewQueue(path) as queue, listening(host, port) as (opened, address):
        local = is_loopback(host)
        key = "" if local else new_key()
        app = make_app(queue, who=who, names=names_of(host), key=key)
        with queue.serving(address):
            print(f"review at {address}{f'?key={key}' if key else ''}", flush=True)
            warning = "; other machines reach this page, unencrypted: anyone with the address can decide"
            print("Ctrl+C stops; decisions are kept" + ("" if local else warning), file=sys.stderr)
            StoppableServer(app).run_until_stopped(opened)
        counts = queue.progress()
        decided = f"{counts.total - counts.pending} of {counts.total} decided"
        print(f"{decided}: {counts.accepted} accepted ({counts.edited} with edits), {counts.rejected} rejected")


def watch(runs: Path, *, port: int = 8766, opens_browser: bool = True) -> None:
    """Serve the live page to this machine and print its address; returns on Ctrl+C.

    The folder need not exist yet. Raises ValueError if it is a file, if the extra `web` is missing, or if the port is
    taken.
    """
    if runs.exists() and not runs.is_dir():
        raise ValueError(f"{runs} is a file: name a folder of runs, or one run's folder")
    try:
        import uvicorn  # noqa: F401

        from r1kit.net.server import StoppableServer
        from r1kit.web.watch.app import make_app
    except ModuleNotFoundError as error:
        raise ValueError(MISSING_WATCH.format(error.name)) from None

    with listening("127.0.0.1", port) as (opened, address):
        app = make_app(runs)
        print(f"watch at {address}", flush=True)
        if not runs.exists():
            print(f"{runs} does not exist yet: the page shows runs when they begin there", file=sys.stderr)
        print("Ctrl+C stops the page; runs continue", file=sys.stderr)
        if opens_browser:
            webbrowser.open(address)  # does nothing on a machine without one

        def close() -> None:
            app.state.closing = True  # a stream of events never ends by itself

        StoppableServer(app, close).run_until_stopped(opened)
