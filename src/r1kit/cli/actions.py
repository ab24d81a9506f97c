"""Each command calls the layers below with its parsed options, and prints the result."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.cli.printing import print_check, print_json, print_json_line, print_stream, print_summary, print_table
from r1kit.store import read_json, to_plain

if TYPE_CHECKING:
    from r1kit.pipeline import Recipe


def run(options: argparse.Namespace) -> None:
    """Execute a recipe. Prints the result's table and, as the last line, the folder of the last stage."""
    _execute(options, _recipe(options))


def bench_algorithms(options: argparse.Namespace) -> None:
    """Train with each algorithm and seed, and print the table that compares them."""
    from r1kit.recipes.algorithms import DEFAULT, algorithm_bench

    _execute(options, algorithm_bench(_recipe(options), options.presets or DEFAULT, options.seeds, options.stage))


def _execute(options: argparse.Namespace, recipe: Recipe) -> None:
    from r1kit.pipeline import execute
    from r1kit.tracking import tracked

    cluster = None
    if options.on is not None:
        from r1kit.cluster import on_cluster

        cluster = on_cluster(options.on, options.jobs)
    jobs = options.jobs
    if jobs is None:
        jobs = _default_jobs(recipe) if cluster is None else 1
    companion = partial(tracked, recipe.track)
    folder = execute(
        recipe,
        options.runs,
        options.until,
        jobs,
        devices=recipe.devices,
        cluster=cluster,
        companion=companion,
        verify=options.verify,
    )
    summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
    if options.json:
        print_json({"folder": str(folder), "summary": summary})
        return
    if summary.get("table"):  # a reward model's run measures no answers
        print(summary["table"])
    if (folder / "report.html").exists():
        print(f"report: {folder / 'report.html'}")
    print(folder)


