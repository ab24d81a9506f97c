"""The command `serve`: loads a model, listens, and drains when it is asked to stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1kit.commands.answering import engine_settings, open_model
from r1kit.engines.engine_settings import LocalEngineSettings
from r1kit.engines.local import LocalEngine
from r1kit.net.address import is_loopback, listening, names_of
from r1kit.pipeline import Progress

MISSING = "the server needs {}: pip install 'r1kit[web]'"


def serve(
    model: str,
    *,
    name: str = "",
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str = "",
    template: str | None = None,
    engine: Mapping[str, Any] | None = None,
    queue: int = 512,
    weights_from: Path | None = None,
) -> None:
    """Serve a model to OpenAI's clients until SIGTERM or Ctrl+C. A second signal ends running answers too.

    `queue` completions may wait while `max_rows` of the engine run. `name` is the model's name for clients. Clients
    with the `key` may replace the weights by those that they wrote below the folder `weights_from`. Raises ValueError
    for an address that other machines can reach, or weights that clients may replace, without a `key`, and if the
    extra is missing.
    """
    try:
        from r1kit.serve.app import Service
        from r1kit.serve.batch import Batch
        from r1kit.serve.process import Server
        from r1kit.serve.prompts import Renderer
    except ModuleNotFoundError as error:
        raise ValueError(MISSING.format(error.name)) from None

    settings = engine_settings(model, engine)
    if not isinstance(settings, LocalEngineSettings):
        raise ValueError(f"only a model that runs here can be served: the engine's kind is {settings.kind!r}")
    if not is_loopback(host) and not key:
        raise ValueError(f"other machines can reach {host}: set R1KIT_API_KEY or --api-key, or listen on 127.0.0.1")
    if weights_from and not key:
        raise ValueError("--weights-from lets clients replace the model's weights: set R1KIT_API_KEY or --api-key")
    if weights_from and not weights_from.is_dir():
        raise ValueError(
            f"there is no folder {weights_from}: --weights-from names the one in which clients write weights"
        )
    if not key.isascii() or key != key.strip():
        raise ValueError("the API key has spaces around it or characters that are not ASCII: no client could send it")
    with listening(host, port) as (opened_socket, address):
        opened = open_model(settings, template, Progress(f"serve {model}"))
        assert isinstance(opened.engine, LocalEngine)
        batch = Batch(opened.engine, settings.max_rows + queue)
        renderer = Renderer(name or model, opened.engine, opened.chat)
        service = Service(renderer, batch, key=key, names=names_of(host), weights_folder=weights_from)

        server = Server(service)
        print(f"{service.renderer.name} at {address}v1", flush=True)
        local = is_loopback(host)
        who = "only this machine reaches it" if local else "other machines with the key reach it, unencrypted"
        print(f"{who}; Ctrl+C finishes open requests, then stops", file=sys.stderr)
        try:
            server.serve_until_stopped(opened_socket)
        except KeyboardInterrupt as stop:
            print(stop, file=sys.stderr, flush=True)
            os._exit(128 + server.stopped_by)  # Python's own exit would wait for the model's step, or abort in it
