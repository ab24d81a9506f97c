"""`init`, `run`, `bench`, `plan` and `preflight`: from a recipe to a run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.cli.options import add_allow_code, add_command, add_group, add_json, add_settings
from r1kit.cli.printing import print_json, print_table
from r1kit.cli.values import names, role, whole
from r1kit.store import read_json, to_plain

if TYPE_CHECKING:
    from r1kit.pipeline import Recipe


def add_recipe_runs(commands: Any) -> None:
    init = add_command(
        commands, "init", print_recipe, "print a recipe file to edit: r1kit init r1 --model NAME > r1.toml"
    )
    init.add_argument("recipe", metavar="RECIPE", help="for example r1, sft, or package.module:function")
    _add_inputs(init)
    _add_hardware(init)

    run = add_command(
        commands, "run", run_recipe, "run or resume a recipe; finished stages are not repeated", keeps_in="runs"
    )
    _add_recipe(run)
    _add_controls(run)
    _add_execution(run)

    bench = add_group(commands, "bench", "compare training algorithms")
    text = "train with each algorithm and several seeds, and show which algorithms differ"
    algorithms = add_command(bench, "algorithms", compare_algorithms, text, keeps_in="runs")
    _add_recipe(algorithms, default="r1-zero")
    text = "presets, with changed fields after +: grpo,dr_grpo,grpo+kl_coef=0.1; all others are compared with the first"
    algorithms.add_argument("--presets", metavar="A,B,...", type=names, default=[], help=text)
    algorithms.add_argument("--seeds", type=int, default=5, metavar="N", help="models per algorithm (5)")
    algorithms.add_argument("--stage", default="", help="the RL stage (default: zero, or the only RL stage)")
    _add_execution(algorithms)

    plan = add_command(commands, "plan", show_plan, "show what `run` would do, stage by stage, and why")
    _add_recipe(plan)
    _add_controls(plan)
    text = "the device for sizes, memory and hours: h100, h200, h800, a100, rtx-4090 or cpu"
    plan.add_argument("--hardware", metavar="NAME", help=text)
    text = "measure the speed of the models on this machine, for at most a minute, to estimate the hours"
    plan.add_argument("--measure", action="store_true", help=text)
    text = "devices that share each training stage, for example 8, or 64x8 for 64 nodes of 8; with cpu, cores (1)"
    plan.add_argument("--devices", metavar="N", help=text)
    text = "number of nodes of a Ray cluster: also show when and where each stage runs"
    plan.add_argument("--nodes", type=int, default=0, metavar="N", help=text)

    text = "show what can be set in a kind of stage, or the rewards and their options"
    fields = add_command(commands, "settings", show_settings, text)
    text = "rl, sft, generate, ..., or rewards (default: list the kinds)"
    fields.add_argument("kind", metavar="KIND", nargs="?", default="", help=text)

    text = "check a recipe with three real steps, before it costs anything; exit with status 1 if a check fails"
    preflight = add_command(commands, "preflight", check_recipe, text)
    _add_recipe(preflight)  # all options of `run`, so that its line can be repeated
    _add_controls(preflight)
    _add_execution(preflight)


def _add_recipe(command: argparse.ArgumentParser, default: str = "") -> None:
    """Which recipe, with which settings. `default`: the recipe that runs if none is named."""
    text = "for example r1-zero, a recipe file, or package.module:function"
    optional: dict[str, Any] = {"nargs": "?", "default": default} if default else {}
    command.add_argument("recipe", metavar="RECIPE", help=f"{text} ({default})" if default else text, **optional)
    _add_inputs(command)
    text = "run all stages in minutes, at the smallest sizes, on a random model of the same architecture"
    command.add_argument("--rehearse", action="store_true", help=text)
    add_settings(command, "STAGE.FIELD=VALUE", "change a setting, for example rl.optimizer.learning_rate=1e-4")
    command.add_argument("--until", metavar="STAGE,...", help="run only these stages and the stages that they need")
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of all runs (runs)")
    command.add_argument("--seed", type=whole(0), help="seed of all random numbers (0)")
    add_json(command)


def _add_inputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scale", help="the sizes to use, for example tiny, or package.module:SCALE")
    command.add_argument("--model", help="a known model's name, a folder or a hub id (default: the scale's own)")
    command.add_argument("--student", metavar="MODEL", help="the smaller model that learns from the result")
    command.add_argument("--teacher", metavar="MODEL", help="for distill and v3: the teacher to use instead of R1")
    text = "data for one role of the recipe, once for each: problems=mine.jsonl, eval=gsm8k, or a list of sets, "
    text += '\'problems=["a.jsonl", "gsm8k"]\''
    repeated: dict[str, Any] = {"action": "append", "default": [], "help": text}
    command.add_argument("--data", metavar="ROLE=NAME|FILE|JSON", type=role, **repeated)
    add_allow_code(command)


def _add_controls(command: argparse.ArgumentParser) -> None:
    text = "also train control arms of an RL stage, to split its gain: random,format,shuffled,majority"
    command.add_argument("--controls", metavar="[STAGE:]ARM,...", type=names, default=[], help=text)


def _add_execution(command: argparse.ArgumentParser) -> None:
    """What running needs and a plan does not."""
    text = "how many stages run at a time and share the cores (tiny model on a CPU: number of cores, otherwise 1)"
    command.add_argument("--jobs", type=int, metavar="N", help=text)
    text = "how many devices of this machine share each training stage; without GPUs, processes (1)"
    command.add_argument("--devices", type=int, metavar="N", help=text)
    text = "run the stages on a Ray cluster: ray for the one on this machine or in RAY_ADDRESS, or ray://HOST:PORT"
    command.add_argument("--on", metavar="ray[://HOST:PORT]", help=text)
    text = "show the run in a tracker: trackio, tensorboard, wandb or mlflow; several with commas"
    command.add_argument("--track", action="extend", default=[], metavar="NAME", type=names, help=text)
    text = "hash every file of finished stages first, not only those whose size or time has changed"
    command.add_argument("--verify", action="store_true", help=text)
    _add_hardware(command)


def _add_hardware(command: argparse.ArgumentParser) -> None:
    text = "choose sizes for this device, for example h100 (default: this machine's)"
    command.add_argument("--hardware", metavar="NAME", help=text)


def print_recipe(options: argparse.Namespace) -> None:
    """Print a recipe file to edit."""
    from r1kit.recipes.starting_file import starting_file

    inputs = {name: getattr(options, name) for name in ("scale", "model", "student", "teacher", "hardware")}
    print(starting_file(options.recipe, data=_by_role(options.data), **inputs), end="")


def run_recipe(options: argparse.Namespace) -> None:
    """Execute a recipe. Prints the result's table and, as the last line, the folder of the last stage."""
    _execute(options, _recipe(options))


