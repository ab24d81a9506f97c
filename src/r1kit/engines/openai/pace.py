"""Rate limits and pauses: how long a request waits before it is sent."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


class Pace:
    """At most `per_minute` units, spread evenly; None is no limit.

    Each `take` moves the time at which the next one may start. So there are no bursts that a server would count in
    another minute.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._unit_s = 60 / per_minute if per_minute else 0.0
        self._next = 0.0  # on the monotonic clock

    async def take(self, amount: float = 1.0) -> None:
        # reserve before waiting: no other task runs in between, so two never get the same time
        start = max(self._next, time.monotonic())
        self._next = start + amount * self._unit_s
        while (left := start - time.monotonic()) > 0:  # sleep may end early
            await asyncio.sleep(left)

    def give_back(self, amount: float) -> None:
        """Return units that were taken but not used; a negative amount was used in excess."""
        self._next -= amount * self._unit_s


def backoff(failures: int, first_s: float, longest_s: float) -> float:
    """Seconds before the next try after `failures` in a row: doubling, at most `longest_s`, with jitter."""
    # at most 2 ** 60: a float overflows after a thousand failures
    return min(longest_s, first_s * 2.0 ** min(failures - 1, 60)) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait: Retry-After in seconds or as a date, or retry-after-ms; 0 without them."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "0").strip()
        is_number = value.replace(".", "", 1).isdigit()
        return max(0.0, float(value) if is_number else parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):  # a server may send anything
        return 0.0
