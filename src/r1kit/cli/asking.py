"""`eval`, `generate`, `serve` and `chat`: a model answers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from r1kit.cli.options import MODEL_HELP, add_address, add_allow_code, add_columns, add_command, add_format, add_json
from r1kit.cli.printing import print_json, print_json_line
from r1kit.cli.values import engine, whole

ENGINE_HELP = (
    "ask another engine instead of running MODEL here: a server's address, such as http://localhost:8000/v1, your own "
    "engine as module:Class, or engine settings as JSON or in a file, such as "
    '{"kind": "openai", "base_url": ..., "api_key_env": ...}'
)


def add_asking(commands: Any) -> None:
    text = "measure a model on a task, with 95 %% intervals"
    measure = add_command(commands, "eval", evaluate, text, keeps_in="out")
    measure.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    measure.add_argument("--task", required=True, metavar="NAME|FILE", help="a known task's name or a data file")
    _add_problems(measure)
    _add_sampling(measure, temperature=0.0)
    measure.add_argument("--compare", metavar="MODEL", help="a second model, for a paired test on the same problems")
    text = "correct the accuracy for the verifier's errors on labelled cases: those of a verifier, or your own file"
    measure.add_argument("--cases", metavar="NAME|FILE.jsonl", help=text)
    measure.add_argument("--out", type=Path, metavar="DIR", help="write completions.jsonl and results.json here")
    add_json(measure)

    text = "sample completions for a prompt, task or file"
    sample = add_command(commands, "generate", generate, text, keeps_in="out")
    sample.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    source = sample.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", help="one prompt")
    source.add_argument("--task", metavar="NAME", help="a known task's name")
    source.add_argument("file", metavar="FILE", nargs="?", type=Path, help="JSONL or Parquet with a prompt column")
    _add_problems(sample)
    _add_sampling(sample, temperature=1.0)
    sample.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write the rows here; the same command resumes")

    server = add_command(commands, "serve", serve, "serve a model over HTTP, with OpenAI's API")
    server.add_argument("model", metavar="MODEL", help="a known model's name, a model folder or a hub id")
    server.add_argument("--name", default="", help="what clients call the model (default: MODEL)")
    add_address(server, 8000)
    text = "key that clients must send (default: the environment variable R1KIT_API_KEY)"
    server.add_argument("--api-key", default="", metavar="KEY", help=text)
    add_allow_code(server)
    server.add_argument("--queue", type=int, default=512, metavar="N", help="how many completions may wait (512)")
    text = "let a training run that has the key replace the weights by files that it writes below FOLDER"
    server.add_argument("--weights-from", type=Path, metavar="FOLDER", help=text)
    add_format(server)
    server.add_argument(
        "--engine", metavar="JSON|FILE", type=engine, help='engine settings, such as {"max_rows": 64, "device": "cpu"}'
    )

    talk = add_command(commands, "chat", chat, "talk to a model")
    talk.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    _add_sampling(talk, temperature=0.6)


def _add_problems(command: argparse.ArgumentParser) -> None:
    add_columns(command, "prompt=q,answer=a")
    command.add_argument("--split", default="test", help="which problems of the task (test)")
    command.add_argument("--limit", type=whole(1), metavar="N", help="only the first N problems")
    command.add_argument("--samples", type=whole(1), default=1, metavar="K", help="completions per problem (1)")


def _add_sampling(command: argparse.ArgumentParser, *, temperature: float) -> None:
    command.add_argument("--temperature", type=float, default=temperature, help=f"0 is greedy ({temperature:g})")
    command.add_argument("--max-tokens", type=whole(1), default=512, metavar="N", help="longest completion (512)")
    add_format(command)
    command.add_argument("--engine", metavar="URL|MODULE:CLASS|JSON|FILE", type=engine, help=ENGINE_HELP)
    command.add_argument("--seed", type=int, default=0, help="seed of the sampling (0)")
    add_allow_code(command)


def evaluate(options: argparse.Namespace) -> None:
    """Print the table of one model, or of two models and their paired difference."""
    from r1kit.commands import eval_command

    answering = _answering(options) | _problems(options)
    result = eval_command.evaluate(
        options.model, task=options.task, compare=options.compare, cases=options.cases, **answering
    )
    print_json(result) if options.json else print(result["table"])


def generate(options: argparse.Namespace) -> None:
    """Print completions, or write them as rows to a file."""
    from r1kit.commands import generate_command

    answering = _answering(options) | _problems(options)
    task = options.task or options.file
    rows = generate_command.generate(options.model, prompt=options.prompt, task=task, **answering)
    if options.out is not None:
        print(f"{sum(1 for _ in rows)} new rows in {options.out}")
        return
    for row in rows:
        if options.prompt:
            print(row["completion"], flush=True)
        else:
            print_json_line(row)


def serve(options: argparse.Namespace) -> None:
    """Serve a model to OpenAI's clients until a signal stops it."""
    from r1kit.serve import serve as run_server

    run_server(
        options.model,
        name=options.name,
        host=options.host,
        port=options.port,
        key=options.api_key or os.environ.get("R1KIT_API_KEY", ""),
        template=options.format,
        engine=options.engine,
        queue=options.queue,
        weights_from=options.weights_from,
    )


def chat(options: argparse.Namespace) -> None:
    """Answer questions from stdin until it ends."""
    from r1kit.commands import chat_command

    chat_command.chat(options.model, **_answering(options))


def _answering(options: argparse.Namespace) -> dict[str, Any]:
    """How a model answers: the options that `eval`, `generate` and `chat` share."""
    from r1kit.types import SamplingParams

    samples, tokens = getattr(options, "samples", 1), options.max_tokens  # `chat` takes one sample
    sampling = SamplingParams(n=samples, temperature=options.temperature, max_tokens=tokens, seed=options.seed)
    return {"sampling": sampling, "template": options.format, "engine": options.engine}


def _problems(options: argparse.Namespace) -> dict[str, Any]:
    """Which problems `eval` and `generate` answer, and where the rows go."""
    return {name: getattr(options, name) for name in ("split", "limit", "columns", "out")}
