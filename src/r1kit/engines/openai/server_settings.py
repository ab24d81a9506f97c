"""Settings of an OpenAI-compatible server: address, retries, rate limits, cache and prices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from r1kit.settings import NOT_HASHED, Settings


class OpenAIEngineSettings(Settings):
    """A model behind an OpenAI-compatible server.

    `OpenAIEngineSettings(model="deepseek-reasoner", base_url="https://api.deepseek.com/v1",
    api_key_env="DEEPSEEK_API_KEY")`

    A failed request is tried up to `attempts` times. The pause between tries doubles from `first_delay_s` to
    `max_delay_s`, with jitter, and is at least the server's Retry-After. Each reply is stored in `cache` when it
    arrives, under its server, model, messages, parameters and sample number, so no reply is paid for twice.
    """

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1, description="the server's name for the model")
    base_url: str = Field("", description="address without /chat/completions, such as http://localhost:8000/v1")
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key", json_schema_extra=NOT_HASHED
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="extra parameters of each request, for options that only this server has"
    )
    omit: tuple[str, ...] = Field(
        (), description="parameters to leave out because the server refuses them, such as seed"
    )
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    structured_output: Literal["none", "json_object", "json_schema"] = Field(
        "none", description="how a judge gets JSON out of the server; none: only the prompt asks for it"
    )
    concurrency: int = Field(32, ge=1, le=1000, description="requests in flight at once", json_schema_extra=NOT_HASHED)
    timeout_s: float = Field(600.0, gt=0, description="longest wait for a complete reply", json_schema_extra=NOT_HASHED)
    attempts: int = Field(12, ge=1, description="tries per request before giving up", json_schema_extra=NOT_HASHED)
    first_delay_s: float = Field(1.0, ge=0, json_schema_extra=NOT_HASHED)
    max_delay_s: float = Field(60.0, ge=0, json_schema_extra=NOT_HASHED)
    max_retry_after_s: float = Field(
        3600.0, ge=0, description="give up if the server asks for a longer pause", json_schema_extra=NOT_HASHED
    )
    requests_per_minute: float | None = Field(None, gt=0, json_schema_extra=NOT_HASHED)
    tokens_per_minute: float | None = Field(
        None, gt=0, description="prompt and reply tokens together", json_schema_extra=NOT_HASHED
    )
    cache: str = Field(
        "", description="SQLite file; empty: r1kit/replies.sqlite in the cache folder", json_schema_extra=NOT_HASHED
    )
    prompt_price: float = Field(0.0, ge=0, description="per million prompt tokens", json_schema_extra=NOT_HASHED)
    completion_price: float = Field(0.0, ge=0, description="per million reply tokens", json_schema_extra=NOT_HASHED)
    currency: str = Field("$", json_schema_extra=NOT_HASHED)

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if not url:
            raise ValueError("kind 'openai' needs base_url, the server's address, such as http://localhost:8000/v1")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must be an address such as http://localhost:8000/v1")
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError("leave out /chat/completions: it is added to the address")
        return url

    @property
    def cache_path(self) -> Path:
        if self.cache:
            return Path(self.cache).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1kit" / "replies.sqlite"
