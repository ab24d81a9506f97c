"""Commands, and the options that several of them take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from r1kit.cli import values

MODEL_HELP = "a known model's name or a model folder; with --engine, the engine's name for it"


def add_command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int | None], text: str, **defaults: Any
) -> argparse.ArgumentParser:
    """A command that calls `function`, which prints the result and returns the exit status, None for 0.

    `main` reads two `defaults`: `keeps_in`, the option that says where a stopped command leaves finished work, and
    `settings_are_usage`, which makes bad settings wrong usage.
    """
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.replace("%%", "%"))
    command.set_defaults(command=function, **defaults)
    add_debug(command, default=argparse.SUPPRESS)  # or it would undo a --debug before the command
    return command


def add_debug(command: argparse.ArgumentParser, **options: Any) -> None:
    command.add_argument("--debug", action="store_true", help="show the traceback of any error", **options)


def add_group(commands: Any, name: str, text: str) -> Any:
    """A command that only has commands: `r1kit data list`."""
    return commands.add_parser(name, help=text).add_subparsers(metavar="COMMAND", required=True)


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as JSON")


def add_settings(command: argparse.ArgumentParser, metavar: str, text: str) -> None:
    shared: dict[str, Any] = {"action": "append", "default": [], "help": f"{text}; may be repeated"}
    command.add_argument("--set", dest="settings", metavar=metavar, type=values.setting, **shared)


def add_columns(command: argparse.ArgumentParser, example: str) -> None:
    text = f"which columns of the file hold our fields, for example {example} (docs/guides/data.md)"
    command.add_argument("--columns", metavar="FIELD=COLUMN,...", type=values.columns, default={}, help=text)


def add_format(command: argparse.ArgumentParser) -> None:
    text = "how prompts are rendered (default: as the model was trained)"
    command.add_argument("--format", metavar="plain|chat|FILE", help=text)


def add_allow_code(command: argparse.ArgumentParser) -> None:
    text = "run the Python code in the folder of this model (read it first); may be repeated"
    command.add_argument("--allow-code", action="append", default=[], metavar="MODEL", help=text)


def add_address(command: argparse.ArgumentParser, port: int) -> None:
    command.add_argument("--host", default="127.0.0.1", help="address to serve at (127.0.0.1: only this machine)")
    command.add_argument("--port", type=int, default=port, help=f"port to serve at; 0 picks a free one ({port})")
