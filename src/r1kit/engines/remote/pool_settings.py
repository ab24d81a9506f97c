"""Settings of a pool of servers that sample for a training stage."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import field_validator

from r1kit.redaction import redacted
from r1kit.settings import Settings, listed, unhashed


class ServerPoolSettings(Settings):
    """Servers that sample instead of this process: `ServerPoolSettings(urls=("http://10.0.0.2:8000",))`.

    Each is a `vllm serve` of version 0.30 with r1kit's worker extension, or an `r1kit serve --weights-from`. Both sides
    see the folder `weights`, by the same path.
    """

    urls: tuple[str, ...] = unhashed((), min_length=1, description="addresses, such as http://localhost:8000")
    weights: str = unhashed("", description="folder in which weights are handed over; '': in the stage's folder")
    api_key_env: str = unhashed("R1KIT_API_KEY", description="environment variable that holds the servers' key")
    concurrency: int = unhashed(64, ge=1, le=1000, description="prompts in flight at once at each server")
    timeout_s: float = unhashed(1800.0, gt=0, description="longest wait for one prompt's completions or for a pause")

    _lists = field_validator("urls", mode="before")(listed)

    @field_validator("urls")
    @classmethod
    def _are_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            try:
                parts: Any = urlsplit(url)
                hostname = parts.hostname
            except ValueError:  # a bracket without its pair
                hostname = None
            if not hostname or parts.scheme not in ("http", "https") or parts.path.strip("/") or parts.query:
                expected = "expected one such as http://localhost:8000, without a path"
                raise ValueError(f"{redacted(url)!r} is not a server's address: {expected}")
        if len(set(urls)) < len(urls):
            raise ValueError("an address is listed twice: name each server once")
        return tuple(url.rstrip("/") for url in urls)
