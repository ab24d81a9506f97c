"""Answers in the shapes of OpenAI's two APIs, whole or in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from r1kit.engines.local.scheduler import Sequence
from r1kit.serve.batch import Update
from r1kit.serve.fields import ChatFields, CompletionFields
from r1kit.serve.prompts import Work
from r1kit.serve.text import ReasoningSplit, TextStream
from r1kit.serve.tokens import TokenTexts, chat_logprobs, completion_logprobs


class Answer:
    """The answer to one request. The choices of a prompt follow each other."""

    prefix = whole_kind = chunk_kind = ""

    def __init__(self, fields: ChatFields | CompletionFields, works: list[Work], name: str, tokenizer: Any) -> None:
        self.fields, self.works, self.tokenizer = fields, works, tokenizer
        self.texts = TokenTexts(tokenizer, fields.return_tokens_as_token_ids)
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
        self.completion_tokens = 0
        self.streams: dict[int, TextStream] = {}  # by choice

    def whole(self, sequences: Iterable[tuple[int, Sequence]]) -> dict[str, Any]:
        """The answer from the ended sequences, each with the number of its prompt."""
        choices = [self.choice(prompt, sequence) for prompt, sequence in sequences]
        choices.sort(key=lambda choice: choice["index"])
        return {**self.head, "object": self.whole_kind, "choices": choices, "usage": self.usage()}

    def choice(self, prompt: int, sequence: Sequence) -> dict[str, Any]:
        completion = sequence.completion
        assert completion is not None, "the sequence has ended"
        stop = self.shown_tokens(sequence)
        self.completion_tokens += stop
        choice = {"index": self.index(prompt, sequence), **self.content(prompt, completion.text if stop else "")}
        choice |= {"logprobs": self.logprobs(prompt, sequence, 0, stop), "finish_reason": completion.finish_reason}
        if self.fields.return_token_ids:
            choice["token_ids"] = sequence.token_ids[:stop]
        return choice

    def chunks(self, prompt: int, update: Update) -> Iterator[dict[str, Any]]:
        """The chunks of an update; several if it ends the reasoning and begins the answer."""
        sequence, index = update.sequence, self.index(prompt, update.sequence)
        completion = sequence.completion if update.ended else None
        stop = min(update.stop, self.shown_tokens(sequence))
        self.completion_tokens += stop - update.start
        if index not in self.streams:
            self.streams[index] = TextStream(self.decode, sequence.request.params.stop)
        stream, new = self.streams[index], sequence.token_ids[update.start : stop]
        text = stream.end(completion.text if stop else "") if completion else stream.add(new)
        deltas = list(self.deltas(prompt, index, text, first=not update.start, last=completion is not None))
        shows_tokens = self.fields.return_token_ids or self.fields.logprobs not in (None, False)
        if not deltas and (completion or shows_tokens):
            deltas = [self.empty_delta()]
        for number, delta in enumerate(deltas, 1):
            chunk = {"index": index, **delta, "logprobs": None, "finish_reason": None}
            if number == len(deltas):  # the last one has the tokens of all
                chunk["logprobs"] = self.logprobs(prompt, sequence, update.start, stop)
                chunk["finish_reason"] = completion and completion.finish_reason
                if self.fields.return_token_ids:
                    chunk["token_ids"] = new
            yield self.chunk([chunk])

    def chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = {"usage": usage} if self.fields.stream_options.include_usage else {}
        return {**self.head, "object": self.chunk_kind, "choices": choices, **wanted}

    def usage(self) -> dict[str, Any]:
        prompt_tokens = sum(len(work.request.token_ids) for work in self.works)
        total = prompt_tokens + self.completion_tokens
        return {"prompt_tokens": prompt_tokens, "completion_tokens": self.completion_tokens, "total_tokens": total}

    def index(self, prompt: int, sequence: Sequence) -> int:
        return prompt * self.fields.n + sequence.sample

    def decode(self, token_ids: Any) -> str:
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=False))

    def shown_tokens(self, sequence: Sequence) -> int:
        return len(sequence.token_ids)

    def content(self, prompt: int, text: str) -> dict[str, Any]:
        """The part of a choice that holds its text."""
        raise NotImplementedError

    def deltas(self, prompt: int, index: int, text: str, *, first: bool, last: bool) -> Iterator[dict[str, Any]]:
        """The parts of chunks that hold a piece of text."""
        raise NotImplementedError

    def empty_delta(self) -> dict[str, Any]:
        raise NotImplementedError

    def logprobs(self, prompt: int, sequence: Sequence, start: int, stop: int) -> dict[str, Any] | None:
        raise NotImplementedError


class ChatAnswer(Answer):
    """Messages, with the reasoning in a field of its own."""

    fields: ChatFields
    prefix, whole_kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, fields: ChatFields, works: list[Work], name: str, tokenizer: Any) -> None:
        super().__init__(fields, works, name, tokenizer)
        self.splits: dict[int, ReasoningSplit] = {}  # by choice
        if fields.return_token_ids:
            self.head["prompt_token_ids"] = list(works[0].request.token_ids)

    def content(self, prompt: int, text: str) -> dict[str, Any]:
        split = ReasoningSplit()
        parts = dict(split.add(self.works[prompt].opened + text, last=True))
        # no content: the model never closed its reasoning, which an empty answer would hide
        content = None if parts and split.part == "reasoning_content" else ""
        return {"message": {"role": "assistant", "content": content, **parts}}

    def deltas(self, prompt: int, index: int, text: str, *, first: bool, last: bool) -> Iterator[dict[str, Any]]:
        if first:
            self.splits[index] = ReasoningSplit()
            text = self.works[prompt].opened + text
            yield {"delta": {"role": "assistant", "content": ""}}
        for name, piece in self.splits[index].add(text, last=last):
            yield {"delta": {name: piece}}

    def empty_delta(self) -> dict[str, Any]:
        return {"delta": {}}

    def logprobs(self, prompt: int, sequence: Sequence, start: int, stop: int) -> dict[str, Any] | None:
        if not self.fields.logprobs:
            return None
        ids, logprobs, top = sequence.token_ids[start:stop], sequence.logprobs[start:stop], sequence.top[start:stop]
        return chat_logprobs(self.texts, ids, logprobs, top)


class CompletionAnswer(Answer):
    """Text, with the prompt in front if the request wants it."""

    fields: CompletionFields
    prefix, whole_kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def shown_tokens(self, sequence: Sequence) -> int:
        return len(sequence.token_ids) if self.fields.max_tokens else 0  # one was sampled all the same

    def content(self, prompt: int, text: str) -> dict[str, Any]:
        work = self.works[prompt]
        ids = {"prompt_token_ids": list(work.request.token_ids)} if self.fields.return_token_ids else {}
        return {"text": (work.text if self.fields.echo else "") + text, **ids}

    def deltas(self, prompt: int, index: int, text: str, *, first: bool, last: bool) -> Iterator[dict[str, Any]]:
        if first:
            yield self.content(prompt, text)
        elif text:
            yield {"text": text}

    def empty_delta(self) -> dict[str, Any]:
        return {"text": ""}

    def logprobs(self, prompt: int, sequence: Sequence, start: int, stop: int) -> dict[str, Any] | None:
        if self.fields.logprobs is None:
            return None
        request, offset = sequence.request, 0
        ids, top = sequence.token_ids[start:stop], sequence.top[start:stop]
        logprobs: list[float | None] = [*sequence.logprobs[start:stop]]
        if start:
            offset = sum(len(self.texts.text(token)) for token in sequence.token_ids[:start])
        if self.fields.echo and not start:
            ids, top = [*request.token_ids, *ids], [[], *request.prompt_top, *top] if request.top else []
            logprobs = [None, *request.prompt_logprobs, *logprobs]
        elif self.fields.echo:
            offset += sum(len(self.texts.text(token)) for token in request.token_ids)
        return completion_logprobs(self.texts, ids, logprobs, top, offset)
