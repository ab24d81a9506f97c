"""The command line: arguments in, calls to the layers below, results on stdout, progress and errors on stderr.

Only the standard library is imported here; what a command needs is imported inside the command, so `--help` is quick.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import shlex
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import r1kit
from r1kit.store import StoreError, read_json, to_plain

if TYPE_CHECKING:
    from r1kit.pipeline import Recipe

# What a user can mend gets one message; anything else is a bug of ours and shows where it happened.
USERS_TO_MEND = (ValueError, StoreError, OSError, FloatingPointError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 wrong usage, 128 + n stopped by signal n.

    Verifiers, rewards and options that do not exist are wrong usage of `verify` and `score`, as `--verfier` is.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # model text may hold what a terminal's encoding lacks
        sys.stdout.reconfigure(errors="replace")
    try:
        status: int | None = options.command(options)
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()  # here, where an error is still told
        return status or 0
    except KeyboardInterrupt as stop:
        keeps = options.command is run or getattr(options, "out", None) is not None
        again = f"\nnothing finished is lost; to go on: {shlex.join(['r1kit', *arguments])}" if keeps else ""
        print(f"{_told(stop) or 'stopped'}{again}", file=sys.stderr)
        return 128 + getattr(stop, "signum", 2)
    except BrokenPipeError:  # `r1kit plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at exit
        return 1
    except USERS_TO_MEND as error:
        if options.debug:
            traceback.print_exc()
        else:
            print(f"r1kit: error: {_told(error)}", file=sys.stderr)
        return 2 if options.command in (verify, score) and _is_usage(error) else 1


def _is_usage(error: BaseException) -> bool:
    from r1kit.settings import SettingsError

    return isinstance(error, SettingsError)


def _told(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])]).strip()


def parser() -> argparse.ArgumentParser:
    """The whole command line as an argparse tree; each command sets `command` to its function."""
    top = argparse.ArgumentParser(prog="r1kit", description=r1kit.__doc__)
    top.add_argument("--version", action="version", version=f"r1kit {r1kit.__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _add_run(_command(commands, "run", run, "run a recipe; what is finished is not done again"))
    _add_plan(_command(commands, "plan", plan, "say what `run` would do, stage by stage, and why"))
    _add_eval(_command(commands, "eval", evaluate, "measure a model on a task, with 95 %% intervals"))
    _add_generate(_command(commands, "generate", generate, "sample completions for a prompt, a task or a file"))
    _add_chat(_command(commands, "chat", chat, "talk to a model"))
    _add_report(_command(commands, "report", report, "show the result of a run"))
    _add_review(_command(commands, "review", review, "read, edit, accept or reject samples on a page in the browser"))
    _add_json(_command(commands, "models", models, "list the models known by name"))
    data = commands.add_parser("data", help="work with data files").add_subparsers(metavar="COMMAND", required=True)
    check = _command(data, "check", check_data, "validate a data file: names file, row and field of what is wrong")
    check.add_argument("file", metavar="FILE", type=Path)
    _add_json(check)
    _add_verify(_command(commands, "verify", verify, "judge answers, or measure how often a verifier is wrong"))
    _add_score(_command(commands, "score", score, "give completions their rewards, part by part"))
    _add_sandbox(commands.add_parser("sandbox", help="where untrusted programs run"))
    return top


def _command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.replace("%%", "%"))
    made.set_defaults(command=function)
    made.add_argument("--debug", action="store_true", help="show the traceback of any error")
    return made


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", metavar="RECIPE", help="for example r1-zero")
    command.add_argument("--scale", help="how large to run, for example tiny")
    command.add_argument("--model", help="a known model's name or a model folder; the scale's own if left out")
    command.add_argument("--teacher", metavar="MODEL", help="for distill and v3: who writes, in place of R1")
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="STAGE.FIELD=VALUE",
        type=setting,
        help="change a setting, for example rl.optimizer.learning_rate=1e-4; may be repeated",
    )
    command.add_argument("--until", metavar="STAGE", help="stop after this stage")
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept (runs)")
    command.add_argument("--seed", type=int, default=0, help="0 if left out")
    _add_json(command)


def _add_plan(command: argparse.ArgumentParser) -> None:
    _add_run(command)
    command.add_argument("--hardware", metavar="NAME", help="estimate samples, tokens, memory and hours: cpu, h100 ...")
    command.add_argument("--devices", type=int, default=1, metavar="N", help="how many of them (1); of cpu, cores")


def _add_eval(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="a known model's name or a model folder")
    command.add_argument("--task", required=True, metavar="NAME|FILE", help="a task known by name or a data file")
    command.add_argument("--split", default="test")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N problems")
    _add_sampling(command, samples=1, temperature=0.0)
    command.add_argument("--compare", metavar="MODEL", help="a second model, for a paired test on the same problems")
    command.add_argument("--out", type=Path, metavar="DIR", help="keep completions.jsonl and results.json there")
    _add_json(command)


def _add_sampling(command: argparse.ArgumentParser, *, samples: int, temperature: float) -> None:
    command.add_argument("--samples", type=int, default=samples, metavar="K", help=f"completions a problem ({samples})")
    command.add_argument("--temperature", type=float, default=temperature, help=f"0 is greedy ({temperature:g})")
    command.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest completion (512)")
    command.add_argument(
        "--format", metavar="plain|chat|FILE", help="how prompts are made; as the model was trained if left out"
    )
    command.add_argument("--seed", type=int, default=0)


def _add_generate(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="a known model's name or a model folder")
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT")
    source.add_argument("--task", metavar="NAME", help="a task known by name")
    source.add_argument("file", metavar="FILE", nargs="?", type=Path, help="JSONL or Parquet with a prompt column")
    command.add_argument("--split", default="test")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N problems")
    _add_sampling(command, samples=1, temperature=1.0)
    command.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write rows there; a repeated run goes on")


def _add_chat(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="a known model's name or a model folder")
    _add_sampling(command, samples=1, temperature=0.6)


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN_DIR", type=Path, help="a run's folder, or the folder of all its stages")
    _add_json(command)


def _add_review(command: argparse.ArgumentParser) -> None:
    command.add_argument("queue", metavar="QUEUE", type=Path, help="a queue's file, or the folder of a review stage")
    command.add_argument("--import", dest="rows", metavar="FILE.jsonl", type=Path, help="add samples; makes the queue")
    command.add_argument(
        "--double", metavar="SHARE", type=float, help="give this share of the samples to two reviewers, 0 to 1 (0)"
    )
    command.add_argument("--lease", metavar="MINUTES", type=float, help="how long a sample is kept for one person (15)")
    command.add_argument("--auto-accept", action="store_true", help="accept what is pending, without a page")
    command.add_argument("--export", metavar="FILE.jsonl", type=Path, help="write accepted samples, without a page")
    command.add_argument("--rejected", metavar="FILE.jsonl", type=Path, help="with --export: write rejected ones too")
    command.add_argument("--reviewer", default="", metavar="NAME", help="whoever opens the page; asked for if left out")
    command.add_argument("--host", default="127.0.0.1", help="address to serve at (127.0.0.1: this machine alone)")
    command.add_argument("--port", type=int, default=8765, help="port to serve at; 0 takes a free one (8765)")


def _add_verify(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", nargs="?", type=Path, help="rows with prediction and answer")
    command.add_argument(
        "--verifier", metavar="NAME", help="for example math; with --conformance also package.module:f"
    )
    command.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write the rows there and print the counts")
    command.add_argument("--conformance", action="store_true", help="run labelled cases and print error rates")
    command.add_argument("--cases", metavar="NAME|FILE.jsonl", help="with --conformance: whose cases, or your own")
    _add_json(command)


def _add_score(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", type=Path, help="rows with completion and the rewards' columns")
    command.add_argument("--rewards", required=True, metavar="A,B", help="names, dotted paths, or a JSON list of specs")
    command.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME.OPTION=VALUE",
        type=setting,
        help="set a reward's option or weight, for example cosine_scaled.max_len=500; may be repeated",
    )
    command.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write the rows there and print the means")
    _add_json(command)


def _add_sandbox(command: argparse.ArgumentParser) -> None:
    commands = command.add_subparsers(metavar="COMMAND", required=True)
    _add_json(
        _command(commands, "check", check_sandbox, "say what runs untrusted programs here, and prove what it holds")
    )
    serving = _command(commands, "serve", serve_sandbox, "run programs for other machines, over HTTP")
    serving.add_argument("--host", default="127.0.0.1", help="address to serve at (127.0.0.1: this machine alone)")
    serving.add_argument("--port", type=int, default=8190, help="port to serve at; 0 takes a free one (8190)")
    serving.add_argument(
        "--token-variable",
        default="R1KIT_SANDBOX_TOKEN",
        metavar="NAME",
        help="environment variable with the token that clients must send (R1KIT_SANDBOX_TOKEN)",
    )


def setting(text: str) -> tuple[str, Any]:
    """`"rl.steps=9"` -> `("rl.steps", "9")`; lists, objects and null are read as JSON."""
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")) or "." not in path:
        raise argparse.ArgumentTypeError(f"{text!r} is not STAGE.FIELD=VALUE, as in rl.optimizer.learning_rate=1e-4")
    if value[:1] not in ("[", "{") and value != "null":
        return path, value
    try:
        return path, json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{path}: {value!r} looks like JSON but is not: {error}") from None


def _recipe(options: argparse.Namespace) -> Recipe:
    from r1kit.recipes import RECIPES
    from r1kit.settings import nearest

    name = options.recipe
    if name not in RECIPES:
        raise ValueError(f"there is no recipe {name!r}: {nearest(name, RECIPES)}")
    given = {"scale": options.scale, "model": options.model, "teacher": options.teacher}
    chosen = {key: value for key, value in given.items() if value is not None}
    if idle := [f"--{key}" for key in chosen if key not in inspect.signature(RECIPES[name]).parameters]:
        raise ValueError(f"recipe {name} has no {' and no '.join(idle)}: leave it out")
    recipe: Recipe = RECIPES[name](**chosen, overrides=dict(options.settings), seed=options.seed)
    return recipe


def run(options: argparse.Namespace) -> None:
    """Execute a recipe; prints the result's table and, as the last line, the folder of the last stage."""
    from r1kit.pipeline import execute

    folder = execute(_recipe(options), options.runs, options.until)
    summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
    if options.json:
        _print_json({"folder": str(folder), "summary": summary})
        return
    if "table" in summary:
        print(summary["table"])
    if (folder / "report.html").exists():
        print(f"report: {folder / 'report.html'}")
    print(folder)


