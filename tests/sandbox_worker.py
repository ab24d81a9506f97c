"""A process that runs sandboxes as root or as a normal user: one JSON question a line in, one JSON answer a line out.

The interpreter of the tests may lie where a normal user cannot reach it, so everything is imported before the uid goes.
"""

from __future__ import annotations

import ctypes
import dataclasses
import encodings.idna  # noqa: F401 (sockets would import it later)
import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from r1kit.sandbox import Limits, Sandbox, SandboxSettings, open_sandbox
from r1kit.sandbox.probes import examine
from r1kit.verifiers.code.grading import grade_code

USER = 54321


@functools.cache
def sandbox(kind: str) -> Sandbox:
    return open_sandbox(SandboxSettings.parse({"kind": kind}))


def answer(question: dict[str, Any]) -> Any:
    opened = sandbox(question["kind"])
    if question["do"] == "examine":
        return [dataclasses.asdict(finding) for finding in examine(opened, quick=False)]
    if question["do"] == "run":
        return dataclasses.asdict(opened.run(question["program"], limits=Limits(**question["limits"])))
    grade = grade_code(question["response"], question["reference"], sandbox=opened)
    return {"correct": grade.verdict.correct, "share": grade.share, "detail": grade.verdict.detail}


@contextmanager
def workers() -> Iterator[Any]:
    """A function `ask(who, **question)`: skips the test where who or the mechanism is not to be had here."""
    running: dict[str, subprocess.Popen[str]] = {}

    def ask(who: str, **question: Any) -> Any:
        if who == "root" and os.geteuid() != 0:
            pytest.skip("not run as root")
        if who not in running:
            running[who] = subprocess.Popen(
                [sys.executable, __file__, who], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        asked, answers = running[who].stdin, running[who].stdout
        assert asked is not None
        assert answers is not None
        print(json.dumps(question), file=asked, flush=True)
        reply = json.loads(answers.readline())
        if "error" in reply:
            pytest.skip(f"{question['kind']} does not work here: {reply['error']} (apt-get install bubblewrap)")
        return reply["answer"]

    yield ask
    for process in running.values():
        process.communicate()


def main() -> None:
    if sys.argv[1] == "user" and os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(USER, USER, USER)
        os.setresuid(USER, USER, USER)
        os.environ["HOME"] = "/nonexistent"
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # dumpable again, as any process of a normal user is
    for line in sys.stdin:
        try:
            reply = {"answer": answer(json.loads(line))}
        except RuntimeError as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
