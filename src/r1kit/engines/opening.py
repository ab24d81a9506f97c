"""An engine as settings: what a recipe says of a teacher or a judge, and what opens it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from r1kit.chat import ChatFormat
from r1kit.engines import Engine
from r1kit.engines.openai.server_settings import ServerSettings
from r1kit.settings import NOT_HASHED, Settings


class DeviceSettings(Settings):
    """Where models run. `max_rows` is how many completions grow at once in the local engine."""

    device: str = Field("auto", json_schema_extra=NOT_HASHED)
    max_rows: int = Field(128, ge=1, json_schema_extra=NOT_HASHED)


class EngineSettings(ServerSettings):
    """Which model answers, and where it runs.

    `EngineSettings(model="runs/r1/model")` is a local model, by folder or name.
    `EngineSettings(kind="openai", model="deepseek-reasoner", base_url="https://api.deepseek.com/v1",
    api_key_env="DEEPSEEK_API_KEY")` is a model behind any OpenAI-compatible server.
    """

    kind: Literal["local", "openai"] = "local"
    model: str = Field(min_length=1, description="folder or name of a local model, or the server's name for it")
    template: Literal["auto", "plain", "chat"] = Field(
        "auto", description="local only: how messages become text; auto: the tokenizer's chat template if there is one"
    )
    device: str = Field("auto", description="local only", json_schema_extra=NOT_HASHED)
    max_rows: int = Field(128, ge=1, description="local only: completions at once", json_schema_extra=NOT_HASHED)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "openai" and not self.base_url:
            raise ValueError("kind 'openai' needs base_url: the server's address, such as http://localhost:8000/v1")
        if self.kind == "local" and self.base_url:
            raise ValueError(f"base_url is {self.base_url!r} but kind is 'local': set kind to 'openai'")
        return self

    def open(self) -> Engine:
        """Load the model, or make the client; either takes prompts with messages and no token ids."""
        return self._local() if self.kind == "local" else self._server()

    def _server(self) -> Engine:
        from r1kit.engines.openai import OpenAIEngine

        server = ServerSettings(**{name: getattr(self, name) for name in ServerSettings.model_fields})
        return OpenAIEngine(self.model, server)

    def _local(self) -> Engine:
        from r1kit.engines.local import LocalEngine
        from r1kit.engines.local.chat_engine import MessageEngine
        from r1kit.models.load import load

        policy = load(self.model, device=self.device)
        chat = ChatFormat(template=self._template(policy.tokenizer), system="")
        return MessageEngine(LocalEngine(policy, max_rows=self.max_rows), chat)

    def _template(self, tokenizer: Any) -> str:
        if self.template != "auto":
            return self.template
        return "chat" if tokenizer.chat_template else "plain"