def plan(options: argparse.Namespace) -> None:
    """Print what `run` would do; raises what `run` would raise before it begins."""
    from r1kit.pipeline import check_ready, plan

    recipe = _recipe(options)
    rows = plan(recipe, options.runs, options.until)
    shown = [{"stage": row.stage.name, "status": row.status, "why": row.why, "folder": str(row.folder)} for row in rows]
    if options.hardware is not None:
        from r1kit.recipes import estimate

        lengths = estimate.lengths_of(recipe)
        if options.json:
            found = estimate.estimates(recipe, options.hardware, options.devices, lengths)
            shown = [row | {"estimate": to_plain(found[row["stage"]])} for row in shown]
        else:
            told = estimate.rows(recipe, options.hardware, options.devices, lengths)
            shown = [{**_without(row, "folder"), **told[row["stage"]]} for row in shown]
            shown.append({"stage": "all", "status": "", "why": "", **told[""]})
    _print_rows(shown, options.json)
    if not options.json:
        left = sum(row.status != "done" for row in rows)
        print(f"{left} of {len(rows)} stages to do" if left else "nothing to do")
    check_ready(rows)


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def evaluate(options: argparse.Namespace) -> None:
    """Print the table of one model, or of two and their paired difference."""
    from r1kit.commands import model_commands

    result = model_commands.evaluate(
        options.model,
        task=options.task,
        split=options.split,
        limit=options.limit,
        sampling=_sampling(options),
        template=options.format,
        compare=options.compare,
        out=options.out,
    )
    if options.json:
        _print_json(result)
    else:
        print(result["table"])


