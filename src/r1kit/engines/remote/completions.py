"""Requests for completions of token ids, and the answers as completions of a policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from r1kit.engines import EngineError
from r1kit.engines.token_prompts import text_before
from r1kit.types import Completion, Prompt, SamplingParams


def request_body(model: str, prompt: Prompt, params: SamplingParams, seed: int) -> dict[str, Any]:
    """The body for /v1/completions. Every setting is in it: a server's defaults for the model have no effect."""
    return {
        "model": model,
        "prompt": list(prompt.token_ids),
        "n": params.n,
        "seed": seed,
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "stop": list(params.stop),
        "stop_token_ids": list(params.stop_token_ids),
        "logprobs": 0,  # of the sampled tokens alone
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,  # texts of tokens would only be thrown away
        "skip_special_tokens": False,
        "add_special_tokens": False,
    }


def completions_of(
    answer: Mapping[str, Any], server: str, params: SamplingParams, tokenizer: Any, version: int
) -> list[Completion]:
    """The completions in an answer; raises `EngineError` if it is not what was asked for.

    Texts are decoded from the token ids as the local engine decodes them, whatever text the server sent.
    """
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        read = [
            (
                tuple(map(int, choice["token_ids"])),
                tuple(map(float, choice["logprobs"]["token_logprobs"])),
                choice["finish_reason"],
            )
            for choice in choices
        ]
    except (KeyError, TypeError, ValueError) as error:
        wanted = "token ids and log-probs: is it vLLM 0.30, or r1kit serve?"
        raise EngineError(f"{server} sent {str(answer)[:200]!r} ({error!r}): expected choices with {wanted}") from None
    if len(read) != params.n:
        raise EngineError(f"{server} sent {len(read)} completions for a prompt, expected {params.n}")
    return [_completion(server, params, tokenizer, version, *each) for each in read]


def _completion(
    server: str,
    params: SamplingParams,
    tokenizer: Any,
    version: int,
    token_ids: tuple[int, ...],
    logprobs: tuple[float, ...],
    reason: Any,
) -> Completion:
    if not token_ids or len(token_ids) != len(logprobs) or not all(map(math.isfinite, logprobs)):
        raise EngineError(
            f"{server} sent {len(token_ids)} tokens with {len(logprobs)} log-probs: expected one finite number for each"
        )
    ended = token_ids[-1] in params.stop_token_ids
    text = str(tokenizer.decode(token_ids[:-1] if ended else token_ids, skip_special_tokens=False))
    if reason not in ("stop", "length"):
        raise EngineError(f"{server} ended a completion with {reason!r:.40}: expected stop or length")
    if reason == "stop" and not ended:
        before = text_before(text, params.stop)
        if before is None:
            raise EngineError(
                f"{server} stopped at token {token_ids[-1]}, which ends no completion of the policy: serve the model "
                "that is trained, with its generation_config.json"
            )
        text = before
    return Completion(token_ids=token_ids, logprobs=logprobs, text=text, finish_reason=reason, policy_version=version)
