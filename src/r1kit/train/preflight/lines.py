"""The lines of a preflight: a value, its limit, a verdict and a remedy."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from r1kit.settings import Settings, unhashed

LineVerdict = Literal["ok", "fails", "unclear"]


class PreflightError(ValueError):
    """A stage whose first minute shows that training would be in vain; the message has the lines that fail."""


class SelfCheckSettings(Settings):
    """Whether a stage checks itself: before its first step (`r1kit preflight` checks more), and while it trains."""

    preflight: Literal["stop", "warn", "off"] = unhashed(
        "stop", description="checks before the first step: stop if one fails, only warn, or off"
    )
    alarm: Literal["off", "warn", "stop", "roll-back"] = unhashed(
        "warn",
        description="when the verdict on the stage is a fault: warn, stop, or end it with the last checkpoint before",
    )
    is_control: bool = unhashed(
        False, description="a control arm (--controls): what looks like a fault is what it is for, so nobody judges it"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One check. `remedy` says what to change, and is empty unless the check fails; `limit` is empty without one."""

    check: str
    value: str
    limit: str = ""
    verdict: LineVerdict = "ok"
    remedy: str = ""

    def as_text(self) -> str:
        """`gradient by packing: differs by 0.31, limit 0.001: ...`"""
        limit = f", limit {self.limit}" if self.limit else ""
        return f"{self.check}: {self.value}{limit}{': ' if self.remedy else ''}{self.remedy}"


def line(check: str, value: str, passes: bool, remedy: str, limit: str = "") -> Line:
    """A check that is `ok` or `fails`."""
    verdict: LineVerdict = "ok" if passes else "fails"
    return Line(check=check, value=value, limit=limit, verdict=verdict, remedy="" if passes else remedy)


def unclear(check: str, why: str) -> Line:
    """A check that this set-up cannot make."""
    return Line(check=check, value=why, verdict="unclear")


def refuse(lines: Sequence[Line]) -> None:
    """Raise `PreflightError` with all lines that fail, if any does."""
    if failing := [each.as_text() for each in lines if each.verdict == "fails"]:
        many = f"{len(failing)} of {len(lines)} checks before the first step fail"
        goes_on = "preflight=warn trains in spite of that, preflight=off does not check"
        raise PreflightError("\n".join([f"{many} ({goes_on}):", *failing]))


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """The block draws random numbers without changing what is drawn after it."""
    python, array, tensor = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(tensor)
        if devices:
            torch.cuda.set_rng_state_all(devices)
