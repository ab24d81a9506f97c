"""The engine `openai`: chat completions of any OpenAI-compatible server, with retries and a cache of replies."""

from __future__ import annotations

import asyncio
import copy
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from r1kit.engines import EngineError, PromptError, Report
from r1kit.engines.openai.cache import ReplyCache
from r1kit.engines.openai.pace import Pace, backoff, retry_after
from r1kit.engines.openai.payloads import Request, build_requests
from r1kit.engines.openai.responses import Malformed, Reply, read_reply
from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.engines.openai.usage import Usage
from r1kit.event_loop import run_blocking
from r1kit.redaction import redacted, redacted_text, resolved, secrets_in
from r1kit.types import Completion, Prompt, SamplingParams

if TYPE_CHECKING:
    from openai import AsyncOpenAI

RETRIED = (408, 409, 425, 429)  # HTTP statuses, besides all from 500 on
BLAMED = (400, 413, 422)  # statuses that blame the request, not the account or the server
REMEDIES = {
    401: "put a valid key into the environment variable {key}",
    403: "the key in {key} may not use this model",
    404: "check model and base_url (which often ends in /v1)",
    402: "the account has no credit",
    429: "the account has no credit",
}
GRACE_S = 30.0  # after a failure that ends the call: how long to wait for replies in flight, which are paid for
SAY_EVERY_S = 10.0
UNREACHED_TRIES = 4  # of a server that has never answered: it may be starting, or its address is wrong


class OpenAIEngine:
    """Sends each prompt's messages to a server. Completions have token ids and log-probs only if the server returns
    both (vLLM does, with `extra_body={"return_token_ids": true, "logprobs": true}`).

    Each sample is a request of its own, with its own seed. `usage` counts requests, tokens and cost; `say` gets a line
    from time to time while the server fails.
    """

    def __init__(self, settings: OpenAIEngineSettings, *, say: Callable[[str], None] | None = None) -> None:
        self.settings, self.say = settings, say or (lambda line: print(line, file=sys.stderr, flush=True))
        self.usage = Usage(settings.prompt_price, settings.completion_price, settings.currency)
        self.schema: Mapping[str, Any] | None = None
        self.base_url = resolved(settings.base_url, "base_url")
        resolved(settings.extra_body, "extra_body")  # a secret that is missing shows before any work
        self._requests, self._tokens = Pace(settings.requests_per_minute), Pace(settings.tokens_per_minute)
        self._resume_at = 0.0  # the server asked all requests to wait until then
        self._said_at = float("-inf")  # when people last got a line

    @property
    def name(self) -> str:
        return f"{self.settings.model} at {redacted(self.settings.base_url)}"

    def without_secrets(self, text: str) -> str:
        """A server's text without the key and the settings' secrets, which some servers repeat."""
        key = os.environ.get(self.settings.api_key_env, "").strip()
        return redacted_text(text, [key, *secrets_in([self.settings.base_url, self.settings.extra_body])])

    def structured(self, schema: Mapping[str, Any]) -> Self:
        """The same engine, with replies constrained to a JSON schema as far as `structured_output` allows."""
        engine = copy.copy(self)  # shares usage and rate limits with the original
        engine.schema = schema
        return engine

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Raises `EngineError` if the server refuses for good or fails too often, `PromptError` if it refuses a prompt.
        Replies that arrived are kept, and the next call continues from there."""
        rows = build_requests(prompts, params, self.settings, self.schema)
        distinct = {request.key: request for row in rows for request in row}  # greedy samples share one request
        times = Counter(request.key for row in rows for request in row)
        replies: dict[str, Reply] = {}
        num_done = 0

        def on_reply(key: str, reply: Reply) -> None:
            nonlocal num_done
            replies[key] = reply
            num_done += times[key]
            if report:
                report(num_done, len(prompts) * params.n)

        run_blocking(self._collect(list(distinct.values()), on_reply))
        opened = "<think>" if self.settings.opens_reasoning else ""  # so that a reply cut off in its reasoning shows it
        return [[replies[request.key].completion(opened) for request in row] for row in rows]

    async def _collect(self, requests: list[Request], on_reply: Callable[[str, Reply], None]) -> None:
        from openai import AsyncOpenAI

        settings = self.settings
        key = os.environ.get(settings.api_key_env, "").strip()
        if not key.isascii():
            holds = f"the environment variable {settings.api_key_env} does not hold an API key"
            raise EngineError(f"{holds}: it has characters that are not ASCII")  # they cannot go into a header
        key = key or "none"  # the client insists on one; your own server needs none
        # no retries of the client's: ours respect the rate limit and are counted
        client = AsyncOpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=settings.timeout_s)
        with ReplyCache(settings.cache_path) as cache:
            async with client:
                await _Fetch(self, client, cache, on_reply).run(requests)

    async def wait_for_turn(self, request: Request) -> None:
        """Return when the request may be sent."""
        while (left := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(left)
        await self._requests.take()
        await self._tokens.take(request.max_total_tokens)

    def pause(self, seconds: float) -> None:
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    def record_tokens(self, request: Request, prompt_tokens: int, completion_tokens: int) -> None:
        """Count what a reply used, and return the rest of the request's estimate to the rate limit."""
        self.usage.prompt_tokens += prompt_tokens
        self.usage.completion_tokens += completion_tokens
        if prompt_tokens or completion_tokens:
            self._tokens.give_back(request.max_total_tokens - prompt_tokens - completion_tokens)

    def record_failure(self, failure: str, failures: int, attempts: int, delay: float) -> None:
        """Count a failed request. People see the first one, then at most one every few seconds."""
        self.usage.failures += 1
        if time.monotonic() - self._said_at >= SAY_EVERY_S:
            self._said_at = time.monotonic()
            tries = f"try {failures} of {attempts}, the next in {delay:.1f} s"
            self.say(f"{self.name}: {failure} ({tries}; {self.usage.summary()})")


