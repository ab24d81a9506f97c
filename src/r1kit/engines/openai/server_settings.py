"""How a server is asked: where, how often, how patiently, and at what price."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from r1kit.settings import NOT_HASHED, Settings


class ServerSettings(Settings):
    """An OpenAI-compatible server.

    A request is tried `attempts` times. The pause before the next try doubles from `first_delay_s` to `max_delay_s`,
    with jitter, and is never shorter than the server's Retry-After. Every reply is stored in `cache` as it arrives,
    keyed by server, model, messages, parameters and number of the sample, so it is paid for once.
    """

    base_url: str = Field("", description="up to and without /chat/completions: http://localhost:8000/v1")
    api_key_env: str = Field("OPENAI_API_KEY", description="variable that holds the key", json_schema_extra=NOT_HASHED)
    extra_body: dict[str, Any] = Field(default_factory=dict, description="sent along, for a server's own parameters")
    omit: tuple[str, ...] = Field((), description="parameters that the server refuses, such as seed or temperature")
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    structured_output: Literal["none", "json_object", "json_schema"] = Field(
        "none", description="how the server is made to answer in JSON where that is wanted; none: by words alone"
    )
    concurrency: int = Field(32, ge=1, le=1000, description="requests under way at once", json_schema_extra=NOT_HASHED)
    timeout_s: float = Field(600.0, gt=0, description="for one whole reply", json_schema_extra=NOT_HASHED)
    attempts: int = Field(12, ge=1, description="tries for each reply", json_schema_extra=NOT_HASHED)
    first_delay_s: float = Field(1.0, ge=0, json_schema_extra=NOT_HASHED)
    max_delay_s: float = Field(60.0, ge=0, json_schema_extra=NOT_HASHED)
    max_retry_after_s: float = Field(
        3600.0, ge=0, description="give up where the server wants a longer pause", json_schema_extra=NOT_HASHED
    )
    requests_per_minute: float | None = Field(None, gt=0, json_schema_extra=NOT_HASHED)
    tokens_per_minute: float | None = Field(
        None, gt=0, description="of prompts and replies together", json_schema_extra=NOT_HASHED
    )
    cache: str = Field(
        "", description="SQLite file; empty: r1kit/replies.sqlite in the cache folder", json_schema_extra=NOT_HASHED
    )
    prompt_price: float = Field(0.0, ge=0, description="per million prompt tokens", json_schema_extra=NOT_HASHED)
    completion_price: float = Field(0.0, ge=0, description="per million reply tokens", json_schema_extra=NOT_HASHED)
    currency: str = Field("$", json_schema_extra=NOT_HASHED)

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("it must be an address such as http://localhost:8000/v1")
        if parts.path.rstrip("/").endswith("/chat/completions"):
            raise ValueError("leave /chat/completions out: it is added")
        return url

    @property
    def cache_path(self) -> Path:
        if self.cache:
            return Path(self.cache).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "r1kit" / "replies.sqlite"
