"""Every reader of outside data as a function of bytes.

A reader gives a value, or raises one of the errors that users see; anything else is a bug.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1kit import cli
from r1kit.chat import saved
from r1kit.cli.values import engine
from r1kit.commands.doctor_command import doctor
from r1kit.commands.verify_run_command import verify_run
from r1kit.content import require_sealed
from r1kit.data.messages import parse_messages
from r1kit.data.rows import numbered_rows
from r1kit.engines.engine_settings import parse_engine
from r1kit.engines.openai.responses import Malformed, read_reply
from r1kit.models.known import shapes_in
from r1kit.recipes.file import RecipeFile
from r1kit.redaction import redacted, redacted_text
from r1kit.rewards import RewardSpec
from r1kit.sandbox.interface import Limits
from r1kit.sandbox.program_requests import answer_body, run
from r1kit.store import read_json, read_object
from r1kit.tasks import check_file
from r1kit.verifiers import VERIFIERS, verify_all
from r1kit.verifiers.code.fenced import extract_program
from r1kit.verifiers.code.tests import parse_tests

EXPECTED = (*cli.USER_ERRORS, argparse.ArgumentTypeError, Malformed)
SANDBOXED = ("code", "reasoning_gym")  # run programs, or need an extra


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def in_file(name: str, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    """A reader of files as one of bytes."""

    def from_bytes(data: bytes) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, name)
            path.write_bytes(data)
            return read(path)

    return from_bytes


def judged(data: bytes) -> Any:
    """All verifiers on a response and a reference, the two halves of the data."""
    response, _, reference = text_of(data).partition("\0")
    names = [name for name in VERIFIERS if name not in SANDBOXED]
    return [verify_all(name, [response], [reference])[0].outcome for name in names]


class NoSandbox:
    """Answers without running anything."""

    kind = "none"

    def run(self, program: str, **_: Any) -> Any:
        raise ValueError("not run")


READERS: dict[str, Callable[[bytes], Any]] = {
    "jsonl": in_file("x.jsonl", lambda path: list(numbered_rows(path))),
    "json": in_file("x.json", lambda path: list(numbered_rows(path))),
    "jsonl.gz": in_file("x.jsonl.gz", lambda path: list(numbered_rows(path))),
    "parquet": in_file("x.parquet", lambda path: list(numbered_rows(path))),
    "task file": in_file("x.jsonl", lambda path: check_file(path).as_dict()),
    "read_json": in_file("x.json", read_json),
    "read_object": in_file("x.json", read_object),
    "recipe": in_file("x.toml", RecipeFile.read),
    "chat format": in_file("chat_format.json", saved.read),
    "safetensors header": in_file("x.safetensors", shapes_in),
    "checksums": in_file("checksums.json", lambda path: require_sealed(path.parent)),
    "plan of a run": in_file("plan.json", lambda path: verify_run(path.parent)),
    "stage": in_file("stage.json", lambda path: (verify_run(path.parent), doctor(path.parent))),
    "metrics": in_file("metrics.jsonl", lambda path: doctor(path.parent)),
    "engine option": lambda data: engine("{" + text_of(data)),
    "engine settings": lambda data: parse_engine(json.loads(data)),
    "messages": lambda data: parse_messages(json.loads(data)),
    "reward spec": lambda data: RewardSpec.parse(json.loads(data)),
    "limits": lambda data: Limits.parse(json.loads(data)),
    "server reply": lambda data: read_reply(text_of(data)),
    "sandbox request": lambda data: answer_body(NoSandbox(), data, run, None),  # type: ignore[arg-type]
    "tests of code": lambda data: parse_tests(text_of(data)),
    "program in a response": lambda data: extract_program(text_of(data)),
    "verifiers": judged,
    "redaction": lambda data: redacted_text(text_of(data)) + str(redacted(text_of(data))),
}


def read(name: str, data: bytes) -> None:
    """Read and expect no other error than those that users see."""
    with contextlib.suppress(EXPECTED):
        READERS[name](data)