@dataclass
class _Fetch:
    """The requests of one `generate` call in flight."""

    engine: OpenAIEngine
    client: AsyncOpenAI
    cache: ReplyCache
    on_reply: Callable[[str, Reply], None]
    sending: set[asyncio.Task[Any] | None] = field(default_factory=set)
    ended: bool = False

    async def run(self, requests: Sequence[Request]) -> None:
        if not requests:
            return
        queue = iter(requests)  # shared: each worker takes the next request
        width = min(self.engine.settings.concurrency, len(requests))

        async def work() -> None:
            for request in queue:
                cached = self.cache.get(request.key)
                if cached is not None:
                    self.engine.usage.record_cached(cached)
                    self.on_reply(request.key, cached)
                elif not await self._fetch(request) or self.ended:  # the call ended: leave the rest of the queue
                    return

        workers = [asyncio.create_task(work()) for _ in range(width)]
        try:
            done, pending = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            self.ended = True  # after a failure nothing new starts, but paid replies may still arrive
            for worker in pending - self.sending:
                worker.cancel()
            if pending:
                await asyncio.wait(pending, timeout=GRACE_S)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)  # all have ended before the client closes
        for worker in (*done, *pending):
            if not worker.cancelled():
                worker.result()  # raises the failure

    async def _fetch(self, request: Request) -> bool:
        """Try until there is a reply; False if the call ended meanwhile."""
        settings, failures = self.engine.settings, 0
        while not self.ended:
            await self.engine.wait_for_turn(request)
            self.sending.add(asyncio.current_task())  # from here on, a reply may be paid for
            try:
                reply, failure, wanted_s = await self._try(request)
            finally:
                self.sending.discard(asyncio.current_task())
            if reply is not None:
                self.cache.put(request.key, settings.model, request.prompt_id, reply)
                self.on_reply(request.key, reply)
                return True
            failures += 1
            unreached = failure.startswith("ConnectError") and not self.engine.usage.answered
            attempts = min(UNREACHED_TRIES, settings.attempts) if unreached else settings.attempts
            # at least as long as the server asks, and longer with each failure
            delay = max(wanted_s, backoff(failures, settings.first_delay_s, settings.max_delay_s))
            self.engine.record_failure(failure, failures, attempts, delay)
            if self.ended:
                break
            if unreached and failures >= attempts:
                remedy = "start the server, or correct its address (base_url), and run again"
                raise EngineError(f"{self.engine.name} cannot be reached ({failure}): {remedy}")
            if failures >= attempts or wanted_s > settings.max_retry_after_s:
                why = f"gave no usable reply in {failures} tries"
                remedy = "run again when the server works, or raise attempts and timeout_s"
                if wanted_s > settings.max_retry_after_s:
                    why = f"asks to wait {wanted_s:.0f} s, more than max_retry_after_s {settings.max_retry_after_s:.0f}"
                    remedy = "run again after that time, or raise max_retry_after_s"
                raise EngineError(
                    f"{self.engine.name} {why}; the last failure was: {failure}. Replies that arrived are kept in "
                    f"{settings.cache_path}; {remedy}"
                )
            await asyncio.sleep(delay)
        return False

    async def _try(self, request: Request) -> tuple[Reply | None, str, float]:
        """One request: the reply, or why there is none and how many seconds the server asks to wait."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        engine, body = self.engine, request.body
        engine.usage.requests += 1
        try:
            async with asyncio.timeout(engine.settings.timeout_s):  # the client's own timeout restarts with each byte
                create = self.client.chat.completions.with_raw_response.create
                # extra_body overrides the rest, so that the server gets exactly `body`
                raw = await create(model=body["model"], messages=body["messages"], extra_body=body)
            engine.usage.answered = True
            reply = read_reply(raw.http_response.text)
        except APIStatusError as error:
            engine.usage.answered = True
            status, prefix = error.status_code, f"Error code: {error.status_code}"  # the client puts it in front
            text = " ".join(str(error.message).split()).removeprefix(prefix).removeprefix(" - ")
            message = f"status {status}: {engine.without_secrets(text)[:300]}" if text else f"status {status}"
            # out of credit is a 429, but waiting does not help
            if (status in RETRIED or status >= 500) and error.code != "insufficient_quota":
                wanted_s = retry_after(error.response.headers)
                if status == 429 and wanted_s <= engine.settings.max_retry_after_s:
                    engine.pause(wanted_s)
                return None, message, wanted_s
            engine.usage.failures += 1
            if status in BLAMED:
                raise PromptError(
                    f"{engine.name} refuses the prompt {request.prompt_id} ({message}): shorten it or lower "
                    "max_tokens; if the server does not know a parameter, name it in omit",
                    request.prompt_id,
                ) from None
            remedy = REMEDIES.get(status, "check base_url and the server's log").format(key=engine.settings.api_key_env)
            kept = "Replies that arrived are kept"
            raise EngineError(f"{engine.name} refuses ({message}): {remedy}. {kept}") from None
        except (TimeoutError, APITimeoutError):
            return None, f"no complete reply within timeout_s {engine.settings.timeout_s:g}", 0.0
        except APIConnectionError as error:
            cause = error.__cause__ or error
            return None, engine.without_secrets(f"{type(cause).__name__}: {cause}").rstrip(": ."), 0.0
        except Malformed as error:
            engine.record_tokens(request, error.prompt_tokens, error.completion_tokens)
            return None, engine.without_secrets(str(error)), 0.0
        engine.record_tokens(request, reply.prompt_tokens, reply.completion_tokens)
        engine.usage.uncounted += not reply.completion_tokens  # some servers count nothing
        return reply, "", 0.0
