"""A conversation with a model: questions from stdin, answers on stdout."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

from r1kit.chat import parse
from r1kit.commands.opened import Opened, open_model
from r1kit.pipeline import Progress
from r1kit.types import Message, Problem, Prompt, SamplingParams


def chat(model: str, *, sampling: SamplingParams | None = None, template: str | None = None) -> None:
    """Answer each line of stdin until it ends, on stdout; on a terminal the reasoning is shown too, dimmed.

    Earlier turns stay in the prompt, their answers without the reasoning; where they no longer fit, the oldest go.
    """
    opened = open_model(model, template, Progress(model))
    # a base model would go on as the user; a tokenizer may put text into lower case
    stop = ("\nUser:", "\nuser:") if opened.settings.template == "plain" else ()
    sampling = replace(sampling or SamplingParams(temperature=0.6), n=1, stop=stop)
    if sampling.max_tokens >= opened.policy.context:
        raise ValueError(f"max_tokens is {sampling.max_tokens}, the model's context {opened.policy.context}: lower it")
    history: list[Message] = []
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # no tokenizer takes bytes that are no UTF-8
    try:
        while True:
            if question := input("> " if sys.stdin.isatty() else "").strip():
                history = reply(opened, [*history, Message(role="user", content=question)], sampling)
    except (EOFError, KeyboardInterrupt):
        if sys.stdin.isatty():
            print(file=sys.stderr)


def reply(opened: Opened, turns: list[Message], sampling: SamplingParams) -> list[Message]:
    """Print the answer to the last turn; returns the turns that it saw and the answer, for the next prompt."""
    opening, earlier = opened.chat.messages(Problem(id="", prompt="", answer=""))[:-1], turns[:-1]
    while True:
        messages = (*opening, *turns)
        ids = tuple(opened.chat.encode(messages, opened.policy.tokenizer))
        if len(ids) + sampling.max_tokens <= opened.policy.context:
            break
        if len(turns) == 1:
            room = opened.policy.context - sampling.max_tokens
            print(f"too long: the prompt has {len(ids)} tokens, and {room} fit beside the answer", file=sys.stderr)
            return earlier
        turns = turns[2:]
    prompt = Prompt(problem_id=f"chat/{len(ids)}", messages=messages, token_ids=ids)
    [[completion]] = opened.engine.generate([prompt], sampling)
    text = opened.chat.complete(completion.text)
    show(text)
    return [*turns, Message(role="assistant", content=parse(text).answer or text.strip())]


def show(text: str) -> None:
    """The answer alone for programs; for people, the reasoning above it. A text without an answer is shown whole."""
    response = parse(text)
    answer = readable(response.answer or text.strip())
    if response.answer and response.reasoning and sys.stdout.isatty():
        from rich.console import Console
        from rich.padding import Padding
        from rich.text import Text

        Console().print(Padding(Text(readable(response.reasoning), style="dim"), (0, 0, 0, 2)))
    print(answer, flush=True)


def readable(text: str) -> str:
    """Model text for a terminal: what could steer it (escape sequences) is replaced."""
    return "".join(mark if mark.isprintable() or mark in "\n\t" else "\N{REPLACEMENT CHARACTER}" for mark in text)
