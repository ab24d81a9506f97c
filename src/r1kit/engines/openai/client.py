"""The engine `openai`: chat completions of any OpenAI-compatible server, asked patiently and paid for once."""

from __future__ import annotations

import asyncio
import copy
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from r1kit.engines import EngineError, PromptError, Report
from r1kit.engines.openai.cache import ReplyCache
from r1kit.engines.openai.pace import Pace, backoff, retry_after
from r1kit.engines.openai.payloads import Asked, requests
from r1kit.engines.openai.responses import Malformed, Reply, read
from r1kit.engines.openai.server_settings import OpenAIEngineSettings
from r1kit.engines.openai.usage import Usage
from r1kit.types import Completion, Prompt, SamplingParams

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

RETRIED = (408, 409, 425, 429)  # and everything from 500
GRACE_S = 30.0  # after a failure that ends the call, for replies that are under way and paid for
SAY_EVERY_S = 10.0


class OpenAIEngine:
    """Asks `model` at a server by each prompt's messages; token ids and log-probs are empty unless the server sends
    both (vLLM does, with `extra_body={"return_token_ids": true, "logprobs": true}`).

    Samples are separate requests, each with a seed of its own. `usage` counts requests, tokens and cost; `say` takes
    a line now and then while the server fails.
    """

    def __init__(self, settings: OpenAIEngineSettings, *, say: Callable[[str], None] | None = None) -> None:
        self.settings, self.say = settings, say or _to_stderr
        self.usage = Usage(settings.prompt_price, settings.completion_price, settings.currency)
        self.schema: Mapping[str, Any] | None = None
        self._requests, self._tokens = Pace(settings.requests_per_minute), Pace(settings.tokens_per_minute)
        self._resume_at = 0.0  # the server asked all of us to wait until then
        self._said_at = float("-inf")

    def structured(self, schema: Mapping[str, Any]) -> Self:
        """The same engine, whose replies are held to a JSON schema as far as `structured_output` allows."""
        engine = copy.copy(self)
        engine.schema = schema
        return engine

    def generate(
        self, prompts: Sequence[Prompt], params: SamplingParams, report: Report | None = None
    ) -> list[list[Completion]]:
        """Raises `EngineError` where the server refuses for good or fails too often, `PromptError` where it refuses
        one prompt; replies that arrived are kept, and the next call goes on from there."""
        asked = requests(prompts, params, self.settings, self.schema)
        distinct = {one.key: one for row in asked for one in row}  # greedy samples of one prompt are one request
        times = Counter(one.key for row in asked for one in row)
        replies: dict[str, Reply] = {}
        done = 0

        def arrived(key: str, reply: Reply) -> None:
            nonlocal done
            replies[key] = reply
            done += times[key]
            if report:
                report(done, len(prompts) * params.n)

        _run(self._collect(list(distinct.values()), arrived))
        return [[replies[one.key].completion() for one in row] for row in asked]

    async def _collect(self, asked: list[Asked], arrived: Callable[[str, Reply], None]) -> None:
        """Take from the cache what is there, and ask for the rest."""
        from openai import AsyncOpenAI

        with ReplyCache(self.settings.cache_path) as cache:
            async with AsyncOpenAI(
                base_url=self.settings.base_url, api_key=self._key(), max_retries=0, timeout=self.settings.timeout_s
            ) as client:
                await _Fetch(self, client, cache, arrived).run(asked)

    def _key(self) -> str:
        key = os.environ.get(self.settings.api_key_env, "").strip()
        if not key.isascii():
            raise EngineError(f"the environment variable {self.settings.api_key_env} holds no key: it is not ASCII")
        return key or "none"  # a server of one's own asks for no key

    def note(self, failure: str, failures: int, delay: float) -> None:
        """Tell people about a failing server: the first failure, and then one every few seconds."""
        self.usage.failures += 1
        if time.monotonic() - self._said_at >= SAY_EVERY_S:
            self._said_at = time.monotonic()
            self.say(
                f"{self.settings.model} at {self.settings.base_url}: {failure} (try {failures} of "
                f"{self.settings.attempts}, the next in {delay:.1f} s; {self.usage.summary()})"
            )

    def pause(self, seconds: float) -> None:
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    async def turn(self, asked: Asked) -> None:
        """Wait until this request may be sent."""
        while (left := self._resume_at - time.monotonic()) > 0:
            await asyncio.sleep(left)
        await self._requests.take()
        await self._tokens.take(asked.tokens)

    def used(self, asked: Asked, prompt_tokens: int, completion_tokens: int) -> None:
        """Put down what a reply took; what the rate limit held for it beyond that is free again."""
        self.usage.prompt_tokens += prompt_tokens
        self.usage.completion_tokens += completion_tokens
        if prompt_tokens or completion_tokens:
            self._tokens.give_back(asked.tokens - prompt_tokens - completion_tokens)


