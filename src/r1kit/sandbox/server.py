"""`r1kit sandbox serve`: offers this machine's sandbox to others, by the protocol of `r1kit.sandbox.remote`."""

from __future__ import annotations

import dataclasses
import hmac
import json
import os
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from r1kit.sandbox.interface import Limits, Sandbox, SandboxError, relative
from r1kit.sandbox.probes import Finding
from r1kit.settings import SettingsError

MAX_REQUEST_BYTES = 32 << 20
_CEILING = Limits(
    wall_s=3600,
    cpu_s=600,
    idle_s=3600,
    memory_mb=4096,
    processes=64,
    file_mb=256,
    files=100_000,
    output_kb=16384,
    open_files=256,
)
_IDLE_S = 60.0


class Server(ThreadingHTTPServer):
    """Serves a sandbox. It runs as many programs at a time as there are processors; further requests wait."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], sandbox: Sandbox, findings: list[Finding], token: str = "") -> None:
        if address[0] not in ("127.0.0.1", "::1", "localhost") and not token:
            raise ValueError(f"other machines can reach {address[0]}: set a token, or listen on 127.0.0.1")
        self.sandbox, self.findings, self.token = sandbox, findings, token
        self.turns = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = _IDLE_S
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        findings = [dataclasses.asdict(finding) for finding in self.server.findings]
        self._serve(None, {"/health": lambda _: {"kind": self.server.sandbox.kind, "findings": findings}})

    def do_POST(self) -> None:
        text = self.headers.get("Content-Length", "")
        length = int(text) if text.isascii() and text.isdigit() else -1
        if not 0 <= length <= MAX_REQUEST_BYTES:
            self.close_connection = True
            self._reply(413, {"error": f"expected a Content-Length of at most {MAX_REQUEST_BYTES} bytes"})
            return
        self._serve(self.rfile.read(length), {"/run": self._run, "/converse": self._converse})

    def _serve(self, body: bytes | None, paths: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
        expected, actual = f"Bearer {self.server.token}", self.headers.get("Authorization", "")
        if self.server.token and not hmac.compare_digest(actual.encode(), expected.encode()):
            self._reply(401, {"error": "the token is missing or wrong"})
        elif self.path not in paths:
            self._reply(404, {"error": f"there is no {self.path}: expected {', '.join(paths)}"})
        else:
            try:
                request = {} if body is None else json.loads(body)
                if not isinstance(request, dict):
                    raise TypeError("the body must be an object")
                self._reply(200, paths[self.path](request))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                self._reply(400, {"error": f"{type(error).__name__}: {error}"})
            except SandboxError as error:
                self._reply(503, {"error": str(error)})

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, files = _required_text(request.get("stdin", "")), _files(request, "files")
        with self.server.turns:
            program = _required_text(request["program"])
            done = self.server.sandbox.run(program, stdin=stdin, files=files, limits=_limits(request))
        return {"execution": dataclasses.asdict(done)}

    def _converse(self, request: dict[str, Any]) -> dict[str, Any]:
        checker, program = _required_text(request["checker"]), _required_text(request["program"])
        with self.server.turns:
            checker_files, files = _files(request, "checker_files"), _files(request, "files")
            first, second = self.server.sandbox.converse(
                checker, program, checker_files=checker_files, files=files, limits=_limits(request)
            )
        return {"checker": dataclasses.asdict(first), "program": dataclasses.asdict(second)}

    def _reply(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests hold model text, and there are very many."""


def _required_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _files(request: Mapping[str, Any], field: str) -> dict[str, str]:
    value = request.get(field, {})
    if not isinstance(value, dict):
        raise TypeError(f"files is {type(value).__name__}: expected an object of names and texts")
    return relative({str(name): _required_text(text) for name, text in value.items()})


def _limits(request: Mapping[str, Any]) -> Limits:
    """The requested limits; raises `SettingsError` if one is above the server's ceiling."""
    limits = Limits.parse(request.get("limits", {}))
    for name, value in limits.model_dump().items():
        if value > getattr(_CEILING, name):
            raise SettingsError(f"{name} is {value}: this server allows at most {getattr(_CEILING, name)}")
    return limits
