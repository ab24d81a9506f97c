"""Calls between tests and program, which are two processes: plain data travels by value, everything else by handle.

Both sides write one JSON message per line. JSON types are sent as they are, other plain types are tagged: `(1, {2})` is
`{"tuple": [1, {"set": [2]}]}`. Other objects stay in their process, and the other side gets a handle to call. Decoding
creates only built-in values, so `==` is safe on anything that an untrusted side sends.

This file also runs inside the sandbox: standard library only, Python 3.9 and later.
"""

from __future__ import annotations

import builtins
import json
import os
import select
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any

MAX_LINE = 4 << 20
SILENT = "no reply in time"
_MAX_ITEMS = 100_000  # taken from an iterator, which may be endless
PLAIN_INT = 1 << 53
_BOXES: tuple[tuple[type, str], ...] = ((tuple, "tuple"), (set, "set"), (frozenset, "frozenset"))


class Gone(Exception):
    """The other side is silent or dead, or sends invalid messages."""


class Refused(Exception):
    """A value that is neither plain data nor allowed as a handle."""


Refer = Callable[[Any], Any]


def encode(value: Any, refer: Refer) -> Any:
    """A value as JSON data; `refer` encodes values that are not plain. Subclasses become their plain base class."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if -PLAIN_INT < value < PLAIN_INT else {"int": hex(value)}
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list):
        return [encode(item, refer) for item in value]
    if isinstance(value, (tuple, set, frozenset)):
        tag = next(tag for kind, tag in _BOXES if isinstance(value, kind))
        return {tag: [encode(item, refer) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, refer), encode(item, refer)] for key, item in value.items()]}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    name = getattr(value, "__name__", None)
    if isinstance(value, type) and isinstance(name, str) and getattr(builtins, name, None) is value:
        return {"type": name}
    if isinstance(value, (Iterator, range, KeysView, ValuesView, ItemsView)):
        return {"iterator": [encode(item, refer) for _, item in zip(range(_MAX_ITEMS), value)]}  # noqa: B905
    return refer(value)


def decode(data: Any, resolve: Callable[[str, Any], Any]) -> Any:
    """The value of JSON data; `resolve(tag, content)` decodes the output of `refer`. Invalid data raise ValueError."""
    if isinstance(data, list):
        return [decode(item, resolve) for item in data]
    if not isinstance(data, dict):
        return data
    [(tag, content)] = data.items()
    for kind, name in _BOXES:
        if tag == name:
            return kind(decode(item, resolve) for item in content)
    if tag == "dict":
        return {decode(key, resolve): decode(item, resolve) for key, item in content}
    if tag == "int":
        return int(content, 16)
    if tag == "bytes":
        return bytes.fromhex(content)
    if tag == "complex":
        return complex(*content)
    if tag == "iterator":
        return iter([decode(item, resolve) for item in content])
    if tag == "type" and isinstance(builtin := getattr(builtins, str(content), None), type):
        return builtin
    return resolve(tag, content)


class Peer:
    """One end of the conversation: asks the other side, and answers its questions in the meantime."""

    def __init__(self, source: int, target: int, answer: Callable[[Mapping[str, Any]], Any]) -> None:
        self.source, self.target, self.answer = source, target, answer
        self.buffer, self.gone = bytearray(), ""

    def ask(self, question: Mapping[str, Any], seconds: float | None) -> Mapping[str, Any]:
        """The reply to a question; once it has raised `Gone`, it always does."""
        self.send(question)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            message = self.receive(deadline)
            if "do" not in message:
                return message
            self.send(self.answer(message))

    def serve(self) -> None:
        """Answer questions until the other side ends."""
        while True:
            try:
                message = self.receive(None)
            except Gone:
                return
            self.send(self.answer(message))

    def send(self, message: Mapping[str, Any]) -> None:
        if self.gone:
            raise Gone(self.gone)
        line = json.dumps(message).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self.target, line) :]
        except OSError:
            raise self._lost("the program ended") from None

    def receive(self, deadline: float | None) -> Mapping[str, Any]:
        start = 0
        while (end := self.buffer.find(b"\n", start)) < 0:
            start = len(self.buffer)
            if start > MAX_LINE:
                raise self._lost(f"it sent more than {MAX_LINE} bytes at once")
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self.source], [], [], left)[0]:
                raise self._lost(SILENT)
            piece = os.read(self.source, 65536)
            if not piece:
                raise self._lost("the program ended")
            self.buffer += piece
        line, self.buffer = bytes(self.buffer[:end]), self.buffer[end + 1 :]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise self._lost("it sent an invalid message")
        return message

    def _lost(self, reason: str) -> Gone:
        self.gone = reason
        return Gone(reason)
