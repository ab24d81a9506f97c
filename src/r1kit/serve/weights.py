"""New weights for the model of a server, by the routes of vLLM 0.30: pause, load from disk, resume.

A client that trains the model claims the server (`engines/remote/claim.py`) and writes a hand-over
(`models/handover.py`) into a folder that the server was started with. Completions that run or wait when the pause
begins are finished by the old weights; requests that come during the pause wait for the new ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from r1kit import __version__
from r1kit.engines.local import LocalEngine
from r1kit.engines.remote.claim import START, Claim
from r1kit.models.handover import Handover, checksum, distinct
from r1kit.net.connection import until_disconnect
from r1kit.net.requests import read_body
from r1kit.serve.batch import Batch
from r1kit.serve.errors import APIError
from r1kit.store import StoreError

MAX_BODY = 64 * 1024  # bytes
METHODS = "r1kit_facts, r1kit_claim or r1kit_load_weights"


class WeightUpdates:
    """The routes, and the version of the weights that the model has."""

    def __init__(self, batch: Batch, folder: Path) -> None:
        self.batch, self.claim = batch, Claim(folder)
        self.version = START
        self.broken = ""  # why the model has only a part of the last weights
        self._resumed = asyncio.Event()
        self._resumed.set()
        self.routes = [
            Route("/pause", self.pause, methods=["POST"]),
            Route("/resume", self.resume, methods=["POST"]),
            Route("/is_paused", self.is_paused),
            Route("/collective_rpc", self.call, methods=["POST"]),
        ]

    async def ready(self, request: Request) -> None:
        """Return when completions may start; raises `APIError` if the model is damaged."""
        while not self._resumed.is_set():
            await until_disconnect(request.receive, self._resumed.wait())
        if self.broken:
            raise APIError(503, f"the model has only a part of its new weights ({self.broken}): load them again")

    def end_pause(self) -> None:
        """Let requests that wait go on: the client that began the pause may be gone."""
        self._resumed.set()

    async def pause(self, request: Request) -> JSONResponse:
        """Let completions that run or wait end, and hold new requests back."""
        mode = request.query_params.get("mode", "abort")
        if mode != "wait":
            raise APIError(400, f"mode is {mode!r:.20}: this server finishes what has begun, so give mode=wait")
        self._resumed.clear()
        try:
            await until_disconnect(request.receive, self.batch.until_empty())
        except ClientDisconnect:  # nobody is left who would resume
            self.end_pause()
            raise
        return JSONResponse({"status": "paused"})

    async def resume(self, request: Request) -> JSONResponse:
        self.end_pause()
        return JSONResponse({"status": "resumed"})

    async def is_paused(self, request: Request) -> JSONResponse:
        return JSONResponse({"is_paused": not self._resumed.is_set()})

    async def call(self, request: Request) -> JSONResponse:
        """The methods of `engines.remote.vllm_worker`, with the same answers."""
        body = await _body(request)
        method, options = body.get("method"), body.get("kwargs") or {}
        folder = str(options.get("folder", "")) if isinstance(options, dict) else ""
        try:
            if method == "r1kit_facts":
                result = facts(self.batch.engine)
            elif method == "r1kit_claim":
                self.claim.take(folder)
                result = {"version": self.version}
            elif method == "r1kit_load_weights":
                result = await self._load(self.claim.handed_over(folder))
            else:
                raise APIError(400, f"there is no method {method!r:.60}: expected {METHODS}", param="method")
        except PermissionError as error:
            raise APIError(403, str(error)) from None
        except StoreError as error:
            raise APIError(409, str(error)) from None
        except (OSError, ValueError) as error:  # a loop of links, a null byte
            raise APIError(400, f"the folder {folder!r:.200} cannot be read: {error}") from None
        return JSONResponse({"results": [result]})

    async def _load(self, folder: Path) -> dict[str, Any]:
        if self._resumed.is_set():
            raise APIError(409, "completions may start while the weights change: POST /pause?mode=wait before")
        try:
            handover = await asyncio.to_thread(checked, self.batch.engine, folder)

            def load() -> dict[str, Any]:
                result = load_checked(self.batch.engine, handover, self._set_broken)
                self.version = handover.name  # here, because it is loaded to the end even if the client is gone
                return result

            loaded: dict[str, Any] = await self.batch.between(load)
            return loaded
        except (StoreError, OSError, ValueError) as error:
            raise APIError(400, f"{folder}: {error}") from error

    def _set_broken(self, reason: str) -> None:
        self.broken = reason


async def _body(request: Request) -> dict[str, Any]:
    try:
        values = json.loads(await read_body(request, MAX_BODY, "it names a method and a folder"))
    except (ValueError, RecursionError) as error:
        raise APIError(400, f"the body is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise APIError(400, f"the body is {values!r:.60}: expected a JSON object")
    return values


def facts(engine: LocalEngine) -> dict[str, Any]:
    """What a client must know before it trains the model: see `engines.remote.vllm_worker`."""
    matrix = next(weight for weight in engine.policy.model.parameters() if weight.dim() > 1)
    return {
        "engine": f"r1kit {__version__}",
        "dtype": str(matrix.dtype).removeprefix("torch."),
        "context": engine.context,
        "logprobs": "processed_logprobs",
        "replicas": 1,
        "holds_checkpoint": True,
    }


def checked(engine: LocalEngine, folder: Path) -> Handover:
    """The hand-over in a folder. Raises `StoreError` or ValueError unless its tensors are exactly those of the model.

    Names, types and sizes are compared with the model's before a tensor is read.
    """
    handover = Handover.read(folder)
    own = dict(distinct(engine.policy.model.state_dict()))
    if wrong := sorted(own.keys() ^ handover.tensors.keys()):
        side = "is missing" if wrong[0] in own else "is not one of the model"
        raise ValueError(
            f"the weight {wrong[0]} {side} ({len(wrong)} names differ): hand over all weights of the model"
        )
    for name, tensor in own.items():
        ours, theirs = _kind(tensor), {key: handover.tensors[name][key] for key in ("dtype", "shape")}
        if ours != theirs:
            raise ValueError(f"the weight {name} is {theirs}, and the model's is {ours}: hand over the same model")
    return handover


def load_checked(engine: LocalEngine, handover: Handover, set_broken: Callable[[str], None]) -> dict[str, Any]:
    """Copy the tensors into the model; returns the checksums of what was read and of what the model holds then.

    Files that were changed or damaged since they were written are found before the model changes.
    """
    tensors, before = dict(handover.load()), held_by(engine)
    read = checksum(tensors.items())
    if read != handover.checksum:
        raise StoreError("its files are damaged: their hashes differ from the recorded ones")
    set_broken("they were not copied to the end")
    engine.load_weights(tensors.items(), version=engine.version + 1)
    set_broken("")
    return {"read": read, "before": before, "held": held_by(engine)}


def held_by(engine: LocalEngine) -> str:
    """The checksum of a model's weights."""
    return checksum(distinct(engine.policy.model.state_dict()))


def _kind(tensor: Any) -> Mapping[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
