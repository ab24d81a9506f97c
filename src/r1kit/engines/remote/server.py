"""A client of one server that samples and takes weights, by the routes of vLLM 0.30."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from r1kit.engines import EngineError, PromptError
from r1kit.engines.openai.pace import retry_after
from r1kit.redaction import redacted, redacted_text

QUICK_S = 60.0  # for answers that need no work of the model
BUSY_S = 600.0  # during which a server without room is asked again
FIRST_WAIT_S = 0.5
REMEDIES = {
    401: "put the server's key into the environment variable that api_key_env names",
    409: "give each run servers of its own",
    403: "give --runs, or servers.weights, below the folder that the server was started with",
    404: "start vLLM with VLLM_SERVER_DEV_MODE=1, or r1kit serve with --weights-from",
}


class ServerLost(Exception):
    """The server does not answer, or answers with an error of its own."""


@dataclass(frozen=True)
class Facts:
    """What a server says of its model.

    `dtype` is that of its matrices. `holds_checkpoint`: its weights have the names and shapes of the checkpoint, so
    their checksum must be that of the hand-over; vLLM fuses and shards them.
    """

    engine: str
    dtype: str
    context: int
    logprobs: str
    replicas: int
    holds_checkpoint: bool


@dataclass
class Server:
    """One server. `version` is what it must call its weights; `model` is its name for the model."""

    url: str
    key: str = field(default="", repr=False)
    timeout_s: float = 1800.0
    model: str = ""
    version: str = ""
    is_lost: bool = False  # until it takes weights again

    @property
    def name(self) -> str:
        return str(redacted(self.url))

    def facts(self) -> Facts:
        """What the server says of itself. Raises `EngineError` for a server that cannot take weights."""
        cards = self.get("/v1/models").get("data")
        if not isinstance(cards, list) or not cards or not isinstance(cards[0], dict):
            raise EngineError(f"{self.name} lists no model at /v1/models: is it an OpenAI-compatible server?")
        self.model = str(cards[0].get("id", ""))
        answers = self.rpc("r1kit_facts", {})
        names = Facts.__dataclass_fields__.keys()
        if not answers or any(answer != answers[0] for answer in answers) or not names <= answers[0].keys():
            raise EngineError(
                f"{self.name} has no r1kit_facts: start vLLM with --worker-extension-cls "
                "r1kit.engines.remote.vllm_worker.WeightsFromDisk"
            )
        return Facts(**{name: answers[0][name] for name in names})

    def claim(self, folder: Path) -> str:
        """Claim the server for the run that hands over below a folder; returns what it calls its weights.

        Raises `EngineError` while another run that has claimed it is alive.
        """
        versions = {str(answer.get("version")) for answer in self.rpc("r1kit_claim", {"folder": str(folder.resolve())})}
        if len(versions) != 1:
            raise EngineError(f"{self.name}: its workers have different weights ({', '.join(sorted(versions))})")
        return versions.pop()

    def rpc(self, method: str, options: Mapping[str, str]) -> list[dict[str, Any]]:
        """What each worker of the server answers."""
        results = self.post("/collective_rpc", {"method": method, "kwargs": dict(options)}, self.timeout_s)
        answers = results.get("results")
        if not isinstance(answers, list) or not all(isinstance(answer, dict) for answer in answers):
            raise EngineError(
                f"{self.name} answers {method} with {str(results)[:200]!r}: expected results of its workers"
            )
        for answer in answers:
            if "error" in answer:
                raise EngineError(f"{self.name} refuses {method}: {self._clean(str(answer['error']))}")
        return answers

    def get(self, path: str) -> dict[str, Any]:
        return self._request(path, None, QUICK_S, "")

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float, prompt_id: str = "") -> dict[str, Any]:
        """The answer. Raises `ServerLost` if there is none, `PromptError` if the server blames the prompt `prompt_id`,
        and `EngineError` for any other refusal. A server without room is asked again."""
        return self._request(path, body, timeout_s, prompt_id)

    def _request(self, path: str, body: Mapping[str, Any] | None, timeout_s: float, prompt_id: str) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        give_up, wait_s = time.monotonic() + BUSY_S, FIRST_WAIT_S
        while True:
            request = urllib.request.Request(self.url + path, data=data, headers={"Content-Type": "application/json"})
            if self.key:
                request.add_header("Authorization", f"Bearer {self.key}")
            try:
                with urllib.request.urlopen(request, timeout=timeout_s) as reply:
                    text = reply.read()
                answer = json.loads(text) if text else {}
                if not isinstance(answer, dict):
                    raise ServerLost(f"{self.name} answers {path} with {text[:80]!r}: expected a JSON object")
                return answer
            except urllib.error.HTTPError as error:
                with error:
                    reason = self._reason(error)
                if error.code == 429 and time.monotonic() < give_up:
                    time.sleep(max(wait_s, min(retry_after(dict(error.headers)), 30.0)))
                    wait_s = min(2 * wait_s, 10.0)
                    continue
                message = f"{self.name} refuses {path} (status {error.code}: {reason})"
                if error.code >= 500 or error.code == 429:
                    raise ServerLost(message) from None
                if prompt_id and error.code in (400, 413, 422):
                    raise PromptError(f"{message}, prompt {prompt_id}", prompt_id) from None
                remedy = REMEDIES.get(error.code, "look into the server's log")
                raise EngineError(f"{message}: {remedy}") from None
            except urllib.error.URLError as error:
                raise ServerLost(f"{self.name} does not answer ({error.reason})") from None
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                raise ServerLost(f"{self.name} does not answer {path} ({type(error).__name__}: {error})") from None

    def _reason(self, error: urllib.error.HTTPError) -> str:
        text = error.read(4000).decode("utf-8", "replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            values = json.loads(text)
            reason = values.get("error", values.get("detail"))
            text = str(reason["message"] if isinstance(reason, dict) else reason)
        return self._clean(" ".join(text.split()))

    def _clean(self, text: str) -> str:
        return redacted_text(text, [self.key] if self.key else [])[:400]
