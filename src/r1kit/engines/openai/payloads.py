"""The requests of one `generate` call: one per sample, with the key under which its reply is cached."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1kit.engines import PromptError
from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.engines.token_prompts import server_seed
from r1kit.redaction import redacted, resolved
from r1kit.types import Prompt, SamplingParams


@dataclass(frozen=True)
class Request:
    """The request for one sample, and its key in the cache."""

    key: str
    prompt_id: str
    body: dict[str, Any]

    @property
    def max_total_tokens(self) -> int:
        """An upper estimate for the rate limit: 4 characters per prompt token, and the longest reply."""
        characters = sum(len(message["content"]) for message in self.body["messages"])
        longest: int = self.body.get("max_tokens") or self.body.get("max_completion_tokens") or 0
        return characters // 4 + longest


def build_requests(
    prompts: Sequence[Prompt], params: SamplingParams, settings: OpenAIEngineSettings, schema: Mapping[str, Any] | None
) -> list[list[Request]]:
    """`params.n` requests per prompt. A repeated prompt continues its sample numbers, so it gets new replies."""
    sent_extra, stored_extra = resolved(settings.extra_body, "extra_body"), redacted(settings.extra_body)
    seen: Counter[str] = Counter()
    rows = []
    for prompt in prompts:
        if not prompt.messages:
            without = f"the prompt {prompt.problem_id} has no messages"
            raise PromptError(f"{without}: a server cannot be asked by token ids", prompt.problem_id)
        # a lone surrogate, which model text may hold, cannot be sent
        contents = [turn.content.encode("utf-8", "replace").decode() for turn in prompt.messages]
        messages = [{"role": t.role, "content": text} for t, text in zip(prompt.messages, contents, strict=True)]
        name = json.dumps(messages)  # messages decide, not problem_id: two problems may have the same text
        first, seen[name] = seen[name], seen[name] + params.n
        numbers = [0 if params.temperature == 0 else first + i for i in range(params.n)]  # greedy samples are all equal
        row = []
        for number in numbers:
            body, stored = (
                _body(messages, params, number, settings, schema, extra) for extra in (sent_extra, stored_extra)
            )
            parts = {"server": redacted(settings.base_url), "seed": params.seed, "sample": number, "body": stored}
            # the seed and sample number are part of the key also if the server ignores seeds
            key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
            row.append(Request(key, prompt.problem_id, body))
        rows.append(row)
    return rows


def _body(
    messages: list[dict[str, str]],
    params: SamplingParams,
    number: int,
    settings: OpenAIEngineSettings,
    schema: Mapping[str, Any] | None,
    extra_body: Mapping[str, Any],
) -> dict[str, Any]:
    # a seed per sample: with one seed for all, a server that obeys it would give the same reply n times
    seed = server_seed(f"{params.seed}/{number}")
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": messages,
        "temperature": params.temperature,
        "top_p": params.top_p,
        settings.max_tokens_name: params.max_tokens,
        "seed": seed,
    }
    # left out if unused: many servers refuse parameters that they do not know
    optional = {"top_k": params.top_k, "stop": list(params.stop), "stop_token_ids": list(params.stop_token_ids)}
    body |= {name: value for name, value in optional.items() if value}
    if schema is not None and settings.structured_output == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif schema is not None and settings.structured_output == "json_schema":
        strict = {"name": "reply", "schema": dict(schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": strict}
    body |= extra_body  # the user's own parameters win
    return {name: value for name, value in body.items() if name not in settings.omit}
