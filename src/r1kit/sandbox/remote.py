"""The sandbox `remote`: a client of a server that runs programs in its own sandbox, over HTTP.

    GET  /health    -> {"kind": "bubblewrap", "findings": [{"what": ..., "held": true, "detail": ...}, ...]}
    POST /run       {"program": ..., "stdin": ..., "files": {...}, "limits": {...}} -> {"execution": E}
    POST /converse  {"checker": ..., "program": ..., "checker_files": {...}, "files": {...}, "limits": {...}}
                    -> {"checker": E, "program": E}

E is an `Execution` as JSON; limits are the fields of `Limits`. If the server has a token, requests need the header
`Authorization: Bearer TOKEN`. 4xx means that the request is wrong, 503 that the server's sandbox failed; both have the
body {"error": text}.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from r1kit.sandbox.interface import DEFAULT, NONE, Execution, Files, Limits, SandboxError
from r1kit.sandbox.probes import Finding

EXECUTION, FINDINGS = TypeAdapter(Execution), TypeAdapter(list[Finding])
_TRIES = 3
_QUEUE_SECONDS = 90.0  # added to the program's time limit: the server may have a queue


@dataclass(frozen=True, slots=True)
class Remote:
    """A client of one server; safe to use from any number of threads."""

    url: str
    token: str = field(default="", repr=False)
    kind: str = "remote"

    @classmethod
    def connect(cls, url: str, token: str = "") -> Remote:
        """A client of the server at `url`; raises `SandboxError` unless the server's self-test holds."""
        if not url.startswith(("http://", "https://")):
            raise SandboxError(f"the remote sandbox's url is {url!r}: expected http://... or https://...")
        client = cls(url.rstrip("/"), token)
        if broken := [finding.what for finding in client.findings() if not finding.held]:
            raise SandboxError(f"the sandbox at {url} fails its self-test: {', '.join(broken)}")
        return client

    def findings(self) -> list[Finding]:
        """The results of the server's self-test; raises `SandboxError` if it reports none."""
        reported = self.request("/health").get("findings")
        try:
            findings = FINDINGS.validate_json(json.dumps(reported), strict=True)
        except ValidationError:
            findings = []
        if not findings:
            raise SandboxError(f"{self.url} reports no self-test: it is not a sandbox server")
        return findings

    def run(self, program: str, *, stdin: str = "", files: Files = NONE, limits: Limits = DEFAULT) -> Execution:
        """See `Sandbox`."""
        body = {"program": program, "stdin": stdin, "files": dict(files), "limits": limits.model_dump()}
        return _execution(self.request("/run", body, limits.wall_s).get("execution"))

    def converse(
        self, checker: str, program: str, *, checker_files: Files = NONE, files: Files = NONE, limits: Limits = DEFAULT
    ) -> tuple[Execution, Execution]:
        """See `Sandbox`."""
        body = {"checker": checker, "program": program, "checker_files": dict(checker_files), "files": dict(files)}
        body["limits"] = limits.model_dump()
        answer = self.request("/converse", body, limits.wall_s)
        return _execution(answer.get("checker")), _execution(answer.get("program"))

    def request(self, path: str, body: Mapping[str, Any] | None = None, seconds: float = 0.0) -> dict[str, Any]:
        """One request. Transient errors (no connection, 5xx, a truncated reply) are retried: runs have no effects."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        for attempt in range(1, _TRIES + 1):
            request = urllib.request.Request(self.url + path, data=data, headers=headers)
            try:
                with urllib.request.urlopen(request, timeout=seconds + _QUEUE_SECONDS) as reply:
                    answer = json.load(reply)
                if isinstance(answer, dict):
                    return answer
                reason = f"the reply is not a JSON object: {str(answer)[:80]!r}"
            except urllib.error.HTTPError as error:
                with error:
                    text = error.read(500).decode("utf-8", "replace")
                try:
                    reason = f"status {error.code}: {json.loads(text)['error']}"
                except (ValueError, KeyError, TypeError):  # not our server's JSON
                    reason = f"status {error.code}: {text}"
                if error.code < 500:
                    raise SandboxError(f"the sandbox at {self.url} refuses {path}: {reason}") from None
            except urllib.error.URLError as error:
                reason = getattr(error.reason, "strerror", None) or str(error.reason)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason = f"{type(error).__name__}: {error}"
            if attempt < _TRIES:
                time.sleep(0.2 * attempt)
        raise SandboxError(f"the sandbox at {self.url} does not answer {path}: {reason}")


def _execution(value: Any) -> Execution:
    """An execution from JSON; raises `SandboxError` for anything else."""
    try:
        return EXECUTION.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        text = f"{str(value)[:200]!r} ({error.error_count()} faults)"
        raise SandboxError(f"the remote sandbox sent no valid execution: {text}") from None
