"""Serves the review page of one queue until Ctrl+C."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import sys
from pathlib import Path

from r1kit.review.items import ReviewError
from r1kit.review.queue import ReviewQueue

MISSING = "the review page needs {}: pip install 'r1kit[review]' (a queue can be imported and exported without)"


def serve(path: Path, *, host: str = "127.0.0.1", port: int = 8765, who: str = "") -> None:
    """Serve a queue and print its address; returns on Ctrl+C.

    On an address that other machines can reach, visitors need the key in the printed address. Raises `ReviewError` if
    the extra `review` is missing, the port is taken or the host is not this machine's, and `StoreError` if the queue
    is already being served.
    """
    try:
        import latex2mathml  # noqa: F401 (first used when a formula is shown)
        import uvicorn

        from r1kit.web.app import make_app, new_key
    except ModuleNotFoundError as error:
        raise ReviewError(MISSING.format(error.name)) from None

    with ReviewQueue(path) as queue, contextlib.ExitStack() as resources:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            listening = resources.enter_context(socket.create_server((host, port), family=family, backlog=64))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ReviewError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from None
        local = is_loopback(host)
        key = "" if local else new_key()
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        address = f"http://{f'[{name}]' if ':' in name else name}:{listening.getsockname()[1]}/"
        names = frozenset({host.lower(), socket.gethostname().lower()} - {"", "0.0.0.0", "::"})
        app = make_app(queue, who=who, names=names, key=key)
        config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False)
        with queue.serving(address), contextlib.suppress(KeyboardInterrupt):
            print(f"review at {address}{f'?key={key}' if key else ''}", flush=True)
            warning = "; other machines reach this page, unencrypted: anyone with the address can decide"
            print("Ctrl+C stops; decisions are kept" + ("" if local else warning), file=sys.stderr)
            uvicorn.Server(config).run(sockets=[listening])
        counts = queue.progress()
        decided = f"{counts.total - counts.pending} of {counts.total} decided"
        print(f"{decided}: {counts.accepted} accepted ({counts.edited} with edits), {counts.rejected} rejected")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
