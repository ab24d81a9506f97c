"""The whole command line as an argparse tree."""

from __future__ import annotations

import argparse

import r1kit
from r1kit.cli.asking import add_asking
from r1kit.cli.data_files import add_data, add_models
from r1kit.cli.exporting import add_exporting
from r1kit.cli.judging import add_judging, add_sandbox
from r1kit.cli.options import add_debug
from r1kit.cli.recipe_runs import add_recipe_runs
from r1kit.cli.reviewing import add_review
from r1kit.cli.run_folders import add_run_folders


def parser() -> argparse.ArgumentParser:
    """Each file of this package adds a family of commands, in the order in which `r1kit --help` lists them."""
    top = argparse.ArgumentParser(prog="r1kit", description=r1kit.__doc__)
    top.add_argument("--version", action="version", version=f"r1kit {r1kit.__version__}")
    add_debug(top)
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    add_recipe_runs(commands)
    add_asking(commands)
    add_run_folders(commands)
    add_review(commands)
    add_exporting(commands)
    add_models(commands)
    add_data(commands)
    add_judging(commands)
    add_sandbox(commands)
    return top