@dataclass
class _Fetch:
    """The requests of one `generate` call under way."""

    engine: OpenAIEngine
    client: AsyncOpenAI
    cache: ReplyCache
    arrived: Callable[[str, Reply], None]
    sending: set[asyncio.Task[Any] | None] = field(default_factory=set)
    ended: bool = False

    async def run(self, asked: Sequence[Asked]) -> None:
        if not asked:
            return
        queue = iter(asked)
        width = min(self.engine.settings.concurrency, len(asked))
        workers = [asyncio.create_task(self._work(queue)) for _ in range(width)]
        try:
            done, under_way = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            self.ended = True  # after a failure nothing new starts, and what is paid for may still arrive
            for worker in under_way - self.sending:
                worker.cancel()
            if under_way:
                await asyncio.wait(under_way, timeout=GRACE_S)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        for worker in (*done, *under_way):
            if not worker.cancelled():
                worker.result()

    async def _work(self, queue: Iterator[Asked]) -> None:
        for asked in queue:
            stored = self.cache.get(asked.key)
            if stored is not None:
                self.engine.usage.reused(stored)
                self.arrived(asked.key, stored)
            elif await self._reply(asked) is None or self.ended:
                return

    async def _reply(self, asked: Asked) -> Reply | None:
        """Ask until there is a reply; None where the call has ended meanwhile."""
        settings, failures = self.engine.settings, 0
        while not self.ended:
            await self.engine.turn(asked)
            self.sending.add(asyncio.current_task())
            try:
                reply, failure, wanted = await self._try(asked)
            finally:
                self.sending.discard(asyncio.current_task())
            if reply is not None:
                self.cache.put(asked.key, self.engine.settings.model, asked.prompt_id, reply)
                self.arrived(asked.key, reply)
                return reply
            failures += 1
            delay = max(wanted, backoff(failures, settings.first_delay_s, settings.max_delay_s))
            self.engine.note(failure, failures, delay)
            if self.ended:
                break
            if failures >= settings.attempts or wanted > settings.max_retry_after_s:
                raise EngineError(self._gave_up(failure, failures, wanted))
            await asyncio.sleep(delay)
        return None

    async def _try(self, asked: Asked) -> tuple[Reply | None, str, float]:
        """One request: the reply, or why there is none and how long the server asks to wait."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        engine = self.engine
        engine.usage.requests += 1
        try:
            async with asyncio.timeout(engine.settings.timeout_s):  # the client's own limit starts anew with each byte
                raw = await self.client.chat.completions.with_raw_response.create(
                    model=asked.body["model"], messages=asked.body["messages"], extra_body=asked.body
                )
            reply = read(raw.http_response.text)
        except APIStatusError as error:
            if not _passes(error):
                engine.usage.failures += 1
                raise self._refused(error, asked) from None
            wanted = retry_after(error.response.headers)
            if error.status_code == 429 and wanted <= engine.settings.max_retry_after_s:
                engine.pause(wanted)
            return None, f"{error.status_code}: {_told(error)}", wanted
        except (TimeoutError, APITimeoutError):
            return None, f"no whole reply within timeout_s {engine.settings.timeout_s:g}", 0.0
        except APIConnectionError as error:
            cause = error.__cause__ or error
            return None, f"{type(cause).__name__}: {cause}".rstrip(": ."), 0.0
        except Malformed as error:
            engine.used(asked, error.prompt_tokens, error.completion_tokens)
            return None, str(error), 0.0
        engine.used(asked, reply.prompt_tokens, reply.completion_tokens)
        engine.usage.uncounted += not reply.completion_tokens
        return reply, "", 0.0

    def _gave_up(self, failure: str, failures: int, wanted: float) -> str:
        settings = self.engine.settings
        if wanted > settings.max_retry_after_s:
            why = f"asks to wait {wanted:.0f} s, more than max_retry_after_s {settings.max_retry_after_s:.0f}"
        else:
            why = f"gave no usable reply in {failures} tries"
        return (
            f"{settings.model} at {settings.base_url} {why}; the last failure was: {failure}. Replies that arrived are "
            f"kept in {settings.cache_path}; run again when the server works, or raise attempts and timeout_s"
        )

    def _refused(self, error: APIStatusError, asked: Asked) -> EngineError:
        settings, status, told = self.engine.settings, error.status_code, _told(error)
        where = f"{self.engine.settings.model} at {settings.base_url}"
        if status in (400, 413, 422):
            return PromptError(
                f"{where} refuses the prompt {asked.prompt_id} ({status}: {told}): shorten it or lower max_tokens; if "
                "the server does not know a parameter, name it in omit",
                asked.prompt_id,
            )
        remedy = {
            401: f"put a valid key into the environment variable {settings.api_key_env}",
            403: f"the key in {settings.api_key_env} may not use this model",
            404: "check model and base_url (which often ends in /v1)",
            402: "the account has no credit",
            429: "the account has no credit",
        }.get(status, "check base_url and what the server's log says")
        return EngineError(f"{where} refuses ({status}: {told}): {remedy}. Replies that arrived are kept")


def _passes(error: APIStatusError) -> bool:
    """Whether a failure may pass by itself. A 429 for want of money does not."""
    return (error.status_code in RETRIED or error.status_code >= 500) and error.code != "insufficient_quota"


def _told(error: APIStatusError) -> str:
    """What the server said, on one line that fits."""
    return " ".join(str(error.message).split())[:300]


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:  # inside a running loop (a notebook) another loop needs another thread
        return thread.submit(asyncio.run, work).result()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
