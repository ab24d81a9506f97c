"""The server as a web application: /v1/chat/completions, /v1/completions, /v1/models and /health.

With a folder for weights, also the routes of `WeightUpdates`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from r1kit.engines.local.scheduler import Sequence
from r1kit.net.connection import until_disconnect
from r1kit.net.requests import Refused, read_body
from r1kit.serve.answers import Answer, ChatAnswer, CompletionAnswer
from r1kit.serve.batch import Batch, Job
from r1kit.serve.door import Door
from r1kit.serve.errors import APIError
from r1kit.serve.event_stream import EventStream
from r1kit.serve.fields import ChatFields, CompletionFields
from r1kit.serve.prompts import Renderer, Work
from r1kit.serve.weights import WeightUpdates

MAX_BODY = 8 * 1024 * 1024  # bytes


class Service:
    """The handlers for one model, and the state that the process looks at."""

    def __init__(
        self,
        renderer: Renderer,
        batch: Batch,
        *,
        key: str = "",
        names: frozenset[str] = frozenset(),
        weights_folder: Path | None = None,
    ) -> None:
        self.renderer, self.batch = renderer, batch
        self.weights = WeightUpdates(batch, weights_folder) if weights_folder else None
        self.draining = False
        self.num_open = 0  # requests whose answer is not complete
        # bodies are parsed and split into tokens by one thread: a long text must not stop the event loop
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/health", self.health),
            *(self.weights.routes if self.weights else ()),
        ]
        handlers: dict[Any, Any] = {
            APIError: lambda request, error: JSONResponse(error.body(), error.status, error.headers),
            Refused: lambda request, error: _error(error.status, str(error)),
            404: lambda request, error: _error(404, f"there is no {request.url.path}"),
            Exception: lambda request, error: _error(500, f"{type(error).__name__}: {error}"),
            405: lambda request, error: _error(405, f"{request.url.path} does not take {request.method}"),
        }
        door = Middleware(Door, service=self, key=key, names=names)
        self.app = Starlette(routes=routes, middleware=[door], exception_handlers=handlers)

    def close(self) -> None:
        """End the threads; no request is open."""
        self.reader.shutdown()
        self.batch.close()

    async def chat(self, request: Request) -> Any:
        return await self._answer(request, ChatFields, self.renderer.chat_work, ChatAnswer)

    async def complete(self, request: Request) -> Any:
        return await self._answer(request, CompletionFields, self.renderer.completion_work, CompletionAnswer)

    async def models(self, request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, request: Request) -> JSONResponse:
        self._check_model(request.path_params["name"])
        return JSONResponse(self._card())

    async def health(self, request: Request) -> JSONResponse:
        """200 if the model answers; 503 if it does not, or not for long."""
        status = "draining" if self.draining else "ok" if self.batch.alive else "the model's thread has ended"
        facts = {"status": status, "completions": self.batch.size, "finished": self.batch.finished}
        return JSONResponse(facts, 200 if status == "ok" else 503)

    def _card(self) -> dict[str, Any]:
        """The model's entry in the list; `chat_format` tells our own commands that a question alone is enough."""
        renderer = self.renderer
        facts = {"max_model_len": renderer.engine.context, "chat_format": renderer.chat.model_dump(mode="json")}
        return {"id": renderer.name, "object": "model", "created": 0, "owned_by": "r1kit", **facts}

    def _check_model(self, name: str) -> None:
        if name not in ("", self.renderer.name):
            message = f"there is no model {name!r:.100}: this server has {self.renderer.name!r}"
            raise APIError(404, message, param="model", code="model_not_found")

    async def _answer(
        self,
        request: Request,
        kind: type[ChatFields] | type[CompletionFields],
        render: Callable[[Any], list[Work]],
        shape: type[Answer],
    ) -> Any:
        body = await read_body(request, MAX_BODY, "send fewer prompts at once")

        def read() -> tuple[ChatFields | CompletionFields, list[Work]]:
            try:
                values = json.loads(body)
            except (ValueError, RecursionError) as error:
                raise APIError(400, f"the body is not JSON: {error}") from None
            fields = kind.read(values)
            self._check_model(fields.model)
            self.batch.refuse_large(fields.completions)  # first: to split a million prompts into tokens takes minutes
            return fields, render(fields)

        fields, works = await asyncio.get_running_loop().run_in_executor(self.reader, read)
        jobs = [Job(work.request, streams=fields.stream) for work in works]
        answer = shape(fields, works, self.renderer.name, self.renderer.engine.tokenizer)
        if self.weights:
            await self.weights.ready(request)
            # the weights stay these until the answer is complete
            answer.head["weight_version"] = self.weights.version
        self.batch.submit(jobs)
        if fields.stream:
            return EventStream(self._events(answer, jobs), lambda: self._cancel(jobs))
        try:
            ended = await until_disconnect(request.receive, self._ended(jobs))
        finally:
            self._cancel(jobs)
        # a thousand tokens with their alternatives take a while to write
        return await asyncio.get_running_loop().run_in_executor(self.reader, lambda: JSONResponse(answer.whole(ended)))

    def _cancel(self, jobs: list[Job]) -> None:
        for job in jobs:
            self.batch.cancel(job)

    async def _ended(self, jobs: list[Job]) -> list[tuple[int, Sequence]]:
        """All sequences of a request, each with the number of its prompt."""
        return [(n, update.sequence) for n, job in enumerate(jobs) async for update in self.batch.updates(job)]

    async def _events(self, answer: Answer, jobs: list[Job]) -> AsyncIterator[str]:
        """The data of server-sent events: chunks as they come, in turn for all prompts."""
        try:
            async for number, update in _merged([self.batch.updates(job) for job in jobs]):
                for chunk in answer.chunks(number, update):
                    yield json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
            if answer.fields.stream_options.include_usage:
                yield json.dumps(answer.chunk([], answer.usage()))
        except APIError as error:  # the status is sent already
            yield json.dumps(error.body())
        yield "[DONE]"


async def _merged(streams: list[AsyncIterator[Any]]) -> AsyncIterator[tuple[int, Any]]:
    """The items of several streams as they come, each with the number of its stream."""
    waiting = {asyncio.ensure_future(anext(stream)): number for number, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                number = waiting.pop(future)
                try:
                    item = future.result()
                except StopAsyncIteration:
                    continue
                waiting[asyncio.ensure_future(anext(streams[number]))] = number
                yield number, item
    finally:
        for future in waiting:
            future.cancel()


def _error(status: int, message: str) -> JSONResponse:
    return JSONResponse(APIError(status, message).body(), status)
