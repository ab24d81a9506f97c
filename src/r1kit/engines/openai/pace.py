"""Rate limits and pauses: how long a request waits before it is sent."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


class Pace:
    """At most `per_minute` of something, spread evenly; None is no limit.

    Every taking moves the moment at which the next may start, so there are no bursts that a server would count
    against another minute.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._each_s = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def take(self, amount: float = 1.0) -> None:
        start = max(self._next, time.monotonic())
        self._next = start + amount * self._each_s
        while (left := start - time.monotonic()) > 0:
            await asyncio.sleep(left)

    def give_back(self, amount: float) -> None:
        """What was taken and not used; a negative amount is what was used beyond it."""
        self._next -= amount * self._each_s


def backoff(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds before the next try after `failures` in a row: doubling, at most `longest_s`, with jitter."""
    return min(longest_s, first_s * 2.0 ** min(failures - 1, 60)) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait: Retry-After in seconds or as a date, or retry-after-ms; else 0."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "0")
        return max(0.0, float(value) if _is_number(value) else parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):  # the header is the server's, and may hold anything
        return 0.0


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdigit()
