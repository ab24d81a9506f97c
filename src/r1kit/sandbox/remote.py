"""The sandbox `remote`: a client of a server that runs programs in its own sandbox, over HTTP.

    GET  /health    -> {"kind": "bubblewrap", "findings": [{"what": ..., "held": true, "detail": ...}, ...]}
    POST /run       {"program": ..., "stdin": ..., "files": {...}, "limits": {...}} -> {"execution": E}
    POST /converse  {"checker": ..., "program": ..., "checker_files": {...}, "files": {...}, "limits": {...}}
                    -> {"checker": E, "program": E}

E is an `Execution` as JSON; limits are the fields of `Limits`. If the server has a token, requests need the header
`Authorization: Bearer TOKEN`. An error has the body {"error": text, "status": number}: 4xx means that the request is
wrong, 429 that the server is busy, 503 that its sandbox failed. An answer that takes long begins with status 200 and
spaces, signs of life; whether it is an error, the body says.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from r1kit.redaction import redacted
from r1kit.sandbox.interface import DEFAULT, NONE, Execution, Files, Limits, SandboxError
from r1kit.sandbox.probes import Finding

EXECUTION, FINDINGS = TypeAdapter(Execution), TypeAdapter(list[Finding])
_TRIES = 3
_SILENCE_S = 90.0  # without a sign of life from the server
_BUSY_S = 600.0  # during which a busy server is asked again


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
            raise SandboxError(f"the remote sandbox's url is {redacted(url)!r}: expected http://... or https://...")
        client = cls(url.rstrip("/"), token)
        if broken := [finding.what for finding in client.findings() if not finding.held]:
            raise SandboxError(f"the sandbox at {redacted(url)} fails its self-test: {', '.join(broken)}")
        return client

    def findings(self) -> list[Finding]:
        """The results of the server's self-test; raises `SandboxError` if it reports none."""
        reported = self.request("/health").get("findings")
        try:
            findings = FINDINGS.validate_json(json.dumps(reported), strict=True)
        except ValidationError:
            findings = []
        if not findings:
            raise SandboxError(f"{redacted(self.url)} reports no self-test: it is not a sandbox server")
        return findings

    def run(self, program: str, *, stdin: str = "", files: Files = NONE, limits: Limits = DEFAULT) -> Execution:
        """See `Sandbox`."""
        body = {"program": program, "stdin": stdin, "files": dict(files), "limits": limits.model_dump()}
        return _execution(self.request("/run", body).get("execution"))

    def converse(
        self, checker: str, program: str, *, checker_files: Files = NONE, files: Files = NONE, limits: Limits = DEFAULT
    ) -> tuple[Execution, Execution]:
        """See `Sandbox`."""
        body = {"checker": checker, "program": program, "checker_files": dict(checker_files), "files": dict(files)}
        body["limits"] = limits.model_dump()
        answer = self.request("/converse", body)
        return _execution(answer.get("checker")), _execution(answer.get("program"))

    def request(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request. Transient errors (no connection, 5xx, a truncated reply) are retried: runs have no effects."""
        data = None if body is None else json.dumps(body).encode()
        give_up, failures = time.monotonic() + _BUSY_S, 0
        while True:
            status, answer = self._reply(path, data)
            if status == 200:
                return answer
            reason = f"status {status}: {answer['error']}" if status else answer["error"]
            if 400 <= status < 500 and status != 429:
                raise SandboxError(f"the sandbox at {redacted(self.url)} refuses {path}: {reason}")
            failures += status != 429
            if failures == _TRIES or time.monotonic() > give_up:
                raise SandboxError(f"the sandbox at {redacted(self.url)} does not answer {path}: {reason}")
            time.sleep(random.uniform(0.2, 1.0))  # clients of a busy server must not all come back at once

    def _reply(self, path: str, data: bytes | None) -> tuple[int, dict[str, Any]]:
        """The status and body of one reply. Status 0: there was none that could be read; "error" says why."""
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=_SILENCE_S) as reply:
                answer = json.load(reply)
            if not isinstance(answer, dict):
                return 0, {"error": f"the reply is not a JSON object: {str(answer)[:80]!r}"}
            status = answer.get("status") if "error" in answer else 200
            return (status if isinstance(status, int) else 0), answer
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(500).decode("utf-8", "replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):  # not our server's JSON
                text = str(json.loads(text)["error"])
            return error.code, {"error": text}
        except urllib.error.URLError as error:
            return 0, {"error": getattr(error.reason, "strerror", None) or str(error.reason)}
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            return 0, {"error": f"{type(error).__name__}: {error}"}


def _execution(value: Any) -> Execution:
    """An execution from JSON; raises `SandboxError` for anything else."""
    try:
        return EXECUTION.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        text = f"{str(value)[:200]!r} ({error.error_count()} faults)"
        raise SandboxError(f"the remote sandbox sent no valid execution: {text}") from None
