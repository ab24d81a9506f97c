"""The one place that opens engines: from settings (teachers, judges, served models) or for a loaded policy."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from r1kit import ranks
from r1kit.chat import ChatFormat, saved
from r1kit.engines import Engine, PolicyEngine
from r1kit.engines.engine_settings import DeviceSettings, EngineSettings, OwnEngineSettings
from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.engines.remote.pool_settings import ServerPoolSettings
from r1kit.pipeline.guards import locked
from r1kit.redaction import resolved
from r1kit.settings import SettingsError, article, import_function
from r1kit.store import storing

if TYPE_CHECKING:
    from r1kit.engines.remote.pool import ServerPool
    from r1kit.models.load import Policy


def open_engine(settings: EngineSettings) -> Engine:
    """Load the model or create the client. Prompts need messages only; a local model renders them with its template."""
    if isinstance(settings, OpenAIEngineSettings):
        from r1kit.engines.openai import OpenAIEngine  # imported here, as is torch below: few runs need both

        return OpenAIEngine(settings)
    if isinstance(settings, OwnEngineSettings):
        factory = import_function(settings.path, "engine")
        try:
            inspect.signature(factory).bind(settings.model, **settings.options)
        except TypeError as error:
            expected = "it is called with the model's name and the options"
            raise SettingsError(f"engine {settings.path!r} does not take its arguments: {error}; {expected}") from None
        engine: Engine = factory(settings.model, **settings.options)
        if not callable(getattr(engine, "generate", None)):
            raise SettingsError(f"engine {settings.path!r} gives {article(engine)}: expected an object with generate")
        return engine
    from r1kit.engines.local.chat_engine import ChatEngine
    from r1kit.models.known import resolve
    from r1kit.models.load import load

    policy = load(settings.model, device=settings.device, compute_dtype=settings.compute_dtype)
    template = settings.template
    if template == "auto":
        template = "chat" if policy.tokenizer.chat_template else "plain"
    model_format, _ = saved.choose(None, resolve(settings.model), policy.tokenizer)
    options = model_format.options if settings.template_options is None else settings.template_options
    # prompts bring their own system message
    chat = ChatFormat(template=template, system="", options=options, date=model_format.date)
    policy.turn(chat)  # refuses a chat template that the format cannot follow
    return ChatEngine(open_policy_engine(settings, policy), chat)


def open_policy_engine(settings: DeviceSettings, policy: Policy) -> PolicyEngine:
    """An engine for a loaded policy; prompts need token ids."""
    from r1kit.engines.local import LocalEngine

    return LocalEngine(policy, max_rows=settings.max_rows)


@contextlib.contextmanager
def open_pool(
    settings: ServerPoolSettings, policy: Policy, folder: Path, say: Callable[[str], None] | None = None
) -> Iterator[ServerPool]:
    """A block with servers that sample from a policy, and have its weights; no other run can use them meanwhile.

    Hand-overs are below `folder`, or below a folder of the same name in `settings.weights`. Raises `EngineError` if a
    server does not answer, cannot take weights, or takes those of another run, and `StoreError` if another run hands
    over in the same folder.
    """
    from r1kit.engines.remote.pool import ServerPool
    from r1kit.engines.remote.server import Server
    from r1kit.models.load import named_weights

    key = os.environ.get(settings.api_key_env, "").strip()
    servers = [Server(str(resolved(url, "servers.urls")), key, settings.timeout_s) for url in settings.urls]
    shared = Path(settings.weights).expanduser() / folder.name if settings.weights else folder
    shared = shared / "handover"
    with contextlib.ExitStack() as stack:
        if ranks.is_first():
            with storing(shared):
                shared.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(shared))
            for remains in shared.glob("*/"):  # of a run that was killed
                shutil.rmtree(remains, ignore_errors=True)
        pool = ServerPool(servers, policy, shared, concurrency=settings.concurrency, say=say)
        pool.load_weights(named_weights(policy.model), version=0)
        yield pool
