"""A filter maps the view of a sample to a reason to drop it, or None."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from r1kit.curate.record import View

EXAMPLE_CHARS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why a sample is dropped.

    `Rejection(reason="long paragraph", detail="3120 characters, at most 2000", example="Let me see. First ...")`
    `reason` is one of few and is counted; `detail` has this sample's numbers; `example` is the place in the text;
    `found_in` names the evaluation sets that overlap with it.
    """

    reason: str
    detail: str = ""
    example: str = ""
    found_in: tuple[str, ...] = ()


Filter = Callable[[View], Rejection | None]


def excerpt(text: str, start: int = 0, *, before: int = 40) -> str:
    """A piece of a text around `start`, on one line and short enough for a table."""
    first = max(0, start - before)
    piece = " ".join(text[first : first + EXAMPLE_CHARS].split())
    return ("… " if first else "") + piece + (" …" if first + EXAMPLE_CHARS < len(text) else "")
