"""The live page as a web application: JSON over run folders for the page in the browser, and a stream of changes."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from r1kit import store
from r1kit.data.errors import DataError
from r1kit.report.live.changes import Changes
from r1kit.report.live.places import NotThere
from r1kit.web.guard import Guard
from r1kit.web.watch.api import Api

WEB = Path(__file__).parents[1]
LOOK_EVERY_S = 1.0
BEAT_EVERY = 10  # looks without an event


def make_app(root: Path, *, look_every_s: float = LOOK_EVERY_S) -> Starlette:
    """The application for a runs folder, or for one run's folder. `app.state.closing` ends the streams of events."""
    api = Api(root)
    get = {
        "/api/runs": api.runs,
        "/api/runs/{run}": api.run,
        "/api/runs/{run}/curves": api.curves,
        "/api/runs/{run}/health": api.health,
        "/api/runs/{run}/rollouts": api.steps,
        "/api/runs/{run}/rollouts/{stage}/{step:int}": api.step,
        "/api/runs/{run}/rollouts/{stage}/{step:int}/{group:int}": api.group,
        "/api/runs/{run}/search": api.search,
        "/api/runs/{run}/rows": api.rows,
        "/api/runs/{run}/lineage": api.lineage,
        "/api/runs/{run}/settings": api.settings,
        "/api/runs/{run}/log": api.log,
    }
    routes = [
        Route("/", lambda request: FileResponse(WEB / "templates" / "watch.html"), methods=["GET"]),
        *(Route(path, partial(as_json, handler), methods=["GET"]) for path, handler in get.items()),
        Route("/api/events", partial(events, api, look_every_s), methods=["GET"]),
        Mount("/static", StaticFiles(directory=WEB / "static")),
    ]
    guard = Middleware(
        Guard,
        secret=secrets.token_urlsafe(24),
        names=frozenset(),
        key="",
        refuse=lambda request, refusal: error_answer(refusal.status, str(refusal)),
    )
    handlers: dict[Any, Any] = {
        NotThere: lambda request, error: error_answer(404, str(error)),
        FileNotFoundError: lambda request, error: error_answer(404, f"{error.filename} is gone"),
        OSError: lambda request, error: error_answer(422, f"{error.filename} cannot be read: {error.strerror}"),
        DataError: lambda request, error: error_answer(422, str(error)),
        store.StoreError: lambda request, error: error_answer(422, str(error)),
        ValueError: lambda request, error: error_answer(400, str(error)),
        404: lambda request, error: error_answer(404, f"there is no page {request.url.path!r:.80}"),
        405: lambda request, error: error_answer(405, "this page only reads: use GET"),
    }
    app = Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)
    app.state.closing = False
    return app


def as_json(handler: Callable[[Request], Any], request: Request) -> Response:
    """The handler's answer; runs in a thread, so that a large file does not hold up other requests."""
    return json_answer(handler(request))


def json_answer(value: Any, status: int = 200) -> Response:
    """JSON without NaN; a lone surrogate, which model text may hold, is written as "?"."""
    text = json.dumps(store.to_plain(value), ensure_ascii=False, allow_nan=False)
    return Response(text.encode("utf-8", "replace"), status, media_type="application/json")


def error_answer(status: int, text: str) -> Response:
    return json_answer({"error": text, "status": status}, status)


async def events(api: Api, look_every_s: float, request: Request) -> Response:
    """Server-sent events of one run and of the list of runs, until the browser or the server closes the stream."""
    changes = Changes(api.root, request.query_params.get("run", ""), api.states)

    async def stream() -> AsyncIterator[bytes]:
        await asyncio.to_thread(changes.look)  # whatever changes after the first line is an event
        yield b"retry: 2000\n\n"
        quiet = 0
        while not request.app.state.closing:
            quiet += 1
            for name, data in await asyncio.to_thread(changes.look):
                quiet = 0
                yield f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
            if quiet >= BEAT_EVERY:
                quiet = 0
                yield b": still here\n\n"
            await asyncio.sleep(look_every_s)

    return StreamingResponse(stream(), media_type="text/event-stream")
