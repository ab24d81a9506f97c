"""Many requests of which a fifth are cancelled, malformed or too long: every answer is right, and nothing is left over.

Answers are compared with those of the engine itself, which runs the same requests here, in one batch. A mean step of
the server's memory above that after the first quarter of the requests would be a leak; so would a completion that still
runs or waits at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import urllib.request
from collections import Counter
from typing import Any

from _results import keep
from _servers import RunningServer, free_port, r1kit_command, running
from openai import APIStatusError, AsyncOpenAI

from r1kit.chat import saved
from r1kit.engines.local import LocalEngine
from r1kit.engines.local.engine import Generation
from r1kit.engines.local.scheduler import Sequence
from r1kit.models.known import resolve
from r1kit.models.load import load
from r1kit.serve.answers import ChatAnswer
from r1kit.serve.fields import ChatFields
from r1kit.serve.prompts import Renderer

WRONG = {  # what a bad request is, and the status that it must get
    "unknown field": ({"temprature": 1}, 400),
    "refused field": ({"presence_penalty": 1}, 400),
    "wrong value": ({"temperature": -1}, 400),
    "too many tokens": ({"max_tokens": 10**6}, 400),
    "long prompt": ({"messages": [{"role": "user", "content": "1 " * 200_000}]}, 400),
    "huge body": ({"messages": [{"role": "user", "content": "1" * 9 * 2**20}]}, 413),
}


def body_of(number: int, max_tokens: int) -> dict[str, Any]:
    """A request; every fifth question comes again, with another seed."""
    question = f"what is {number % 20 + 2} + {number % 7 + 1}?"
    greedy = {"temperature": 0} if number % 2 else {"temperature": 1, "seed": number % 5, "n": 1 + number % 3}
    stop = {"stop": ["answer"]} if number % 11 == 0 else {}
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "max_tokens": max_tokens, **greedy, **stop}


def expected_answers(model: str, bodies: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The choices of each request, from the engine itself."""
    policy = load(model, device="cpu")
    chat, _ = saved.choose(None, resolve(model), policy.tokenizer)
    engine = LocalEngine(policy)
    renderer = Renderer(model, engine, chat)
    all_fields = [ChatFields.read(body) for body in bodies]
    works = [renderer.chat_work(fields) for fields in all_fields]
    ended: dict[Any, list[Sequence]] = {work.request: [] for [work] in works}
    with engine.session():
        generation = Generation(engine, list(ended))
        while generation.busy:
            for sequence in generation.advance():
                ended[sequence.request].append(sequence)
    answers = []
    for fields, own in zip(all_fields, works, strict=True):
        answer = ChatAnswer(fields, own, model, policy.tokenizer)
        answers.append(answer.whole((0, sequence) for sequence in ended[own[0].request])["choices"])
    return answers


def texts_of(choices: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(c["message"].get("reasoning_content") or "", c["message"]["content"] or "") for c in choices]


async def ask(client: AsyncOpenAI, model: str, kind: str, body: dict[str, Any], chance: random.Random) -> Any:
    """The texts of a right answer, True if a request ended as it must, or what went wrong."""
    create = client.chat.completions.create
    if kind in WRONG:
        changes, status = WRONG[kind]
        try:
            await create(model=model, **{**body, "extra_body": changes})
        except APIStatusError as error:
            return error.status_code == status or f"{kind}: status {error.status_code}"
        return f"{kind} got an answer"
    if kind == "abandoned":  # before its answer is there
        task = asyncio.ensure_future(create(model=model, **body))
        await asyncio.wait({task}, timeout=chance.uniform(0, 0.05))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return True
    if kind == "whole":
        reply = await create(model=model, **body)
        return texts_of([choice.model_dump() for choice in reply.choices])
    parts: dict[int, list[str]] = {}
    left = chance.randrange(1, 12) if kind == "broken off" else 10**9
    async with await create(model=model, stream=True, **body) as stream:
        async for chunk in stream:
            for choice in chunk.choices:
                part = parts.setdefault(choice.index, ["", ""])
                part[0] += getattr(choice.delta, "reasoning_content", None) or ""
                part[1] += choice.delta.content or ""
            left -= 1
            if not left:
                break
    return True if kind == "broken off" else [tuple(parts[index]) for index in sorted(parts)]


async def run(server: RunningServer, jobs: list[tuple[str, dict[str, Any]]], clients: int) -> tuple[list[Any], float]:
    results: list[Any] = [None] * len(jobs)
    queue, memory = iter(enumerate(jobs)), 0.0
    async with AsyncOpenAI(base_url=server.url, api_key="none", max_retries=20, timeout=600) as client:

        async def work() -> None:
            nonlocal memory
            for number, (kind, body) in queue:
                results[number] = await ask(client, server.model, kind, body, random.Random(number))
                if number == len(jobs) // 4:
                    memory = server.memory_mb()

        await asyncio.gather(*(work() for _ in range(clients)))
    return results, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--max-tokens", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    chance = random.Random(0)
    bad = (*WRONG, "abandoned", "abandoned", "abandoned", "broken off", "broken off", "broken off")
    bodies = [body_of(number, options.max_tokens) for number in range(options.requests)]
    kinds = [
        chance.choice(bad) if number % 5 == 0 else ("whole", "stream")[number % 2] for number in range(len(bodies))
    ]
    expected = [texts_of(choices) for choices in expected_answers(options.model, bodies)]
    port = free_port()
    with running(r1kit_command(options.model, port), port, options.model, options.threads) as server:
        results, before = asyncio.run(run(server, list(zip(kinds, bodies, strict=True)), options.clients))
        after = server.memory_mb()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as reply:
            health = json.load(reply)
    wrong = [
        (kind, result, right)
        for kind, result, right in zip(kinds, results, expected, strict=True)
        if result != (right if kind in ("whole", "stream") else True)
    ]
    facts = {
        "requests": dict(Counter(kinds)),
        "wrong": len(wrong),
        "first_wrong": wrong[:2],
        "memory_mb": {"after a quarter": round(before, 1), "at the end": round(after, 1)},
        "health": health,
    }
    keep("serving", "soak", facts)
    raise SystemExit(bool(wrong) or health["completions"] != 0 or after > 1.1 * before + 20)


if __name__ == "__main__":
    main()
