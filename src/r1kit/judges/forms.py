"""A judge's reply: its own last JSON object, checked by a form; anything else is unreadable and no verdict."""

from __future__ import annotations

import json
import re
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

MAX_CHARS = 50_000  # of a reply, from its end
MAX_TRIES = 500  # places at which an object may begin
_OPENING = re.compile(r'\{\s*"')


class Form(BaseModel):
    """What a reply must hold, no more and no less."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    code: str


class VerdictForm(Form):
    analysis: str
    correctness: Literal["correct", "incorrect", "cannot tell"]

    @field_validator("correctness", mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return value.strip().lower().replace("_", " ") if isinstance(value, str) else value


class PreferenceForm(Form):
    analysis: str
    label: Literal["A>>B", "A>B", "A=B", "B>A", "B>>A"]

    @field_validator("label", mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return value.replace(" ", "").strip("[]").upper() if isinstance(value, str) else value


class VoteForm(Form):
    analysis: str
    vote: Literal["approve", "reject", "cannot tell"]

    @field_validator("vote", mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        return value.strip().lower().replace("_", " ") if isinstance(value, str) else value


F = TypeVar("F", bound=Form)


def read(reply: str, code: str, form: type[F]) -> F | None:
    """The form that the judge filled in, or None.

    Only an object with the code counts, so what the judge quotes from the judged text does not. The last such object
    decides: where it is not a filled form, an earlier draft is not taken in its place.
    """
    text = _after_reasoning(reply)
    own = [found for found in _objects(text) if found.get("code") == code] if code in text else []
    try:
        return form.model_validate(own[-1]) if own else None
    except ValidationError:
        return None


def _after_reasoning(reply: str) -> str:
    if not reply.lstrip().startswith("<think>"):
        return reply
    return reply.partition("</think>")[2]


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a text, outermost ones, in order; an object that names a key twice is none."""
    text = text[-MAX_CHARS:]
    decoder = json.JSONDecoder(object_pairs_hook=_unambiguous)
    found, place = [], _OPENING.search(text)
    for _ in range(MAX_TRIES):
        if place is None:
            break
        try:
            value, end = decoder.raw_decode(text, place.start())
            found.append(value)
        except (ValueError, RecursionError):
            end = place.start() + 1
        place = _OPENING.search(text, end)
    return found


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An unescaped quotation can add keys to the judge's object: then nobody knows which one is the judge's."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key comes twice")
    return made
