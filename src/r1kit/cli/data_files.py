"""`models` and `data`: what is known by name, and what is in a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from r1kit.cli.options import add_columns, add_command, add_format, add_group, add_json
from r1kit.cli.printing import print_check, print_json, print_table
from r1kit.cli.values import whole


def add_models(commands: Any) -> None:
    command = add_command(
        commands, "models", models, "list the known models, or show how a model's turns begin and end"
    )
    text = "show how this model's prompts begin a reply, which tokens end it, and which of them SFT teaches"
    command.add_argument("models", metavar="MODEL", nargs="*", help=text)
    add_format(command)
    add_json(command)


def add_data(commands: Any) -> None:
    data = add_group(commands, "data", "work with data files")
    text = "list the public data sets known by name, with contents, licence and whether they are on this machine"
    add_json(add_command(data, "list", list_data, text))

    text = "show the first prompts and references of a data file, and every fault with its row and field"
    check = add_command(data, "check", check_data, text)
    check.add_argument("file", metavar="FILE", type=Path)
    add_columns(check, "prompt=q,answer=a")
    check.add_argument("--verifier", metavar="NAME", help="judge all rows with this verifier, for example number")
    add_json(check)

    text = "show rows as a model's tokens: prompts, trained tokens (coloured, or in «»), and ends of turns"
    show = add_command(data, "show", show_data, text)
    show.add_argument("file", metavar="FILE", type=Path)
    show.add_argument("--model", required=True, help="a known model's name, a model folder or a hub id")
    add_format(show)
    add_columns(show, "prompt=q,completion=a")
    show.add_argument("--rows", type=whole(1), default=3, metavar="N", help="the first N rows (3)")
    add_json(show)


def models(options: argparse.Namespace) -> None:
    """Print the models known by name, or the turns of the named models; the ids of a row of SFT are in the JSON."""
    from r1kit.commands import listing_commands, turns_command

    if not options.models:
        print_table(listing_commands.models(), options.json)
        return
    rows = turns_command.model_turns(options.models, options.format)
    if not options.json:
        rows = [{name: value for name, value in row.items() if not name.endswith("_ids")} for row in rows]
    print_table(rows, options.json)


def list_data(options: argparse.Namespace) -> None:
    """Print the public sets known by name, with their licences."""
    from r1kit.commands import listing_commands

    print_table(listing_commands.data_sets(), options.json)


def check_data(options: argparse.Namespace) -> int:
    """Print the first prompts and references of a data file, and its faults; status 1 if it has any."""
    from r1kit.commands import listing_commands

    return print_check(listing_commands.check_data(options.file, options.columns, options.verifier), options)


def show_data(options: argparse.Namespace) -> None:
    """Print rows of a data file as a model's tokens, with those that are trained on marked."""
    from r1kit.commands import show_data_command

    result = show_data_command.show_data(
        options.file,
        options.model,
        options.format,
        options.columns,
        options.rows,
        in_colour=sys.stdout is not None and sys.stdout.isatty(),
    )
    text = result.pop("text")
    print_json(result) if options.json else print(text)
