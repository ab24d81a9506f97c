"""Filters on form: format, length, paragraphs, code blocks, truncation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from r1kit.curate import formats
from r1kit.curate.filters.protocol import Filter, Rejection, excerpt
from r1kit.curate.record import View

_BREAK = re.compile(r"\n[ \t\r]*\n")


def get_not_in_format(*, formats_allowed: Sequence[str] = tuple(formats.FORMATS)) -> Filter:
    """Drop responses that are in none of the allowed formats (names in `formats.FORMATS`)."""
    unknown = set(formats_allowed) - set(formats.FORMATS)
    if unknown or not formats_allowed:
        raise ValueError(f"formats_allowed is {list(formats_allowed)}: name some of {', '.join(formats.FORMATS)}")
    allowed = frozenset(formats_allowed)

    def not_in_format(view: View) -> Rejection | None:
        if view.form in allowed:
            return None
        actual = f"is in format {view.form}" if view.form else "is in no known format"
        detail = f"the response {actual}, expected {' or '.join(sorted(allowed))}"
        return Rejection(reason="not in the format", detail=detail, example=excerpt(view.response))

    return not_in_format


def get_truncated() -> Filter:
    """Drop completions that reached the token limit, and responses with an open <think> tag."""

    def end(view: View) -> str:
        return excerpt(view.response, len(view.response), before=120)

    def truncated(view: View) -> Rejection | None:
        if view.sample.finish_reason == "length":
            return Rejection(
                reason="token limit reached", detail=f"{view.sample.tokens or '?'} tokens", example=end(view)
            )
        if view.response.count("<think>") > view.response.count("</think>"):
            return Rejection(reason="reasoning not closed", example=end(view))
        return None

    return truncated


def get_too_long(*, max_tokens: int | None = 32_768, max_chars: int | None = 200_000) -> Filter:
    """Drop responses with more tokens (if the row has a count) or more characters; None switches a limit off."""
    _check_limits(max_tokens=max_tokens, max_chars=max_chars)

    def too_long(view: View) -> Rejection | None:
        tokens, chars = view.sample.tokens, len(view.response)
        if max_tokens is not None and tokens is not None and tokens > max_tokens:
            return Rejection(reason="too long", detail=f"{tokens} tokens, at most {max_tokens}")
        if max_chars is not None and chars > max_chars:
            return Rejection(reason="too long", detail=f"{chars} characters, at most {max_chars}")
        return None

    return too_long


def get_too_short(*, min_tokens: int | None = None, min_chars: int | None = 1) -> Filter:
    """Drop responses with fewer tokens (if the row has a count) or fewer characters; None switches a limit off."""
    _check_limits(min_tokens=min_tokens, min_chars=min_chars)

    def too_short(view: View) -> Rejection | None:
        tokens, chars = view.sample.tokens, len(view.response.strip())
        if min_tokens is not None and tokens is not None and tokens < min_tokens:
            detail = f"{tokens} tokens, at least {min_tokens}"
        elif min_chars is not None and chars < min_chars:
            detail = f"{chars} characters, at least {min_chars}"
        else:
            return None
        return Rejection(reason="too short", detail=detail, example=excerpt(view.response))

    return too_short


def get_long_paragraphs(*, max_chars: int = 2000) -> Filter:
    """Drop reasoning with a paragraph (text between blank lines) of more than `max_chars` characters.

    The paper drops long paragraphs and gives no number.
    """
    _check_limits(max_chars=max_chars)

    def long_paragraphs(view: View) -> Rejection | None:
        if len(view.prose) <= max_chars:
            return None
        longest = max(_BREAK.split(view.prose), key=len)
        if len(longest) <= max_chars:
            return None
        detail = f"{len(longest)} characters, at most {max_chars}"
        return Rejection(reason="long paragraph", detail=detail, example=excerpt(longest))

    return long_paragraphs


def get_code_blocks(*, max_blocks: int = 0) -> Filter:
    """Drop reasoning with more than `max_blocks` fenced code blocks; list the sources of code problems in `skip`."""
    if max_blocks < 0:
        raise ValueError(f"max_blocks is {max_blocks}: it must be 0 or more")

    def code_blocks(view: View) -> Rejection | None:
        fences = view.prose.count("```") + view.prose.count("~~~")
        blocks = (fences + 1) // 2
        if blocks <= max_blocks:
            return None
        first = min(place for fence in ("```", "~~~") if (place := view.prose.find(fence)) >= 0)
        detail = f"{blocks}, at most {max_blocks}"
        return Rejection(reason="code block in the reasoning", detail=detail, example=excerpt(view.prose, first))

    return code_blocks


def _check_limits(**limits: int | None) -> None:
    for name, value in limits.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1, or null for no limit")
