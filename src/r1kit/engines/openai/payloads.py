"""What a server is asked: one request for each sample, with the key under which its reply is cached."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.engines import PromptError
from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.types import Prompt, SamplingParams


@dataclass(frozen=True)
class Asked:
    """One sample to be asked for: its key in the cache, and the request."""

    key: str
    prompt_id: str
    body: dict[str, Any]

    @property
    def tokens(self) -> int:
        """An upper estimate for the rate limit: 4 characters to a token, and the longest reply."""
        words = sum(len(message["content"]) for message in self.body["messages"])
        longest: int = self.body.get("max_tokens") or self.body.get("max_completion_tokens") or 0
        return words // 4 + longest


def requests(
    prompts: Sequence[Prompt], params: SamplingParams, settings: OpenAIEngineSettings, schema: Mapping[str, Any] | None
) -> list[list[Asked]]:
    """`params.n` requests for each prompt; one that comes again has other sample numbers, so it gets other answers."""
    seen: Counter[str] = Counter()
    rows = []
    for prompt in prompts:
        if not prompt.messages:
            raise PromptError(
                f"the prompt {prompt.problem_id} has no messages: a server cannot be asked by token ids",
                prompt.problem_id,
            )
        messages = [{"role": turn.role, "content": _sendable(turn.content)} for turn in prompt.messages]
        name = json.dumps(messages)
        first, seen[name] = seen[name], seen[name] + params.n
        numbers = [0 if params.temperature == 0 else first + i for i in range(params.n)]  # greedy ones are all one
        bodies = [_body(messages, params, number, settings, schema) for number in numbers]
        rows.append(
            [
                Asked(_key(settings, params, number, body), prompt.problem_id, body)
                for number, body in zip(numbers, bodies, strict=True)
            ]
        )
    return rows


def _key(settings: OpenAIEngineSettings, params: SamplingParams, number: int, body: Mapping[str, Any]) -> str:
    made_of = {"server": settings.base_url, "seed": params.seed, "sample": number, "body": body}
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _body(
    messages: list[dict[str, str]],
    params: SamplingParams,
    number: int,
    settings: OpenAIEngineSettings,
    schema: Mapping[str, Any] | None,
) -> dict[str, Any]:
    # a seed for each sample: with one for all of them, a server that obeys it gives the same reply n times
    seed = int.from_bytes(hashlib.blake2b(f"{params.seed}/{number}".encode(), digest_size=8).digest()) >> 33
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": messages,
        "temperature": params.temperature,
        "top_p": params.top_p,
        settings.max_tokens_name: params.max_tokens,
        "seed": seed,
    }
    optional = {"top_k": params.top_k, "stop": list(params.stop), "stop_token_ids": list(params.stop_token_ids)}
    body |= {name: value for name, value in optional.items() if value}
    body |= _response_format(settings, schema) | settings.extra_body
    return {name: value for name, value in body.items() if name not in settings.omit}


def _response_format(settings: OpenAIEngineSettings, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None or settings.structured_output == "none":
        return {}
    if settings.structured_output == "json_object":
        return {"response_format": {"type": "json_object"}}
    strict = {"name": "reply", "schema": dict(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": strict}}


def _sendable(text: str) -> str:
    """A lone surrogate, which model text may hold, cannot be sent."""
    return text.encode("utf-8", "replace").decode()
