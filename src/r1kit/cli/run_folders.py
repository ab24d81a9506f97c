"""`report`, `status`, `verify-run`, `replay`, `bisect`, `doctor` and `watch`: what runs have left, and what runs do."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from r1kit.cli.options import add_command, add_json
from r1kit.cli.printing import print_check, print_json
from r1kit.store import read_json


def add_run_folders(commands: Any) -> None:
    result = add_command(commands, "report", report, "show the result of a run")
    result.add_argument("run", metavar="RUN_DIR", type=Path, help="a run's folder, or the folder of all its stages")
    add_json(result)

    state = add_command(commands, "status", status, "show progress, health and state of runs, and why they ended")
    text = "the folder of all runs, of one run or of one stage (runs)"
    state.add_argument("runs", metavar="RUNS", nargs="?", type=Path, default=Path("runs"), help=text)
    add_json(state)

    text = "check every file of a run, or of a copy of it, for damage"
    hashes = add_command(commands, "verify-run", verify_run, text)
    text = "a run's folder, one of its stages, or a folder of runs"
    hashes.add_argument("run", metavar="RUN", type=Path, help=text)
    add_json(hashes)

    text = "repeat a step of an RL stage, bit for bit, and show what differs from the log"
    step = add_command(commands, "replay", replay, text)
    step.add_argument("run", metavar="RUN", type=Path, help="a run's folder, or the folder of its RL stage")
    step.add_argument("--step", type=int, required=True, metavar="N", help="the step to repeat, counted from 1")
    step.add_argument("--stage", default="", metavar="NAME", help="the RL stage, if the run has several")
    add_json(step)

    text = "find the first stage, step and tensor in which two runs differ, and show how their settings differ"
    parting = add_command(commands, "bisect", bisect, text)
    parting.add_argument("one", metavar="RUN_A", type=Path, help="a run or a stage")
    parting.add_argument("other", metavar="RUN_B", type=Path, help="a run or a stage")
    add_json(parting)

    text = "show whether runs are broken, with evidence and what to change; exit with status 1 for a fault"
    verdicts = add_command(commands, "doctor", doctor, text)
    verdicts.add_argument("run", metavar="RUN", type=Path, help="the folder of a run, of a stage or of all runs")
    add_json(verdicts)

    page = add_command(commands, "watch", watch, "show runs in the browser, while they run and afterwards")
    text = "the folder of all runs, or of one run (runs)"
    page.add_argument("runs", metavar="RUNS", nargs="?", type=Path, default=Path("runs"), help=text)
    page.add_argument("--port", type=int, default=8766, help="port to serve at; 0 picks a free one (8766)")
    browser = page.add_mutually_exclusive_group()
    browser.add_argument("--open", action="store_true", default=True, help="open the page in the browser (the default)")
    browser.add_argument("--no-browser", dest="open", action="store_false", help="only print the address")


def report(options: argparse.Namespace) -> None:
    """Print the table of a finished run and the path of its page."""
    path: Path = options.run
    folders = [path] if (path / "summary.json").exists() else [file.parent for file in path.glob("*/summary.json")]
    if not folders:
        raise ValueError(
            f"{path} is not a finished run: neither it nor a folder in it has summary.json; finish it with `r1kit run`"
        )
    folder = max(folders, key=lambda folder: (folder / "summary.json").stat().st_mtime_ns)
    summary = read_json(folder / "summary.json")
    if not isinstance(summary, dict) or "table" not in summary:
        raise ValueError(f"{folder / 'summary.json'} has no table, so r1kit did not write it: name a run's folder")
    if options.json:
        print_json({"folder": str(folder), "summary": summary})
    else:
        print(summary["table"])
        print(f"report: {folder / 'report.html'}")
        print(folder)


def status(options: argparse.Namespace) -> None:
    """Print how far runs are, how healthy, and why those that ended badly did."""
    from r1kit.commands import status_command

    runs = status_command.status(options.runs)
    print_json(runs) if options.json else print(status_command.status_text(runs))


def verify_run(options: argparse.Namespace) -> int:
    """Print which files of a run are damaged; status 1 if any is."""
    from r1kit.commands import verify_run_command

    return print_check(verify_run_command.verify_run(options.run), options)


def replay(options: argparse.Namespace) -> int:
    """Print whether a repeated step has the bits that were logged; status 1 if not."""
    from r1kit.commands import replay_command

    say = partial(print, file=sys.stderr)
    return print_check(replay_command.replay(options.run, options.step, options.stage, say), options)


def bisect(options: argparse.Namespace) -> int:
    """Print where two runs part; status 1 if they do."""
    from r1kit.commands import bisect_command

    return print_check(bisect_command.bisect(options.one, options.other), options)


def doctor(options: argparse.Namespace) -> int:
    """Print the verdict on each stage of a run with evidence and remedy; status 1 if one has a fault."""
    from r1kit.commands import doctor_command

    runs = doctor_command.doctor(options.run)
    print_json(runs) if options.json else print(doctor_command.doctor_text(runs))
    return int(not all(run["ok"] for run in runs))


def watch(options: argparse.Namespace) -> None:
    """Serve the live page over run folders until Ctrl+C."""
    from r1kit.web.serve import watch as serve_page

    serve_page(options.runs, port=options.port, opens_browser=options.open)
