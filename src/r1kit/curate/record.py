"""A sample on its way into a training set: the conversation and where it comes from, as a plain JSON row.

Stages write and people read rows such as `{"id": "gsm8k/train/17#3", "messages": [...], "problem_id": ...}`. Only `id`
and `messages` are required. Unknown columns stay in the row untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from r1kit import chat
from r1kit.curate import formats
from r1kit.data.errors import DataError, shown
from r1kit.data.messages import parse_messages
from r1kit.numeric import finite
from r1kit.types import Conversation, FinishReason, Message, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class CuratedSample:
    """A conversation that ends with the assistant's turn, and its provenance.

    `CuratedSample(id="gsm8k/train/17#3", messages=(Message(role="user", ...), Message(role="assistant", ...)),
    problem_id="gsm8k/train/17", source="rejection", language="en", answer="72", verdicts={"math": Verdict(...)},
    scores={"accuracy": 1.0}, pass_rate=0.25, made_by={"model": "runs/r1/rl-1a2b", "temperature": 1.0})`
    `answer` is the reference; `pass_rate` the share of correct samples of the problem; `tokens` and `finish_reason`
    belong to the completion; `parent` is the id of the sample from which this one was rewritten.
    """

    id: str
    messages: tuple[Message, ...]
    problem_id: str = ""
    source: str = ""
    language: str = ""
    answer: str | None = None
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    scores: Mapping[str, float | None] = field(default_factory=dict)
    pass_rate: float | None = None
    tokens: int | None = None
    finish_reason: FinishReason | None = None
    made_by: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """The last user turn."""
        return next((turn.content for turn in reversed(self.messages) if turn.role == "user"), "")

    @property
    def question_with_history(self) -> str:
        """The question with the turns before it as one text, without a system message."""
        return question_text([turn for turn in self.messages[:-1] if turn.role != "system"])

    @property
    def response(self) -> str:
        """The last turn, which is the assistant's."""
        return self.messages[-1].content

    def conversation(self) -> Conversation:
        """The conversation to train on."""
        metadata = {"id": self.id, "problem_id": self.problem_id, "language": self.language, **self.metadata}
        return Conversation(messages=self.messages, source=self.source, metadata=metadata)


def question_text(turns: Sequence[Message]) -> str:
    """The question as one text: a single turn as it is, several turns with their roles.

    (A follow-up such as "And in French?" is meaningless alone.)
    """
    if len(turns) == 1:
        return turns[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A sample with its response parsed once for all filters.

    `form` is a name in `formats.FORMATS`, or None if the response is in no format; `reasoning` and `summary` are then
    a best effort. `prose` is the reasoning, or the whole response if there is none.
    """

    sample: CuratedSample
    response: str
    form: str | None
    reasoning: str | None
    summary: str | None

    @property
    def prose(self) -> str:
        return self.response if self.reasoning is None else self.reasoning


def view(sample: CuratedSample) -> View:
    """Parse a sample's response; accepts any text."""
    response = sample.response
    parts = formats.split(response)
    if parts is None:
        broken = chat.parse(response)
        form, reasoning, summary = None, broken.reasoning, broken.answer
    else:
        form, reasoning, summary = parts.form, parts.reasoning, parts.summary
    return View(sample=sample, response=response, form=form, reasoning=reasoning, summary=summary)


def reformat(sample: CuratedSample, form: str) -> CuratedSample | None:
    """The sample with its last turn in another format; None if `formats.convert` cannot convert it."""
    text = formats.convert(sample.response, form)
    if text is None:
        return None
    return replace(sample, messages=(*sample.messages[:-1], Message(role="assistant", content=text)))


def from_row(row: Mapping[str, Any], *, file: str | None = None, number: int | None = None) -> CuratedSample:
    """A row as a record; raises `DataError` with file, row and field for a missing or wrong value."""
    try:
        name = _text(row, "id", required=True)
        messages = parse_messages(row.get("messages"))
        if messages[-1].role != "assistant":
            reason = f"the last turn is the {messages[-1].role}'s: expected the assistant's, which is trained on"
            raise DataError("wrong type", reason, field=f"messages.{len(messages) - 1}.role")
        verdicts = {}
        for verifier, value in _mapping(row, "verdicts").items():
            fields = value if isinstance(value, dict) else {"correct": value}  # in short: true, false or null
            if not isinstance(correct := fields.get("correct"), bool | None):
                reason = f"correct is {shown(correct)}: expected true, false or null"
                raise DataError("wrong type", reason, field=f"verdicts.{verifier}")
            detail = str(fields.get("detail", ""))
            verdicts[verifier] = Verdict.of(correct, extracted=fields.get("extracted"), detail=detail)
        scores = {name: _number(value, f"scores.{name}") for name, value in _mapping(row, "scores").items()}
        rate, tokens = _number(row.get("pass_rate"), "pass_rate"), row.get("tokens")
        if rate is not None and not 0 <= rate <= 1:
            raise DataError("wrong type", f"the value is {rate}: expected a share from 0 to 1", field="pass_rate")
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0):
            reason = f"the value is {shown(tokens)}: expected a number of tokens"
            raise DataError("wrong type", reason, field="tokens")
        finish_reason, reasons = row.get("finish_reason"), get_args(FinishReason)
        if finish_reason is not None and finish_reason not in reasons:
            reason = f"the value is {shown(finish_reason)}: expected one of {', '.join(reasons)}, or null"
            raise DataError("wrong type", reason, field="finish_reason")
        return CuratedSample(
            id=name,
            messages=messages,
            verdicts=verdicts,
            scores=scores,
            pass_rate=rate,
            tokens=tokens,
            finish_reason=finish_reason,
            made_by=_mapping(row, "made_by"),
            metadata=_mapping(row, "metadata"),
            answer=_text(row, "answer") or None,
            parent=_text(row, "parent") or None,
            problem_id=_text(row, "problem_id"),
            source=_text(row, "source"),
            language=_text(row, "language"),
        )
    except DataError as error:
        raise DataError(error.kind, error.reason, file, number, error.field) from None


def _text(row: Mapping[str, Any], name: str, *, required: bool = False) -> str:
    value = row.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        kind = "missing column" if value is None else "wrong type"
        lacks = f"the row has no field {name!r}, only {', '.join(map(repr, row)) or 'none'}"
        problem = f"the value is {shown(value)}" if name in row else lacks
        raise DataError(kind, f"{problem}: expected text", field=name)
    return value


def _mapping(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DataError("wrong type", f"the value is {shown(value)}: expected an object", field=name)
    return value


def _number(value: Any, place: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or finite(value) is None:
        raise DataError("wrong type", f"the value is {shown(value)}: expected a finite number or null", field=place)
    return float(value)
