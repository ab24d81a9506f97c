"""What a server sends back: read from its JSON, or refused as malformed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator

from r1kit.types import Completion, FinishReason

# An escape in JSON; `half` is one half of a surrogate pair without the other.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<half>u[dD][89a-fA-F]..)|.)", re.DOTALL)


class Malformed(Exception):
    """The reply cannot be used; what the server counted for it was paid all the same."""

    def __init__(self, message: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        super().__init__(message)
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer as it is cached. `text` holds the reasoning too, as `<think>...</think>`, where it comes apart."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    def completion(self) -> Completion:
        return Completion(
            token_ids=self.token_ids, logprobs=self.logprobs, text=self.text, finish_reason=self.finish_reason
        )


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _Token(BaseModel):
    logprob: float


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    token_ids: list[int] | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        return 0 if value is None else value


class _Body(BaseModel):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None


def read(body: str) -> Reply:
    """The reply in a server's JSON; raises `Malformed` for anything that holds no answer.

    Half a surrogate pair, which some servers write where a reply was cut inside an emoji, becomes U+FFFD: the parser
    takes none, and asked again the server would write the same.
    """
    try:
        parsed = _Body.model_validate_json(_ESCAPE.sub(_without_half, body))
    except ValidationError:
        raise Malformed(f"the reply is not a chat completion: {body[:200]!r}") from None
    usage = parsed.usage or _Usage()
    if not parsed.choices:
        raise Malformed(f"the reply has no choices: {body[:200]!r}", usage.prompt_tokens, usage.completion_tokens)
    choice = parsed.choices[0]
    text = _text(choice.message, choice.finish_reason)
    if text is None:
        raise Malformed("the reply has no content", usage.prompt_tokens, usage.completion_tokens)
    ids, logprobs = _tokens(choice)
    return Reply(
        text=text,
        finish_reason="length" if choice.finish_reason == "length" else "stop",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        token_ids=ids,
        logprobs=logprobs,
    )


def _without_half(escape: re.Match[str]) -> str:
    return r"\ufffd" if escape["half"] else escape[0]


def _text(message: _Message, finish_reason: str | None) -> str | None:
    content = message.content if message.content is not None else message.refusal
    thought = message.reasoning_content or message.reasoning
    if content is None and finish_reason in ("length", "content_filter"):  # cut off before the answer: no fault
        return f"<think>{thought}" if thought else ""
    if not thought or content is None or content.lstrip().startswith("<think>"):
        return content
    return f"<think>{thought}" if finish_reason == "length" and not content else f"<think>{thought}</think>{content}"


def _tokens(choice: _Choice) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Ids and log-probs where the server sends both, one for each token; else none at all."""
    ids = choice.token_ids or []
    logprobs = [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []]
    return (tuple(ids), tuple(logprobs)) if len(ids) == len(logprobs) else (tuple(ids), ())
