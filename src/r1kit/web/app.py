"""The review page as a web application. It works without JavaScript.

A sample is one form with two texts. Every decision is a POST that is answered with a redirect, so that going back or
reloading repeats nothing. The script adds a live preview and keyboard shortcuts; the server renders its HTML too.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from r1kit.chat import TAGS
from r1kit.evaluate.intervals import wilson
from r1kit.review.items import ReviewError, Text, checks
from r1kit.review.queue import LeaseLost, Progress, ReviewQueue, Turn, reviewer
from r1kit.store import StoreError
from r1kit.web.guard import Guard
from r1kit.web.markup import render, shown
from r1kit.web.text_diff import changes

HERE = Path(__file__).parent
NAME = "r1kit-reviewer"
SAID = {
    "accept": "Accepted.",
    "edit": "Accepted with your edit.",
    "reject": "Rejected.",
    "skip": "Skipped: it comes back when the others are done.",
    "undo": "Undone: here it is again.",
    "undo-elsewhere": "Undone. Another reviewer has the sample now; it comes back later.",
    "nothing": "There is nothing of yours to undo.",
}
REASONS = (
    "wrong answer",
    "wrong step",
    "hard to read",
    "mixed languages",
    "summary does not follow",
    "too long",
    "unsafe",
)
TITLES = {
    400: "This cannot be done",
    403: "Not allowed",
    404: "Not here",
    409: "Not recorded",
    507: "Nothing was saved",
}


def make_app(queue: ReviewQueue, *, who: str = "", names: frozenset[str] = frozenset(), key: str = "") -> Starlette:
    """The application for one queue. With `who`, every visitor is that reviewer; otherwise each enters a name.

    `names` are accepted host names besides `localhost` and plain addresses. If `key` is set, visitors need it.
    """
    page = Page(queue, who)
    routes = [
        Route("/", page.sample),
        Route("/name", page.take_name, methods=["POST"]),
        Route("/name", page.ask_name),
        Route("/decide", page.decide, methods=["POST"]),
        Route("/undo", page.undo, methods=["POST"]),
        Route("/live", page.live, methods=["POST"]),
        Route("/progress", page.progress),
        Route("/history", page.history),
        Route("/accepted.jsonl", page.accepted),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    guard = Middleware(
        Guard,
        secret=queue.setting("secret"),
        names=names,
        key=key,
        refuse=lambda request, refusal: page.message(request, refusal.status, str(refusal)),
    )
    handlers: dict[Any, Any] = {
        ReviewError: lambda request, error: page.message(request, 400, str(error)),
        StoreError: lambda request, error: page.message(request, 507, str(error)),
        404: lambda request, error: page.message(request, 404, "There is no such page."),
        405: lambda request, error: RedirectResponse("/", 303),  # a reload of a form's target
    }
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)


class Page:
    """The handlers for one queue."""

    def __init__(self, queue: ReviewQueue, who: str = "") -> None:
        self.queue, self.who = queue, reviewer(who) if who else ""
        self.places = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            # foreign text can have characters that a page cannot show
            finalize=lambda value: shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        )
        self.places.globals.update(
            rendered=lambda text: Markup(render(text).html),
            checks=checks,
            plain=lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
            reasons=REASONS,
        )

    def name_of(self, request: Request) -> str:
        """The reviewer's name; "" before they enter one."""
        if self.who:
            return self.who
        try:
            return reviewer(unquote(request.cookies.get(NAME, "")))
        except ReviewError:
            return ""

    def sample(self, request: Request) -> Response:
        """The reviewer's next sample, now leased to them, or a page that says that there is none."""
        who = self.name_of(request)
        if not who:
            return RedirectResponse("/name", 303)
        turn = self.queue.next(who)
        said = SAID.get(request.query_params.get("said", ""), "")
        if turn is None:
            return self._page(request, "done.html", said=said, agreement=self._agreement())
        return self._sample(request, turn, _shown(turn.start), said=said)

    def _sample(self, request: Request, turn: Turn, text: Text, status: int = 200, **more: Any) -> Response:
        facts = self._facts(turn.item.text, turn.start, text)
        more = {"said": "", "problem": "", "reason": ""} | more
        return self._page(request, "sample.html", status, turn=turn, item=turn.item, text=text, facts=facts, **more)

    def ask_name(self, request: Request) -> Response:
        """The form that asks who is there."""
        return self._page(request, "name.html", problem="")

    def take_name(self, request: Request) -> Response:
        """Remember the reviewer in this browser."""
        try:
            who = reviewer(request.state.form.get("name", ""))
        except ReviewError as error:
            return self._page(request, "name.html", 400, problem=str(error))
        answer = RedirectResponse("/", 303)
        answer.set_cookie(NAME, quote(who), max_age=30 * 24 * 3600, httponly=True, samesite="strict")
        return answer

    def decide(self, request: Request) -> Response:
        """Record a decision and go to the next sample; without a script, also show the preview or the original."""
        form: Mapping[str, str] = request.state.form
        who, item, action = self.name_of(request), form.get("item", ""), form.get("do", "")
        if not who:
            return RedirectResponse("/name", 303)
        if action in ("preview", "revert"):
            return self._again(request, who, item, action)
        try:
            typed, start = _of(form), self.queue.start(item)
            if typed is not None:  # an untouched field keeps its original, also characters that the page cannot show
                typed = Text(
                    reasoning=start.reasoning if typed.reasoning == shown(start.reasoning) else typed.reasoning,
                    summary=start.summary if typed.summary == shown(start.summary) else typed.summary,
                )
            decision = self.queue.decide(who, item, action, text=typed, reason=form.get("reason", ""))
        except LeaseLost as error:
            last = next(iter(self.queue.history(who=who, limit=1)), None)
            if last and last.item == item and action == ("accept" if last.accepts else last.action):  # a double click
                return RedirectResponse("/", 303)
            return self._page(request, "lost.html", 409, problem=str(error), text=_of(form))
        except (ReviewError, StoreError) as error:
            status = 507 if isinstance(error, StoreError) else 400
            return self._again(request, who, item, "keep", status, problem=str(error), reason=form.get("reason", ""))
        return RedirectResponse(f"/?said={decision.action}", 303)

    def _again(self, request: Request, who: str, item: str, action: str, status: int = 200, **more: str) -> Response:
        """The same sample again, with the typed text."""
        turn = self.queue.turn(who, item)
        text = _of(request.state.form)
        if turn is None:
            problem = "this sample is no longer reserved for you"
            return self._page(request, "lost.html", 409, problem=problem, text=text)
        if action == "revert" or text is None:
            text = _shown(turn.item.text if action == "revert" else turn.start)
        return self._sample(request, turn, text, status, **more)

    def undo(self, request: Request) -> Response:
        """Undo the reviewer's last decision."""
        who = self.name_of(request)
        if not who:
            return RedirectResponse("/name", 303)
        undone = self.queue.undo(who)
        if undone is None:
            return RedirectResponse("/?said=nothing", 303)
        has = self.queue.turn(who, undone.item) is not None
        return RedirectResponse("/?said=undo" if has else "/?said=undo-elsewhere", 303)

    def live(self, request: Request) -> Response:
        """Preview, changes and notes for the text being typed; each call renews the lease."""
        form: Mapping[str, str] = request.state.form
        turn = self.queue.turn(self.name_of(request), form.get("item", ""))
        text = _of(form)
        if turn is None or text is None:
            return JSONResponse({"yours": False})
        return JSONResponse({"yours": True} | self._facts(turn.item.text, turn.start, text))

    def _facts(self, original: Text, start: Text, text: Text) -> dict[str, Any]:
        """What the page shows about a text, as safe HTML."""
        parts = {"reasoning": render(text.reasoning), "summary": render(text.summary)}
        edits = {name: changes(getattr(original, name), getattr(text, name)) for name in ("reasoning", "summary")}
        tags = sorted(tag for tag in TAGS if tag in text.reasoning or tag in text.summary)
        broken, hidden = (sum(getattr(part, kind) for part in parts.values()) for kind in ("broken", "hidden"))
        notes = {  # on things that a reader may overlook
            f"The text has {', '.join(tags)}: the format adds such tags, so they do not belong in the text.": tags,
            f"{_many(broken, 'formula')} cannot be shown: look for marked LaTeX.": broken,
            f"{_many(hidden, 'hidden character')}: marked by code, as they turn or join text unseen.": hidden,
        }
        removed, added = (sum(getattr(edit, side) for edit in edits.values()) for side in ("removed", "added"))
        return {
            "preview": {name: part.html for name, part in parts.items()},
            "words": {name: len(getattr(text, name).split()) for name in parts},
            "changes": {name: change.html if change else "" for name, change in edits.items()},
            "changed": f"{_many(removed, 'word')} out, {added} in",
            "differs": any(edits.values()),
            "edited": text != _shown(start),
            "notes": [note for note, applies in notes.items() if applies],
        }

    def progress(self, request: Request) -> Response:
        """Counts, also per reviewer, and the agreement of reviewers."""
        return self._page(request, "progress.html", reviewers=self.queue.reviewers(), agreement=self._agreement())

    def _agreement(self) -> dict[str, Any] | None:
        agreement = self.queue.agreement()
        if not agreement.pairs:
            return None
        share = agreement.agreed / agreement.pairs
        low, high = wilson(share, agreement.pairs, 1.96)
        return asdict(agreement) | {"share": share, "low": low, "high": high}

    def history(self, request: Request) -> Response:
        """This reviewer's decisions, newest first."""
        who = self.name_of(request)
        return self._page(request, "history.html", lines=self.queue.history(who=who, limit=200) if who else [])

    def accepted(self, request: Request) -> Response:
        """The accepted samples as a file."""
        lines = (json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n" for row in self.queue.rows())
        name = quote(f"{self.queue.path.stem}-accepted.jsonl")
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{name}"}
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)

    def message(self, request: Request, status: int, text: str) -> Response:
        """A page with an error message; plain text if the queue cannot be read for the page's header."""
        try:
            title = TITLES.get(status, "This was refused")
            return self._page(request, "message.html", status, title=title, problem=text)
        except (ReviewError, StoreError):
            return PlainTextResponse(text, status)

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        counts: Progress = self.queue.progress()
        shared = {
            "name": self.queue.path.name,
            "who": self.name_of(request),
            "fixed": bool(self.who),
            "token": getattr(request.state, "token", ""),
            "here": request.url.path,
            "counts": counts,
        }
        return HTMLResponse(self.places.get_template(template).render(**shared | values), status)


def new_key() -> str:
    """A new key for a page that other machines can reach."""
    return secrets.token_urlsafe(12)


def _of(form: Mapping[str, str]) -> Text | None:
    if "reasoning" not in form or "summary" not in form:
        return None
    return _shown(Text(reasoning=form["reasoning"], summary=form["summary"]))


def _shown(text: Text) -> Text:
    return Text(reasoning=shown(text.reasoning), summary=shown(text.summary))


def _many(count: int, word: str) -> str:
    return f"1 {word}" if count == 1 else f"{count} {word}s"
