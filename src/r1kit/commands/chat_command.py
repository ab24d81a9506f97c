"""The command `chat`: questions from stdin, answers on stdout."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from r1kit.chat import final_answer, parse, whole_response
from r1kit.commands.answering import AnsweringModel, engine_settings, open_model
from r1kit.engines import PromptError
from r1kit.engines.ask import refuse_long
from r1kit.pipeline import Progress
from r1kit.terminal import printable
from r1kit.types import Message, Problem, Prompt, SamplingParams


def chat(
    model: str,
    *,
    sampling: SamplingParams | None = None,
    template: str | None = None,
    engine: Mapping[str, Any] | None = None,
) -> None:
    """Answer each line of stdin on stdout; a terminal also shows the reasoning, dimmed. `engine` is that of `eval`.

    Earlier turns stay in the prompt, answers without their reasoning. When they no longer fit, the oldest are dropped.
    """
    opened = open_model(engine_settings(model, engine), template, Progress(model))
    # a base model would continue as the user; some tokenizers lower-case all text
    stop = ("\nUser:", "\nuser:") if opened.chat.template == "plain" else ()
    sampling = replace(sampling or SamplingParams(temperature=0.6), n=1, stop=stop)
    if opened.context is not None:
        refuse_long("", 0, sampling.max_tokens, opened.context, "")
    history: list[Message] = []
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # tokenizers refuse text that is not valid UTF-8
    try:
        while True:
            if question := input("> " if sys.stdin.isatty() else "").strip():
                history = reply(opened, [*history, Message(role="user", content=question)], sampling)
    except (EOFError, KeyboardInterrupt):
        if sys.stdin.isatty():
            print(file=sys.stderr)


def reply(opened: AnsweringModel, turns: list[Message], sampling: SamplingParams) -> list[Message]:
    """Print the answer to the last turn. Returns the turns that the model saw and its answer, for the next prompt."""
    opening, earlier = opened.chat.messages(Problem(id="", prompt="", answer=""))[:-1], turns[:-1]
    while True:
        messages = (*opening, *turns)
        prompt = Prompt(problem_id="chat/0", messages=messages, token_ids=())
        if opened.tokenizer is not None:
            prompt = opened.chat.prompt(messages, opened.tokenizer)
            prompt = replace(prompt, problem_id=f"chat/{len(prompt.token_ids)}")
        try:
            if opened.context is not None:
                refuse_long("", len(prompt.token_ids), sampling.max_tokens, opened.context, "shorten the question")
            [[completion]] = opened.engine.generate([prompt], sampling)
            break
        except PromptError as error:
            if len(turns) == 1:
                print(error, file=sys.stderr)
                return earlier
            turns = turns[2:]
    text = whole_response(prompt, completion)
    show(text)
    return [*turns, Message(role="assistant", content=final_answer(text) or text.strip())]


def show(text: str) -> None:
    """Print the answer, on a terminal with the reasoning above it. A text without an answer is printed whole."""
    response, final = parse(text), final_answer(text)
    answer = printable(final or text.strip())
    if final and response.reasoning and sys.stdout.isatty():
        from rich.console import Console
        from rich.padding import Padding
        from rich.text import Text

        Console().print(Padding(Text(printable(response.reasoning), style="dim"), (0, 0, 0, 2)))
    print(answer, flush=True)
