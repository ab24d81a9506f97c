"""Tokens per second of `r1kit serve` and of `transformers serve`, for clients that ask in parallel.

Both servers run all the time, but one of the two is stopped while the other is asked, in turns. Before, every way in
which transformers can serve the model is tried once, and the fastest goes on. Both must have seen prompts of the same
length, and in fp32 nearly all answers are equal.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import ExitStack
from typing import Any

from _results import keep
from _servers import RunningServer, ask_all, free_port, r1kit_command, running, transformers_command

from r1kit.models.known import resolve

PEERS = {
    "generate, fp32": ("--dtype", "float32"),
    "generate, bf16": ("--dtype", "bfloat16"),
    "continuous batching, fp32": ("--dtype", "float32", "--continuous-batching"),
    "continuous batching, bf16": ("--dtype", "bfloat16", "--continuous-batching"),
}
RATES = ("tokens_per_s", "tokens_per_processor_s")
TOPICS = ("apples", "trains", "marbles", "books", "coins", "pencils", "tickets", "eggs")


def requests(count: int, max_tokens: int) -> list[dict[str, Any]]:
    """Greedy chat requests of different questions. Each has a system message: otherwise each server adds its own."""
    bodies = []
    for n in range(count):
        question = (
            f"Tom has {n + 3} {TOPICS[n % 8]} and buys {2 * n + 5} more, then gives half away. How many are left?"
        )
        messages = [{"role": "system", "content": "Answer step by step."}, {"role": "user", "content": question}]
        bodies.append({"messages": messages, "temperature": 0, "max_tokens": max_tokens})
    return bodies


def measure(server: RunningServer, bodies: list[dict[str, Any]], clients: int) -> dict[str, Any]:
    server.go_on()
    before = server.processor_s()
    seconds, replies = asyncio.run(ask_all(server, bodies, clients))
    server.pause()
    processor_s = server.processor_s() - before
    tokens = sum(reply.usage.completion_tokens for reply in replies)
    return {
        "tokens_per_s": tokens / seconds,
        "tokens_per_processor_s": tokens / processor_s,
        "prompt_tokens": [reply.usage.prompt_tokens for reply in replies],
        "texts": [reply.choices[0].message.content for reply in replies],
    }


def sides(pair: list[dict[str, Any]], rate: str) -> list[float]:
    """The rates of r1kit and of transformers."""
    return [round(side[rate], 1) for side in pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=16, help="per round")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--peer", action="append", choices=PEERS, help="leave the trials out; may be repeated")
    options = parser.parse_args()
    bodies, folder = requests(options.requests, options.max_tokens), str(resolve(options.model))
    with ExitStack() as servers:
        port = free_port()
        ours = servers.enter_context(running(r1kit_command(options.model, port), port, options.model, options.threads))
        first = measure(ours, bodies, options.clients)  # warms up
        trials: dict[str, float] = {}
        for name in options.peer or PEERS:
            port = free_port()
            try:
                with running(transformers_command(folder, port, *PEERS[name]), port, folder, options.threads) as peer:
                    measure(peer, bodies[:2], 2)
                    few = bodies[: max(4, options.clients // 2)]
                    trials[name] = measure(peer, few, options.clients)["tokens_per_processor_s"]
            except Exception as error:  # a way that does not run here is no way
                trials[name] = 0.0
                print(f"{name}: {type(error).__name__}: {str(error)[-300:]}")
            print(f"trial of transformers serve, {name}: {trials[name]:.1f} tokens per processor second", flush=True)
        best, port = max(trials, key=lambda name: trials[name]), free_port()
        command = transformers_command(folder, port, *PEERS[best])
        peer = servers.enter_context(running(command, port, folder, options.threads))
        theirs = measure(peer, bodies, options.clients)
        assert first["prompt_tokens"] == theirs["prompt_tokens"], "the two render the same prompts"
        equal = sum(a == b for a, b in zip(first["texts"], theirs["texts"], strict=True))
        rounds = []
        for number in range(options.rounds):
            rounds.append([measure(each, bodies, options.clients) for each in (ours, peer)])
            print(f"round {number + 1}:", *(f"{rate} {sides(rounds[-1], rate)}" for rate in RATES), flush=True)
    result = {
        "model": options.model,
        "clients": options.clients,
        "threads": options.threads,
        "max_tokens": options.max_tokens,
        "peer": best,
        **{rate: [sides(pair, rate) for pair in rounds] for rate in RATES},
        "ratio": {rate: [round(ours[rate] / theirs[rate], 2) for ours, theirs in rounds] for rate in RATES},
        "equal_answers": f"{equal} of {len(bodies)}",
        "trials": {name: round(rate, 1) for name, rate in trials.items()},
    }
    keep("serving", "speed", result)


if __name__ == "__main__":
    main()
