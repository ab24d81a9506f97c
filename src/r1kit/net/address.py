"""Addresses to listen on, and the host names by which a server may be called."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterator

BACKLOG = 2048  # connections that the kernel keeps until the server accepts them
# A client that lost power is gone after a minute, and one that does not read its answer after two.
_OPTIONS = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 120_000}


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """A socket that accepts connections, and its address; raises ValueError if there is none to be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot listen on {host}:{port}: {reason}; choose another --port or --host") from None
    with opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted connections inherit these options
        for name, value in _OPTIONS.items():
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        yield opened, f"http://{f'[{name}]' if ':' in name else name}:{opened.getsockname()[1]}/"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def names_of(host: str) -> frozenset[str]:
    """The host names, besides `localhost` and plain addresses, of a server that listens on `host`."""
    return frozenset({host.lower(), socket.gethostname().lower()} - {"", "0.0.0.0", "::"})
