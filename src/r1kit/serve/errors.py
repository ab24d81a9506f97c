"""Errors in the shape in which OpenAI's API returns them."""

from __future__ import annotations

from typing import Any

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class APIError(Exception):
    """A request that gets no answer: the HTTP status, what is wrong, and which field is to blame."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers: dict[str, str] = {}

    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        # a name from a request may hold half a surrogate pair, which cannot be sent
        message, param = (
            text and text.encode("utf-8", "backslashreplace").decode() for text in (str(self), self.param)
        )
        return {"error": {"message": message, "type": kind, "param": param, "code": self.code}}


def busy(message: str, seconds: int) -> APIError:
    """A request that the client should send again after some seconds."""
    error = APIError(429, message, code="rate_limit_exceeded")
    error.headers["retry-after"] = str(seconds)
    return error