def _default_jobs(recipe: Recipe) -> int:
    """One, unless the stages are so light that each core takes one. All stages together may be too much for a GPU."""
    if not recipe.light:
        return 1
    from r1kit.cores import cpu_count
    from r1kit.models.devices import device_of

    return max(1, cpu_count() // recipe.devices) if device_of("auto").type == "cpu" else 1


def init(options: argparse.Namespace) -> None:
    """Print a recipe file to edit."""
    from r1kit.recipes.starting_file import starting_file

    names = ("scale", "model", "student", "teacher", "hardware")
    print(
        starting_file(options.recipe, data=dict(options.data), **{name: getattr(options, name) for name in names}),
        end="",
    )


def show_plan(options: argparse.Namespace) -> None:
    """Print what `run` would do. Raises what `run` would raise before it starts, unless it is for named hardware."""
    from r1kit.pipeline import check_ready, plan

    recipe = _recipe(options)
    steps = plan(recipe, options.runs, options.until)
    rows: list[dict[str, Any]] = [
        {"stage": s.stage.name, "model": s.model, "status": s.status, "why": s.why} for s in steps
    ]
    named = options.hardware or recipe.hardware
    is_estimated = bool(named or options.measure)
    if not is_estimated or options.json:
        rows = [row | {"folder": str(step.folder)} for row, step in zip(rows, steps, strict=True)]
    if is_estimated:
        from r1kit.recipes import estimate, measure

        rates = measure.measure(recipe) if options.measure else {}
        hardware = named or measure.this_hardware()
        estimates = estimate.estimates(recipe, hardware, recipe.devices, rates)
        if options.json:
            rows = [row | {"estimate": to_plain(estimates[row["stage"]])} for row in rows]
        else:
            rows.append({"stage": "all", "model": "", "status": "", "why": ""})
            estimates["all"] = estimate.total(estimates)
            rows = [row | estimates[row["stage"]].as_text() for row in rows]
    print_table(rows, options.json)
    if not options.json:
        left = sum(step.status != "done" for step in steps)
        print(f"{left} of {len(steps)} stages to do" if left else "nothing to do")
    if not options.hardware:  # a plan for another device needs neither weights nor data here
        check_ready(steps, recipe.devices)


def preflight(options: argparse.Namespace) -> int:
    """Print the checks of each stage that is not done; status 1 if one fails."""
    from r1kit.recipes.preflight import as_text, preflight

    checked = preflight(_recipe(options), options.runs, options.until, lambda name: print(name, file=sys.stderr))
    print_json(checked) if options.json else print(as_text(checked))
    return int(any(line.verdict == "fails" for stage in checked for line in stage.lines))


def _recipe(options: argparse.Namespace) -> Recipe:
    from r1kit.recipes import build_recipe

    recipe = build_recipe(
        options.recipe,
        scale=options.scale,
        model=options.model,
        student=options.student,
        teacher=options.teacher,
        data=dict(options.data),
        hardware=options.hardware,
        devices=options.devices,
        rehearse=options.rehearse,
        overrides=dict(options.settings),
        seed=options.seed,
        track=getattr(options, "track", ()),  # `plan` has no trackers
        controls=getattr(options, "controls", ()),  # a bench has none
        allow_code=getattr(options, "allow_code", ()),
    )
    for note in recipe.notes:
        print(note, file=sys.stderr)
    return recipe


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


def review(options: argparse.Namespace) -> None:
    """Import, accept, export, in this order; without the last two, serve the page until Ctrl+C."""
    from r1kit.data.rows import readable_rows
    from r1kit.review.items import ReviewError
    from r1kit.review.queue import ReviewQueue

    path = options.queue / "review.db" if options.queue.is_dir() else options.queue
    if options.rejected and not options.export:
        raise ReviewError("--rejected goes with --export: give both")
    shared = {"double_share": options.double, "lease_minutes": options.lease}
    if options.rows is not None:
        ReviewQueue.create(path, readable_rows(options.rows), **shared).close()
    with ReviewQueue.create(path, **shared) if path.exists() else ReviewQueue(path) as queue:
        if options.auto_accept:
            print(f"auto-accepted {queue.auto_accept()} pending samples")
        if options.export:
            print(f"{queue.export(options.export, rejected=options.rejected)} accepted samples in {options.export}")
            if left := queue.pending():
                print(f"{left} samples are still pending", file=sys.stderr)
    if options.auto_accept or options.export:
        return
    from r1kit.web.serve import serve

    serve(path, host=options.host, port=options.port, who=options.reviewer)


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


def serve(options: argparse.Namespace) -> None:
    """Serve a model to OpenAI's clients until a signal stops it."""
    import os

    from r1kit.serve import serve

    serve(
        options.model,
        name=options.name,
        host=options.host,
        port=options.port,
        key=options.api_key or os.environ.get("R1KIT_API_KEY", ""),
        template=options.format,
        engine=options.engine,
        queue=options.queue,
    )


def export(options: argparse.Namespace) -> None:
    """Write a model for other programs. Prints the table of the proof and, as the last line, the folder."""
    from r1kit.export import export as export_model

    exported = export_model(
        options.model,
        options.to,
        options.out,
        quant=options.quant,
        template=options.format,
        prompts=options.prompts,
        prove=options.proof,
        say=lambda line: print(line, file=sys.stderr),
    )
    if options.json:
        print_json({"folder": str(exported.folder), "proof": exported.checks, "warnings": exported.warnings})
    else:
        print(exported.text)


def push(options: argparse.Namespace) -> None:
    """Upload a model with its card. Prints the proof, the folder, and the address unless it is a dry run."""
    from r1kit.export import push as push_model

    exported, address = push_model(
        options.model,
        options.repository,
        public=options.public,
        dry_run=options.dry_run,
        to=options.to,
        out=options.out,
        template=options.format,
        prompts=options.prompts,
        prove=options.proof,
        say=lambda line: print(line, file=sys.stderr),
    )
    if options.json:
        facts = {"folder": str(exported.folder), "address": address}
        print_json(facts | {"proof": exported.checks, "warnings": exported.warnings})
    else:
        print("\n".join(filter(None, [exported.text, address])))


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


def verify(options: argparse.Namespace) -> int:
    """Print rows with verdicts, with --out their counts, with --conformance error rates (status 1 if they are bad)."""
    from collections import Counter

    from r1kit.commands import verify_command
    from r1kit.settings import SettingsError

    if options.conformance:
        if options.file is not None or options.out is not None:
            raise SettingsError("--conformance runs labelled cases: leave out FILE and --out; --cases takes your own")
        data, text, passed = verify_command.conformance(options.verifier, options.cases)
        print_json(data) if options.json else print(text)
        return 0 if passed else 1
    if options.file is None or options.verifier is None or options.cases is not None:
        raise SettingsError("verify takes FILE and --verifier NAME, or --conformance with optional --verifier, --cases")
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
