"""The sandbox `remote`: a server that runs programs in a sandbox of its own, spoken to over HTTP.

    GET  /health    -> {"kind": "bubblewrap", "findings": [{"what": ..., "held": true, "detail": ...}, ...]}
    POST /run       {"program": ..., "stdin": ..., "files": {...}, "limits": {...}} -> {"execution": E}
    POST /converse  {"checker": ..., "program": ..., "checker_files": {...}, "files": {...}, "limits": {...}}
                    -> {"checker": E, "program": E}

E is an `Execution` as JSON, limits are the fields of `Limits`. With a token, requests carry `Authorization: Bearer
TOKEN`. 4xx says that the request is wrong, 503 that the server's sandbox is; both come with {"error": text}.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from r1kit.sandbox.interface import DEFAULT, Execution, Limits, SandboxError
from r1kit.sandbox.probes import Finding

_TRIES = 3
_PATIENCE_S = 90.0  # beyond the program's own time: the server may have a queue


@dataclass(frozen=True, slots=True)
class Remote:
    """A client of one server; safe to use from any number of threads."""

    url: str
    token: str = field(default="", repr=False)
    kind: str = "remote"

    @classmethod
    def connect(cls, url: str, token: str = "") -> Remote:
        """A client whose server says that its sandbox holds; raises `SandboxError` otherwise."""
        if not url.startswith(("http://", "https://")):
            raise SandboxError(f"the remote sandbox's url is {url!r}: expected http://... or https://...")
        client = cls(url.rstrip("/"), token)
        if broken := [one.what for one in client.findings() if not one.held]:
            raise SandboxError(f"the sandbox at {url} does not hold: {', '.join(broken)}")
        return client

    def findings(self) -> list[Finding]:
        """What the server reports of its own self-test; raises `SandboxError` where it reports nothing."""
        found = self.ask("/health").get("findings")
        try:
            findings = _findings().validate_json(json.dumps(found), strict=True)
        except ValidationError:
            findings = []
        if not findings:
            raise SandboxError(f"{self.url} reports no self-test: it is no sandbox of this protocol")
        return findings

    def run(
        self, program: str, *, stdin: str = "", files: Mapping[str, str] = {}, limits: Limits = DEFAULT
    ) -> Execution:
        """See `Sandbox`."""
        question = {"program": program, "stdin": stdin, "files": dict(files), "limits": limits.model_dump()}
        return _execution(self.ask("/run", question, limits.wall_s).get("execution"))

    def converse(
        self,
        checker: str,
        program: str,
        *,
        checker_files: Mapping[str, str] = {},
        files: Mapping[str, str] = {},
        limits: Limits = DEFAULT,
    ) -> tuple[Execution, Execution]:
        """See `Sandbox`."""
        question = {
            "checker": checker,
            "program": program,
            "checker_files": dict(checker_files),
            "files": dict(files),
            "limits": limits.model_dump(),
        }
        answer = self.ask("/converse", question, limits.wall_s)
        return _execution(answer.get("checker")), _execution(answer.get("program"))

    def ask(self, path: str, question: Mapping[str, Any] | None = None, seconds: float = 0.0) -> dict[str, Any]:
        """One request; what may pass (no connection, 5xx, a reply cut off) is tried again, as runs have no effects."""
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self.token}"} if self.token else {}
        )
        data = None if question is None else json.dumps(question).encode()
        for attempt in range(1, _TRIES + 1):
            request = urllib.request.Request(self.url + path, data=data, headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=seconds + _PATIENCE_S) as reply:
                    answer = json.load(reply)
                if isinstance(answer, dict):
                    return answer
                reason = f"a reply that is no object: {str(answer)[:80]!r}"
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"status {error.code}: {error.read(500).decode('utf-8', 'replace')}"
                if error.code < 500:
                    break
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
            if attempt < _TRIES:
                time.sleep(0.2 * attempt)
        raise SandboxError(f"the sandbox at {self.url} does not answer {path}: {reason}")


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Execution]:
    return TypeAdapter(Execution)


@lru_cache(maxsize=1)
def _findings() -> TypeAdapter[list[Finding]]:
    return TypeAdapter(list[Finding])


def _execution(value: Any) -> Execution:
    """An execution from JSON; what a server of another protocol sends is an error, not an empty output."""
    try:
        return _adapter().validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise SandboxError(
            f"the remote sandbox sent no execution: {str(value)[:200]!r} ({error.error_count()} faults)"
        ) from None
