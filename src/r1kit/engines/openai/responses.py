"""Replies of a server, parsed from its JSON or refused as malformed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError, field_validator

from r1kit.types import Completion, FinishReason

# An escape in JSON; `half` is one half of a surrogate pair without the other.
_ESCAPE = re.compile(r"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(?P<half>u[dD][89a-fA-F]..)|.)", re.DOTALL)


class Malformed(Exception):
    """The reply cannot be used, though its tokens were paid for."""

    def __init__(self, message: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        super().__init__(message)
        self.prompt_tokens, self.completion_tokens = prompt_tokens, completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply as it is cached. Reasoning from a separate field of the server is in `text` as <think>...</think>."""

    text: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    def completion(self, opened: str = "") -> Completion:
        """The reply as a completion; `opened` is put in front of a text that does not begin with it."""
        text = self.text if self.text.lstrip().startswith(opened) else opened + self.text
        return Completion(token_ids=self.token_ids, logprobs=self.logprobs, text=text, finish_reason=self.finish_reason)


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
    def _null_is_zero(cls, value: Any) -> Any:
        return 0 if value is None else value


class _Body(BaseModel):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None


def read_reply(body: str) -> Reply:
    """Parse the server's JSON. Raises `Malformed` if it holds no answer.

    Some servers write half a surrogate pair if a reply was cut inside an emoji. It becomes U+FFFD: the parser refuses
    it, and a retry would return the same.
    """
    try:
        parsed = _Body.model_validate_json(_ESCAPE.sub(lambda match: r"\ufffd" if match["half"] else match[0], body))
    except ValidationError:
        raise Malformed(f"the reply is not a chat completion: {body[:200]!r}") from None
    usage = parsed.usage or _Usage()  # some servers count nothing
    if not parsed.choices:
        raise Malformed(f"the reply has no choices: {body[:200]!r}", usage.prompt_tokens, usage.completion_tokens)
    choice = parsed.choices[0]
    message, was_cut = choice.message, choice.finish_reason == "length"
    # a refusal is an answer: it is judged like any other
    content = message.content if message.content is not None else message.refusal
    reasoning = message.reasoning_content or message.reasoning
    # valid: cut off before the answer, or ended inside the reasoning
    if content is None and (reasoning or choice.finish_reason in ("length", "content_filter")):
        text = f"<think>{reasoning}" if reasoning else ""
    elif content is None:
        raise Malformed("the reply has no content", usage.prompt_tokens, usage.completion_tokens)
    elif not reasoning or content.lstrip().startswith("<think>"):
        text = content
    else:  # cut off inside the reasoning, it stays open
        text = f"<think>{reasoning}" + ("" if was_cut and not content else f"</think>{content}")
    # only some servers send ids and log-probs; log-probs of another length cannot be matched to the ids
    token_ids = choice.token_ids or []
    logprobs = [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []]
    return Reply(
        text=text,
        finish_reason="length" if was_cut else "stop",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        token_ids=tuple(token_ids),
        logprobs=tuple(logprobs) if len(logprobs) == len(token_ids) else (),
    )
