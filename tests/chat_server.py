"""A real HTTP server that speaks chat completions, for tests: it answers by a rule, and fails as real ones do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("500", "429", "silent", "trickle", "malformed", "not-json", "dropped", "cut", "empty", "null", "error-as-200")


def completion(text: str | None, **message: Any) -> dict[str, Any]:
    """A chat completion's JSON with 7 prompt tokens and 3 reply tokens."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
    return {"id": "1", "choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


class ChatServer(ThreadingHTTPServer):
    """`answer(body)` gives a text, or a whole reply as a dict; `fault(number, body)` names a fault, or None.

    A fault is one of `FAULTS` or (status, headers, JSON). `asked` holds the body of every request, `answered` of those
    that got an answer.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, answer: Callable[[dict[str, Any]], Any], fault: Callable[[int, dict[str, Any]], Any]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.fault = answer, fault
        self.asked: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.closing, self.lock = threading.Event(), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            number = len(self.server.asked)
            self.server.asked.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        fault = self.server.fault(number, body)
        if fault is None:
            reply = self.server.answer(body)
            with self.server.lock:
                self.server.answered.append(body)
            self._send(200, completion(reply) if isinstance(reply, str) else reply)
        elif isinstance(fault, tuple):
            self._send(fault[0], fault[2], **fault[1])
        else:
            self._fail(fault)

    def _fail(self, fault: str) -> None:
        if fault == "silent":
            self.server.closing.wait()
        elif fault == "trickle":  # a byte now and then: every read is in time, the reply never is
            self._start(200, 10_000)
            while not self.server.closing.wait(0.02):
                self.wfile.write(b" ")
        elif fault == "dropped":
            self.close_connection = True
        elif fault == "cut":
            self._start(200, 10_000)
            self.wfile.write(b'{"choices": [{"mess')
            self.close_connection = True
        elif fault in ("malformed", "not-json"):
            text = b'{"choices": [{"message": ' if fault == "malformed" else b"<html>502 Bad Gateway</html>"
            self._start(200, len(text), "application/json" if fault == "malformed" else "text/html")
            self.wfile.write(text)
        elif fault in ("500", "429"):
            headers = {"retry-after": "0"} if fault == "429" else {}
            self._send(int(fault), {"error": {"message": f"fault {fault}"}}, **headers)
        else:
            replies = {"empty": {"choices": []}, "null": completion(None), "error-as-200": {"error": {"message": "no"}}}
            self._send(200, replies[fault])

    def _send(self, status: int, reply: Any, **headers: str) -> None:
        data = json.dumps(reply).encode()
        self._start(status, len(data), **headers)
        self.wfile.write(data)

    def _start(self, status: int, length: int, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(
    answer: Callable[[dict[str, Any]], Any], fault: Callable[[int, dict[str, Any]], Any] = lambda *_: None
) -> Iterator[ChatServer]:
    """A server in a thread of this process, which ends with the block."""
    server = ChatServer(answer, fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
