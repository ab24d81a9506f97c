"""From a request to the exact token ids that the model continues."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.engines import PromptError
from r1kit.engines.ask import refuse_long
from r1kit.engines.local import LocalEngine
from r1kit.engines.local.scheduler import Request
from r1kit.serve.errors import APIError
from r1kit.serve.fields import ChatFields, CompletionFields
from r1kit.settings import SettingsError
from r1kit.types import Message, Problem, SamplingParams

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class Work:
    """A prompt with the request for the engine. `opened` is the start of the answer that the prompt holds.

    `text` is the prompt's own, for completions that repeat it.
    """

    request: Request
    opened: str = ""
    text: str = ""


@dataclass(frozen=True)
class Renderer:
    """The model's name, its engine, and the format in which it was trained."""

    name: str
    engine: LocalEngine
    chat: ChatFormat

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token: a text with more of them per token cannot fit into the context."""
        return max(map(len, self.engine.tokenizer.get_vocab()))

    def chat_work(self, fields: ChatFields) -> list[Work]:
        """One prompt in the model's format. Raises `APIError` for messages that it cannot render."""
        chat, tokenizer, context = self.chat, self.engine.tokenizer, self.engine.context
        messages = self._with_opening([_message(each) for each in fields.messages])
        self._check_size(sum(len(message.content) for message in messages), "messages")
        try:
            if fields.chat_template_kwargs:
                chat = chat.replace(options={**chat.options, **fields.chat_template_kwargs})
            prompt = chat.prompt(messages, tokenizer)
        except SettingsError as error:
            raise APIError(400, f"chat_template_kwargs: {error}", param="chat_template_kwargs") from None
        except Exception as error:  # a template fails in any way on turns and variables that it does not expect
            raise APIError(400, str(error) or type(error).__name__, param="messages") from None
        longest = context - len(prompt.token_ids) if fields.longest is None else fields.longest
        if fields.longest is None and longest < 1:
            refuse = f"the prompt has {len(prompt.token_ids)} tokens and the model's context is {context}"
            raise APIError(400, f"{refuse}: shorten it", param="messages", code="context_length_exceeded")
        return [Work(self._request(prompt.token_ids, fields.sampling(longest), fields.top), opened=prompt.opened)]

    def completion_work(self, fields: CompletionFields) -> list[Work]:
        """One prompt per text or list of ids, as it is."""
        tokenizer, works = self.engine.tokenizer, []
        params = fields.sampling(max(fields.max_tokens, 1))
        for prompt in fields.prompt:
            if isinstance(prompt, str):
                self._check_size(len(prompt), "prompt")
                text = _sendable(prompt)
                ids = tokenizer.encode(text, add_special_tokens=fields.add_special_tokens)
            else:
                ids, text = prompt, ""
                if unknown := [token for token in ids if not 0 <= token < len(tokenizer)]:
                    raise APIError(
                        400, f"there is no token {unknown[0]}: ids are below {len(tokenizer)}", param="prompt"
                    )
                if fields.echo:
                    text = str(tokenizer.decode(ids, skip_special_tokens=False))
            if not ids:
                raise APIError(400, "the prompt is empty: it needs at least one token", param="prompt")
            request = self._request(ids, params, fields.logprobs or 0)
            request.scores_prompt = fields.echo and fields.logprobs is not None
            works.append(Work(request, text=text))
        return works

    def _with_opening(self, messages: list[Message]) -> tuple[Message, ...]:
        """The conversation behind the format's system message and exemplars, unless it brings its own."""
        opening = self.chat.messages(Problem(id="", prompt="", answer=""))[:-1]
        if messages[-1].role != "user":
            raise APIError(400, f"the last message is the {messages[-1].role}'s: end with the user's", param="messages")
        if messages[0].role == "system" or tuple(messages[: len(opening)]) == opening:
            return tuple(messages)
        return (*opening, *messages)

    def _check_size(self, characters: int, param: str) -> None:
        """Refuse a text that cannot fit, before it is split into tokens."""
        limit = self.engine.context * self.longest_token
        if characters > limit:
            holds = f"a context of {self.engine.context} tokens holds at most {limit}"
            message = f"the prompt has {characters} characters, and {holds}: shorten it"
            raise APIError(400, message, param=param, code="context_length_exceeded")

    def _request(self, ids: Sequence[int], params: SamplingParams, top: int) -> Request:
        """Its random numbers depend on its token ids, the seed and the number of the sample only."""
        try:
            refuse_long("", len(ids), params.max_tokens, self.engine.context, "shorten the prompt")
        except PromptError as error:
            raise APIError(400, str(error), code="context_length_exceeded") from None
        name = hashlib.blake2b(repr(tuple(ids)).encode(), digest_size=16).hexdigest()
        return Request(name, ids, self.engine.policy.with_ends(params), top=top)


def _sendable(text: str) -> str:
    """Text without halves of surrogate pairs, which JSON can hold and tokenizers refuse."""
    return text.encode("utf-8", "replace").decode()


def _message(turn: Mapping[str, Any]) -> Message:
    """A message of a request. An assistant's reasoning in a field of its own is left out, as templates leave it out."""
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str) or role not in ROLES or turn.get("tool_calls"):
        expected = "expected system, user or assistant, without tool calls"
        raise APIError(400, f"a message has the role {role!r:.30}: {expected}", param="messages")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        content = None if None in parts else "".join(map(str, parts))
    if not isinstance(content, str):
        raise APIError(400, f"a message of role {role} has no text: the model reads text only", param="messages")
    return Message(role=ROLES[role], content=_sendable(content))  # type: ignore[arg-type]
