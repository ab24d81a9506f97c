"""Serves the pages of r1kit until Ctrl+C: the review page of one queue, and the live page over run folders."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from r1kit.review.items import ReviewError
from r1kit.review.queue import ReviewQueue

if TYPE_CHECKING:
    from starlette.applications import Starlette

MISSING = "the review page needs {}: pip install 'r1kit[web]' (a queue can be imported and exported without)"
MISSING_WATCH = "the live page needs {}: pip install 'r1kit[web]'"


def serve(path: Path, *, host: str = "127.0.0.1", port: int = 8765, who: str = "") -> None:
    """Serve a queue and print its address; returns on Ctrl+C.

    On an address that other machines can reach, visitors need the key in the printed address. Raises `ReviewError` if
    the extra `web` is missing, the port is taken or the host is not this machine's, and `StoreError` if the queue
    is already being served.
    """
    try:
        import latex2mathml  # noqa: F401 (first used when a formula is shown)
        import uvicorn  # noqa: F401 (before the queue is opened)

        from r1kit.web.app import make_app, new_key
    except ModuleNotFoundError as error:
        raise ReviewError(MISSING.format(error.name)) from None

    with ReviewQueue(path) as queue, listening(host, port) as (opened, address):
        local = is_loopback(host)
        key = "" if local else new_key()
        names = frozenset({host.lower(), socket.gethostname().lower()} - {"", "0.0.0.0", "::"})
        app = make_app(queue, who=who, names=names, key=key)
        with queue.serving(address):
            print(f"review at {address}{f'?key={key}' if key else ''}", flush=True)
            warning = "; other machines reach this page, unencrypted: anyone with the address can decide"
            print("Ctrl+C stops; decisions are kept" + ("" if local else warning), file=sys.stderr)
            run_server(app, opened)
        counts = queue.progress()
        decided = f"{counts.total - counts.pending} of {counts.total} decided"
        print(f"{decided}: {counts.accepted} accepted ({counts.edited} with edits), {counts.rejected} rejected")


def watch(runs: Path, *, port: int = 8766, opens_browser: bool = True) -> None:
    """Serve the live page to this machine and print its address; returns on Ctrl+C.

    Raises ValueError if the extra `web` is missing, if the port is taken, or if `runs` is a file. The folder need not
    exist yet.
    """
    if runs.exists() and not runs.is_dir():
        raise ValueError(f"{runs} is a file: name a folder of runs, or one run's folder")
    try:
        import uvicorn  # noqa: F401

        from r1kit.web.watch.app import make_app
    except ModuleNotFoundError as error:
        raise ValueError(MISSING_WATCH.format(error.name)) from None

    with listening("127.0.0.1", port) as (opened, address):
        app = make_app(runs)
        print(f"watch at {address}", flush=True)
        print("Ctrl+C stops the page; runs go on", file=sys.stderr)
        if opens_browser:
            webbrowser.open(address)  # does nothing on a machine without one

        def close() -> None:
            app.state.closing = True  # a stream of events never ends by itself

        run_server(app, opened, close)


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that accepts connections, and its address; raises `ReviewError` if there is none to be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family, backlog=64)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ReviewError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from None
    with opened:
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        yield opened, f"http://{f'[{name}]' if ':' in name else name}:{opened.getsockname()[1]}/"


def run_server(app: Starlette, opened: socket.socket, close: Callable[[], None] = lambda: None) -> None:
    """Answer requests until Ctrl+C or SIGTERM; `close` is called then, before open connections have ended."""
    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, *signal: object) -> None:
            close()
            super().handle_exit(*signal)  # type: ignore[arg-type]

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=3
    )
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run(sockets=[opened])


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
