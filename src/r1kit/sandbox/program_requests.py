"""What the bodies of requests to a sandbox server mean, and their answers; see `r1kit.sandbox.remote`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from r1kit.sandbox.interface import Abandon, Abandoned, Limits, SandboxError, relative
from r1kit.sandbox.local import LocalSandbox
from r1kit.settings import SettingsError

CEILING = Limits(
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
Answer = tuple[int, dict[str, Any]]  # status and body
Work = Callable[[LocalSandbox, Mapping[str, Any], Abandon], dict[str, Any]]


def answer_body(sandbox: LocalSandbox, body: bytes, work: Work, abandon: Abandon) -> Answer:
    """The answer to one request; an error is an answer too."""
    try:
        request = json.loads(body)
        if not isinstance(request, dict):
            raise TypeError("the body must be an object")
        return 200, work(sandbox, request, abandon)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return error_answer(400, f"{type(error).__name__}: {error}")
    except SandboxError as error:
        return error_answer(503, str(error))
    except Abandoned:
        return error_answer(503, "the run was abandoned")


def error_answer(status: int, reason: str) -> Answer:
    return status, {"error": reason, "status": status}


def run(sandbox: LocalSandbox, request: Mapping[str, Any], abandon: Abandon) -> dict[str, Any]:
    """The answer to a request to /run."""
    stdin, files = _required_text(request.get("stdin", "")), _files(request, "files")
    program, limits = _required_text(request["program"]), _limits(request)
    done = sandbox.run(program, stdin=stdin, files=files, limits=limits, abandon=abandon)
    return {"execution": dataclasses.asdict(done)}


def converse(sandbox: LocalSandbox, request: Mapping[str, Any], abandon: Abandon) -> dict[str, Any]:
    """The answer to a request to /converse."""
    checker, program = _required_text(request["checker"]), _required_text(request["program"])
    checker_files, files = _files(request, "checker_files"), _files(request, "files")
    first, second = sandbox.converse(
        checker, program, checker_files=checker_files, files=files, limits=_limits(request), abandon=abandon
    )
    return {"checker": dataclasses.asdict(first), "program": dataclasses.asdict(second)}


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
        if value > getattr(CEILING, name):
            raise SettingsError(f"{name} is {value}: this server allows at most {getattr(CEILING, name)}")
    return limits