def generate(options: argparse.Namespace) -> None:
    """Print completions, or write them as rows to a file."""
    from r1kit.commands import model_commands

    rows = model_commands.generate(
        options.model,
        prompt=options.prompt,
        task=options.task or options.file,
        split=options.split,
        limit=options.limit,
        sampling=_sampling(options),
        template=options.format,
        out=options.out,
    )
    if options.out is not None:
        print(f"{sum(1 for _ in rows)} new rows in {options.out}")
        return
    for row in rows:
        print(row["completion"] if options.prompt else json.dumps(to_plain(row), ensure_ascii=False), flush=True)


def chat(options: argparse.Namespace) -> None:
    """Answer questions from stdin until it ends."""
    from r1kit.commands import model_commands

    model_commands.chat(options.model, sampling=_sampling(options), template=options.format)


def _sampling(options: argparse.Namespace) -> Any:
    from r1kit.types import SamplingParams

    return SamplingParams(
        n=options.samples, temperature=options.temperature, max_tokens=options.max_tokens, seed=options.seed
    )


def report(options: argparse.Namespace) -> None:
    """Print the table of a finished run and where its page is."""
    folder = _report_folder(options.run)
    summary = read_json(folder / "summary.json")
    if not isinstance(summary, dict) or "table" not in summary:
        raise ValueError(f"{folder / 'summary.json'} holds no table: it is not of a run of r1kit")
    if options.json:
        _print_json({"folder": str(folder), "summary": summary})
    else:
        print(summary["table"])
        print(f"report: {folder / 'report.html'}")
        print(folder)


def _report_folder(path: Path) -> Path:
    """The run's folder itself, or the newest one below it that holds a summary."""
    found = [path] if (path / "summary.json").exists() else [file.parent for file in path.glob("*/summary.json")]
    if not found:
        raise ValueError(f"{path} holds no finished run: no summary.json in it or one folder below; see `r1kit run`")
    return max(found, key=lambda folder: (folder / "summary.json").stat().st_mtime_ns)


