"""A server's facts about a model, before anything is asked."""

from __future__ import annotations

import os
from typing import Any

from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.redaction import resolved


def model_card(settings: OpenAIEngineSettings) -> dict[str, Any]:
    """The model's entry in the server's list; empty if there is none, or if the server does not answer now."""
    from openai import OpenAI, OpenAIError

    key = os.environ.get(settings.api_key_env, "").strip()
    try:
        address = resolved(settings.base_url, "base_url")
        with OpenAI(base_url=address, api_key=key or "none", max_retries=0, timeout=10.0) as client:
            cards = [card.model_dump() for card in client.models.list().data if card.id == settings.model]
    except (OpenAIError, ValueError, TypeError, AttributeError):  # a server may send anything
        return {}
    return cards[0] if cards else {}
