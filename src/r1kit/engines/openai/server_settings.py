"""Settings of an OpenAI-compatible server: address, retries, rate limits, cache and prices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from r1kit.settings import Settings, unhashed


class OpenAIEngineSettings(Settings):
    """A model behind an OpenAI-compatible server.

    `OpenAIEngineSettings(model="deepseek-reasoner", base_url="https://api.deepseek.com/v1",
    api_key_env="DEEPSEEK_API_KEY")`

    A failed request is tried up to `attempts` times; four times if the server has never answered and cannot be reached.
    The pause between tries doubles from `first_delay_s` to `max_delay_s`, with jitter, and is at least the server's
    Retry-After. Each reply is stored in `cache` when it arrives, under its server, model, messages, parameters and
    sample number, so no reply is paid for twice.
    """

    kind: Literal["openai"] = "openai"
    model: str = Field(min_length=1, description="the server's name for the model")
    base_url: str = Field("", description="address without /chat/completions, such as http://localhost:8000/v1")
    api_key_env: str = unhashed("OPENAI_API_KEY", description="environment variable that holds the key")
    extra_body: dict[str, Any] = Field(
        default_factory=dict, description="extra parameters of each request, for options that only this server has"
    )
    omit: tuple[str, ...] = Field(
        (), description="parameters to leave out because the server refuses them, such as seed"
    )
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    opens_reasoning: bool = Field(
        False, description="the server's chat template opens <think>, and its replies begin behind that tag"
    )
    structured_output: Literal["none", "json_object", "json_schema"] = Field(
        "none", description="how a judge gets JSON out of the server; none: only the prompt asks for it"
    )
    concurrency: int = unhashed(32, ge=1, le=1000, description="requests in flight at once")
    timeout_s: float = unhashed(600.0, gt=0, description="longest wait for a complete reply")
    attempts: int = unhashed(12, ge=1, description="tries per request before giving up")
    first_delay_s: float = unhashed(1.0, ge=0)
    max_delay_s: float = unhashed(60.0, ge=0)
    max_retry_after_s: float = unhashed(3600.0, ge=0, description="give up if the server asks for a longer pause")
    requests_per_minute: float | None = unhashed(None, gt=0)
    tokens_per_minute: float | None = unhashed(None, gt=0, description="prompt and reply tokens together")
    cache: str = unhashed("", description="SQLite file; empty: r1kit/replies.sqlite in the cache folder")
    prompt_price: float = unhashed(0.0, ge=0, description="per million prompt tokens")
    completion_price: float = unhashed(0.0, ge=0, description="per million reply tokens")
    currency: str = unhashed("$")

    @field_validator("base_url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        if not url:
            raise ValueError("kind 'openai' needs base_url, the server's address, such as http://localhost:8000/v1")
        try:
            parts = urlsplit(url)
        except ValueError:  # a bracket without its pair
            parts = urlsplit("")
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