def review(options: argparse.Namespace) -> None:
    """Import, accept, export as asked, in this order; without the last two, serve the page until Ctrl+C."""
    from r1kit.data.jsonl import read_rows
    from r1kit.review.queue import ReviewError, ReviewQueue

    path = options.queue / "review.db" if options.queue.is_dir() else options.queue
    if options.rejected and not options.export:
        raise ReviewError("--rejected goes with --export: give both")
    opening = {"double_share": options.double, "lease_minutes": options.lease}
    if options.rows is not None:
        ReviewQueue.create(path, read_rows(options.rows), **opening).close()
    with ReviewQueue.create(path, **opening) if path.exists() else ReviewQueue(path) as queue:
        if options.auto_accept:
            print(f"{queue.auto_accept()} samples accepted by nobody")
        if options.export:
            print(f"{queue.export(options.export, rejected=options.rejected)} accepted samples in {options.export}")
            if left := queue.pending():
                print(f"{left} samples are still pending", file=sys.stderr)
    if options.auto_accept or options.export:
        return
    from r1kit.web.serve import serve

    serve(path, host=options.host, port=options.port, who=options.reviewer)


def models(options: argparse.Namespace) -> None:
    """Print the models known by name."""
    from r1kit.commands import model_commands

    _print_rows(model_commands.models(), options.json)


def check_data(options: argparse.Namespace) -> int:
    """Print what a data file holds and what is wrong with it; the status is 1 where anything is."""
    from r1kit.commands import model_commands

    return _print_checked(model_commands.check_data(options.file), options)


def verify(options: argparse.Namespace) -> int:
    """Print rows with verdicts, or with --out their counts; with --conformance error rates (status 1 if not good)."""
    from collections import Counter

    from r1kit.commands import verify
    from r1kit.settings import SettingsError

    if options.conformance:
        if options.file is not None or options.out is not None:
            raise SettingsError("--conformance runs labelled cases: give no file and no --out; own cases go to --cases")
        found, text, good = verify.conformance(options.verifier, options.cases)
        _print_json(found) if options.json else print(text)
        return 0 if good else 1
    if options.file is None or options.verifier is None or options.cases is not None:
        raise SettingsError(
            "verify takes a FILE and --verifier NAME, or --conformance with --verifier and --cases if wanted"
        )
    counts: Counter[str] = Counter()
    rows = verify.verify(options.file, options.verifier, options.out, counts)
    for _ in _printed(rows, options):
        pass
    summary = verify.verify_summary(options.verifier, counts)
    _print_summary(summary, options)
    return 0


def score(options: argparse.Namespace) -> None:
    """Print rows with rewards, or with --out or --json the means."""
    from r1kit.commands import verify

    scorer = verify.scorer_of(options.rewards, options.settings)
    rows = verify.score(options.file, scorer, options.out)
    _print_summary(verify.score_summary(_printed(rows, options), scorer), options)


def _printed(rows: Iterable[Mapping[str, Any]], options: argparse.Namespace) -> Iterator[Any]:
    """The same rows, each printed as a line of JSON where neither a file nor a summary takes its place."""
    for row in rows:
        if options.out is None and not options.json:
            print(json.dumps(to_plain(row), ensure_ascii=False), flush=True)
        yield row


def _print_summary(summary: dict[str, Any], options: argparse.Namespace) -> None:
    """As JSON, or as text: on stderr where rows were printed."""
    text = summary.pop("text")
    if options.json:
        _print_json(summary)
    else:
        print(text, file=sys.stderr if options.out is None else sys.stdout)


def check_sandbox(options: argparse.Namespace) -> int:
    """Print which sandbox there is and what it enforces; the status is 1 where programs cannot be run safely."""
    from r1kit.commands import sandbox_commands

    return _print_checked(sandbox_commands.check(), options)


def serve_sandbox(options: argparse.Namespace) -> None:
    """Serve until Ctrl+C."""
    from r1kit.commands import sandbox_commands

    sandbox_commands.serve(options.host, options.port, options.token_variable)


def _print_checked(found: dict[str, Any], options: argparse.Namespace) -> int:
    """What a check found, as JSON or as text; its exit status."""
    text = found.pop("text")
    _print_json(found) if options.json else print(text)
    return 0 if found["ok"] else 1


def _print_json(value: Any) -> None:
    print(json.dumps(to_plain(value), ensure_ascii=False, indent=2))


def _print_rows(rows: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    rows = list(rows)
    if as_json:
        _print_json(rows)
        return
    names = list(rows[0]) if rows else []
    widths = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in names}
    for row in [dict(zip(names, names, strict=True)), *rows]:
        print("  ".join(f"{row[name]!s:{widths[name]}}" for name in names).rstrip())
