"""`verify`, `score` and `sandbox`: what answers are worth, and where programs in them run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from r1kit.cli.options import add_address, add_columns, add_command, add_group, add_json, add_settings
from r1kit.cli.printing import print_check, print_json, print_stream, print_summary


def add_judging(commands: Any) -> None:
    text = "judge answers, or measure how often a verifier is wrong"
    verdicts = add_command(commands, "verify", verify, text, settings_are_usage=True)
    verdicts.add_argument("file", metavar="FILE", nargs="?", type=Path, help="rows with prediction and answer")
    text = "for example math; with --conformance also package.module:function"
    verdicts.add_argument("--verifier", metavar="NAME", help=text)
    add_columns(verdicts, "prediction=output,answer=gold")
    verdicts.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write the rows here and print the counts")
    verdicts.add_argument("--conformance", action="store_true", help="run labelled cases and print error rates")
    verdicts.add_argument("--cases", metavar="NAME|FILE.jsonl", help="with --conformance: a verifier's cases, or yours")
    add_json(verdicts)

    text = "compute the rewards of completions, each part separately"
    rewards = add_command(commands, "score", score, text, settings_are_usage=True)
    rewards.add_argument("file", metavar="FILE", type=Path, help="rows with completion and the rewards' columns")
    rewards.add_argument("--rewards", required=True, metavar="A,B", help="names, dotted paths, or a JSON list of specs")
    text = "set a reward's option or weight, for example cosine_scaled.max_len=500"
    add_settings(rewards, "NAME.OPTION=VALUE", text)
    rewards.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write the rows here and print the means")
    add_json(rewards)


def add_sandbox(commands: Any) -> None:
    sandbox = add_group(commands, "sandbox", "check the sandbox for untrusted programs, or serve it")
    text = "show which sandbox this machine has, and test what it enforces"
    add_json(add_command(sandbox, "check", check_sandbox, text))

    server = add_command(sandbox, "serve", serve_sandbox, "run programs for other machines, over HTTP")
    add_address(server, 8190)
    text = "environment variable with the token that clients must send (R1KIT_SANDBOX_TOKEN)"
    server.add_argument("--token-variable", default="R1KIT_SANDBOX_TOKEN", metavar="NAME", help=text)


def verify(options: argparse.Namespace) -> int:
    """Print rows with verdicts, with --out their counts, with --conformance error rates (status 1 if they are bad)."""
    from collections import Counter

    from r1kit.commands import verify_command
    from r1kit.settings import SettingsError

    if options.conformance:
        if options.file is not None or options.out is not None:
            raise SettingsError("--conformance uses labelled cases: leave out FILE and --out; --cases takes your own")
        data, text, passed = verify_command.conformance(options.verifier, options.cases)
        print_json(data) if options.json else print(text)
        return 0 if passed else 1
    if options.cases is not None:
        raise SettingsError("--cases needs --conformance")
    if options.file is None or options.verifier is None:
        missing = "FILE" if options.file is None else "--verifier NAME (math, number, choice, code, ...)"
        raise SettingsError(f"{missing} is missing: verify needs FILE and --verifier NAME, or --conformance")
    counts: Counter[str] = Counter()
    rows = verify_command.verify_rows(options.file, options.verifier, options.out, counts, options.columns)
    for _ in print_stream(rows, options):
        pass
    print_summary(verify_command.verify_summary(options.verifier, counts), options)
    return 0


def score(options: argparse.Namespace) -> None:
    """Print rows with rewards; with --out or --json their means."""
    from collections import Counter

    from r1kit.commands import score_command

    scorer = score_command.build_scorer(options.rewards, options.settings)
    counts: Counter[str] = Counter()
    rows = score_command.score_rows(options.file, scorer, options.out, counts)
    print_summary(score_command.score_summary(print_stream(rows, options), scorer, counts), options)


def check_sandbox(options: argparse.Namespace) -> int:
    """Print which sandbox there is and what it enforces; status 1 if programs cannot run safely."""
    from r1kit.commands import sandbox_commands

    return print_check(sandbox_commands.check_sandbox(), options)


def serve_sandbox(options: argparse.Namespace) -> None:
    """Serve until Ctrl+C."""
    from r1kit.commands import sandbox_commands

    sandbox_commands.serve_sandbox(options.host, options.port, options.token_variable)