def compare_algorithms(options: argparse.Namespace) -> None:
    """Train with each algorithm and seed, and print the table that compares them."""
    from r1kit.recipes.algorithms import DEFAULT, algorithm_bench

    _execute(options, algorithm_bench(_recipe(options), options.presets or DEFAULT, options.seeds, options.stage))


def _execute(options: argparse.Namespace, recipe: Recipe) -> None:
    from r1kit.pipeline import execute
    from r1kit.recipes.estimate import hours_of
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
        costs=hours_of,
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


def show_plan(options: argparse.Namespace) -> None:
    """Print what `run` would do. Raises what `run` would raise before it starts, unless it is for named hardware."""
    from r1kit.pipeline import check_ready, plan
    from r1kit.recipes.links import Layout
    from r1kit.recipes.overlap import read_own_files

    layout = None if options.devices is None else Layout.of(options.devices, options.nodes)
    options.devices = None if layout is None else layout.devices
    recipe = _recipe(options)
    layout = layout or Layout.of(recipe.devices, options.nodes)
    steps = plan(recipe, options.runs, options.until)
    rows: list[dict[str, Any]] = [
        {"stage": s.stage.name, "model": s.model, "status": s.status, "why": s.why} for s in steps
    ]
    named = options.hardware or recipe.hardware
    is_estimated = bool(named or options.measure or options.nodes or layout.devices > 1)
    about_sharing = ""
    if not is_estimated or options.json:
        rows = [row | {"folder": str(step.folder)} for row, step in zip(rows, steps, strict=True)]
    if is_estimated:
        from r1kit.recipes import estimate, measure, placement

        rates = measure.measure(recipe) if options.measure else {}
        hardware = named or measure.this_hardware()
        estimates = estimate.estimates(recipe, hardware, layout, rates)
        placed = placement.place(recipe, estimates, layout) if layout.cluster else []
        if options.json:
            rows = [row | {"estimate": to_plain(estimates[row["stage"]])} for row in rows]
            places = {each.stage: {"placement": to_plain(each)} for each in placed}
            rows = [row | places.get(row["stage"], {}) for row in rows]
        else:
            about_sharing = placement.as_text(estimates, placed, layout, hardware)
            rows.append({"stage": "all", "model": "", "status": "", "why": ""})
            estimates["all"] = estimate.total(estimates)
            rows = [row | estimates[row["stage"]].as_text() for row in rows]
    print_table(rows, options.json)
    if not options.json:
        left = sum(step.status != "done" for step in steps)
        print(f"{left} of {len(steps)} stages to do" if left else "nothing to do")
        print(about_sharing, end="")
    if not options.hardware:  # a plan for another device needs neither weights nor public data here
        check_ready(steps, recipe.devices, elsewhere=bool(layout.cluster))
    else:
        read_own_files(recipe.stages)


def show_settings(options: argparse.Namespace) -> None:
    """Print the fields of a kind of stage with their defaults."""
    from r1kit.commands.settings_command import settings_text

    print(settings_text(options.kind))


def check_recipe(options: argparse.Namespace) -> int:
    """Print the checks of each stage that is not done; status 1 if one fails."""
    from r1kit.pipeline.sharing import require_devices
    from r1kit.recipes.preflight import as_text, preflight

    recipe = _recipe(options)
    if options.on is None:
        require_devices(recipe.stages, recipe.devices)
    checked = preflight(recipe, options.runs, options.until, lambda name: print(name, file=sys.stderr))
    print_json(checked) if options.json else print(as_text(checked))
    return int(any(line.verdict == "fails" for stage in checked for line in stage.lines))


def _by_role(data: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Raises `SettingsError` for a role that is named twice."""
    from r1kit.settings import SettingsError

    for name, values in groupby(sorted(data, key=itemgetter(0)), key=itemgetter(0)):
        if len(several := [value for _, value in values]) > 1:
            raise SettingsError(f"--data {name} is given twice: give one list, --data '{name}={json.dumps(several)}'")
    return dict(data)


def _recipe(options: argparse.Namespace) -> Recipe:
    from r1kit.recipes import build_recipe

    recipe = build_recipe(
        options.recipe,
        scale=options.scale,
        model=options.model,
        student=options.student,
        teacher=options.teacher,
        data=_by_role(options.data),
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
