"""A judge's reply: its last own JSON object, validated by a form. Anything else is unreadable and gives no verdict."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

MAX_CHARS = 50_000  # of a reply, counted from its end
MAX_TRIES = 500  # places at which an object may begin
_OPENING = re.compile(r'\{\s*"')


def _plain_word(value: Any) -> Any:
    """`" Cannot_Tell "` as `"cannot tell"`."""
    return value.strip().lower().replace("_", " ") if isinstance(value, str) else value


# `"[[a > b]]"` as `"A>B"`
_PlainLabel = BeforeValidator(
    lambda value: value.replace(" ", "").strip("[]").upper() if isinstance(value, str) else value
)


class Form(BaseModel):
    """The keys that a reply must have, no more and no less."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    code: str


class VerdictForm(Form):
    analysis: str
    correctness: Annotated[Literal["correct", "incorrect", "cannot tell"], BeforeValidator(_plain_word)]


class PreferenceForm(Form):
    analysis: str
    label: Annotated[Literal["A>>B", "A>B", "A=B", "B>A", "B>>A"], _PlainLabel]


class VoteForm(Form):
    analysis: str
    vote: Annotated[Literal["approve", "reject", "cannot tell"], BeforeValidator(_plain_word)]


F = TypeVar("F", bound=Form)


def read_form(reply: str, code: str, form: type[F]) -> F | None:
    """The form that the judge filled in, or None.

    Only objects with the code count, so an object that the judge quotes from the judged text does not. The last one
    decides: if it is not a valid form, an earlier draft does not replace it.
    """
    text = reply.partition("</think>")[2] if reply.lstrip().startswith("<think>") else reply
    own = [value for value in _json_objects(text) if value.get("code") == code] if code in text else []
    try:
        return form.model_validate(own[-1]) if own else None
    except ValidationError:
        return None


def _json_objects(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects of a text, in order; an object with a repeated key is skipped."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) != len(pairs):  # a quotation that was not escaped can add keys to the judge's object
            raise ValueError("a key is repeated")
        return values

    text = text[-MAX_CHARS:]
    decoder = json.JSONDecoder(object_pairs_hook=distinct)
    objects, end = [], 0
    for _ in range(MAX_TRIES):
        if (opening := _OPENING.search(text, end)) is None:
            break
        try:
            value, end = decoder.raw_decode(text, opening.start())
            objects.append(value)
        except (ValueError, RecursionError):
            end = opening.start() + 1
    return objects
