"""Runs the program under test in its own sandbox: loads it, and answers the calls of the other side.

The program may do anything here, even to the functions of this file. No expected value ever arrives here, and all
output counts as the program's own answer.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from r1kit.verifiers.code.wire import Peer, Refused, decode, encode


class Program:
    """The loaded program, and the objects for which the other side has handles."""

    def __init__(self, sources: list[str], seconds: float, thorough: bool) -> None:
        self.sources, self.seconds, self.thorough = sources, seconds, thorough
        self.module = type(sys)("program")  # not __main__: main blocks read input and are not tested
        sys.modules["program"] = self.module
        self.objects: list[Any] = []
        self.peer: Peer | None = None

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to one question; an exception of the program becomes part of the reply."""
        try:
            signal.setitimer(signal.ITIMER_PROF, self.seconds)
            try:
                return self.do(question)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except BaseException as error:  # a program may also raise SystemExit or KeyboardInterrupt
            if isinstance(error, TimeoutError) and not self.thorough:
                os._exit(0)  # one call is too slow, so the other calls do not matter
            return {"id": question.get("id"), "raised": type(error).__name__, "message": str(error)[:500]}

    def do(self, question: Mapping[str, Any]) -> dict[str, Any]:
        kind, reply = question["do"], {"id": question.get("id")}
        if kind == "load":
            for number, source in enumerate(self.sources):
                exec(compile(source, f"program{number or ''}.py", "exec"), self.module.__dict__)
            return reply
        if kind == "call":
            return {**reply, **self.call(self.find(question["on"]), question["args"], question["kwargs"])}
        target = self.find(question["on"])
        if kind == "set":
            setattr(target, question["name"], self.decoded(question["value"]))
            return reply
        return {**reply, "value": self.encoded(getattr(target, question["name"]) if kind == "get" else target)}

    def call(self, function: Any, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The result, and the arguments if the function changed them in place."""
        values = [self.decoded(item) for item in args]
        result = function(*values, **{name: self.decoded(item) for name, item in kwargs.items()})
        reply = {"value": self.encoded(result)}
        after = [self.encoded(value) if isinstance(value, (list, dict, set)) else None for value in values]
        if any(now is not None and now != before for now, before in zip(after, args)):  # noqa: B905
            reply["args"] = after
        return reply

    def find(self, on: Any) -> Any:
        """An object by handle or name: a top-level name of the program, or a method of its class Solution."""
        if isinstance(on, int):
            return self.objects[on]
        if on in self.module.__dict__:
            return self.module.__dict__[on]
        solution = self.module.__dict__.get("Solution")
        if isinstance(solution, type) and hasattr(solution, on):
            return getattr(solution(), on)
        raise NameError(f"name {on!r} is not defined")

    def encoded(self, value: Any) -> Any:
        return encode(value, self.refer)

    def decoded(self, data: Any) -> Any:
        return decode(data, self.resolve)

    def refer(self, value: Any) -> Any:
        number = next((place for place, known in enumerate(self.objects) if known is value), len(self.objects))
        if number == len(self.objects):
            self.objects.append(value)
        is_function = callable(value) and not isinstance(value, type)
        return {"function" if is_function else "object": [number, type(value).__name__]}

    def resolve(self, tag: str, content: Any) -> Any:
        if tag == "handle":
            return self.objects[content]
        if tag == "callback":
            return lambda *args: self.call_back(content, args)
        raise Refused(tag)

    def call_back(self, number: int, args: tuple[Any, ...]) -> Any:
        """Call a function that the tests passed in."""
        assert self.peer is not None
        reply = self.peer.ask({"do": "call", "on": number, "args": [self.encoded(value) for value in args]}, None)
        if "value" not in reply:
            raise RuntimeError(str(reply.get("message")))
        return self.decoded(reply["value"])


def out_of_time(*_: Any) -> None:
    """Signal handler that ends a slow call; a call that catches the exception is ended from outside."""
    raise TimeoutError("out of time")


def main() -> None:
    """Serve on the original standard input and output; the program gets empty ones."""
    with open("job.json", encoding="utf-8") as file:
        job = json.load(file)
    program = Program(job["sources"], job["seconds"], job["thorough"])
    source, target = os.dup(0), os.dup(1)
    empty = os.open(os.devnull, os.O_RDWR)
    os.dup2(empty, 0)
    os.dup2(empty, 1)
    signal.signal(signal.SIGPROF, out_of_time)
    program.peer = Peer(source, target, program.answer)
    program.peer.send({"hello": 1})
    program.peer.serve()
    os._exit(0)


if __name__ == "__main__":
    main()
