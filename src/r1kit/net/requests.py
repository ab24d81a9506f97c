"""Checks on a request before its body is read, and the body within bounds of size and time.

A server on this machine is reachable by any web page that is open here. The host check stops DNS rebinding, the origin
check stops requests of other sites.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import Request

BODY_S = 60.0  # seconds in which a body must arrive


class Refused(Exception):
    """A request that is refused, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_host(request: Request, names: frozenset[str]) -> None:
    """Refuse unknown host names: an attacker can point a name, but not a plain address, at this machine."""
    try:
        name = (urlsplit(f"//{request.headers.get('host', '')}").hostname or "").lower()
    except ValueError:
        name = ""
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        message = f"this server does not answer to the name {name!r:.60}: use the address that r1kit printed"
        raise Refused(421, message) from None


def check_origin(request: Request) -> None:
    """Refuse requests of other sites' pages; browsers report the origin."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    is_foreign = origin is not None and origin.lower().partition("//")[2] != request.headers.get("host", "").lower()
    if is_foreign or site not in (None, "same-origin"):
        raise Refused(403, "the request was sent from another site")


def has_key(request: Request, key: str) -> bool:
    """Whether the request has the header `Authorization: Bearer KEY`, or needs none."""
    sent = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
    return not key or hmac.compare_digest(sent.encode("utf-8", "replace"), key.encode())


def declared_length(request: Request) -> int | None:
    """The header Content-Length as a number; None without one."""
    text = request.headers.get("content-length", "")
    return int(text) if len(text) < 20 and text.isascii() and text.isdigit() else None


async def read_body(
    request: Request, most: int, remedy: str, count: Callable[[int], None] = lambda size: None
) -> bytes:
    """The body. Raises `Refused` if it has more than `most` bytes, without reading the rest, or comes too slowly.

    `count` is called with the size of each piece that arrives, and may raise `Refused` too.
    """
    length = declared_length(request)
    if length is not None and length > most:
        raise Refused(413, f"the body has {length} bytes, and at most {most} are read: {remedy}")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                count(len(chunk))
                body += chunk
                if len(body) > most:
                    raise Refused(413, f"the body is larger than {most} bytes: {remedy}")
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_S:.0f} seconds") from None
    return bytes(body)
