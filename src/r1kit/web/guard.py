"""Checks on every request before the page sees it, and security headers on every answer.

The page is for people on this machine, but any web page they visit can send requests here too. The host check stops DNS
rebinding, the origin and token checks stop forms on other sites, and a content security policy stops model text that
gets through as HTML from running anything.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from r1kit.data.jsonl import MAX_FILE_ROW_BYTES
from r1kit.net.requests import Refused, check_host, check_origin, read_body

LARGEST = 4 * MAX_FILE_ROW_BYTES  # bytes of a form: percent signs take three for one, and it has two texts
SESSION = "r1kit-session"
KEY = "r1kit-key"
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware. The page gets checked forms as `request.state.form`, and the token for its forms as `.token`.

    `names` are accepted host names besides `localhost` and plain addresses. If `key` is set (on a page that other
    machines can reach), a visitor must give it once, as `?key=...`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        secret: str,
        names: frozenset[str],
        key: str,
        refuse: Callable[[Request, Refused], Response],
    ) -> None:
        self.app, self.secret, self.names, self.key, self.refuse = app, secret.encode(), names, key, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        session = request.cookies.get(SESSION) or secrets.token_urlsafe(24)
        state = scope.setdefault("state", {})
        state.update(form={}, token=self.token(session))
        answer = self.app
        try:
            check_host(request, self.names)
            key = request.query_params.get("key") or request.cookies.get(KEY, "")
            if self.key and not hmac.compare_digest(key.encode("utf-8", "replace"), self.key.encode()):
                raise Refused(403, "this page needs its key: open the whole address that r1kit printed")
            if request.method == "POST":
                check_origin(request)
                state["form"] = await read_form(request)
                if not hmac.compare_digest(state["form"].get("token", "").encode(), state["token"].encode()):
                    raise Refused(403, "this form is from another session: open the page again and resend it")
        except Refused as refusal:
            answer = self.refuse(request, refusal)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                cookies = {SESSION: session} | ({KEY: self.key} if request.query_params.get("key") == self.key else {})
                for name, value in cookies.items():
                    if value and request.cookies.get(name) != value:
                        headers.append("set-cookie", f"{name}={value}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        await answer(scope, receive, send_with_headers)

    def token(self, session: str) -> str:
        """The token that each form of this session must contain."""
        return hmac.new(self.secret, session.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


async def read_form(request: Request) -> Mapping[str, str]:
    """The fields of a form, with LF line ends; of repeated names, the last one counts."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refused(415, "a form is expected")
    body = await read_body(request, LARGEST, "shorten the text")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="replace", max_num_fields=50)
    except ValueError as error:
        raise Refused(400, f"the form cannot be read: {error}") from None
    return {name: values[-1].replace("\r\n", "\n") for name, values in fields.items()}
