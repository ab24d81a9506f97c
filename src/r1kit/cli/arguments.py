"""The commands and their options as an argparse tree."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import r1kit
from r1kit.cli import actions
from r1kit.store import StoreError, read_bounded

MODEL_HELP = "a known model's name or a model folder; with --engine, the engine's name for it"
FORMAT_HELP = "how prompts are rendered (default: as the model was trained)"
EXPORTED_HELP = "a known model's name, a model folder, an adapter's folder, or a hub id"
ENGINE_HELP = (
    "ask another engine instead of running MODEL here: a server's address, such as http://localhost:8000/v1, your own "
    "engine as module:Class, or engine settings as JSON or in a file, such as "
    '{"kind": "openai", "base_url": ..., "api_key_env": ...}'
)


def parser() -> argparse.ArgumentParser:
    """The whole command line; each command sets `command` to its function in `actions`."""
    top = argparse.ArgumentParser(prog="r1kit", description=r1kit.__doc__)
    top.add_argument("--version", action="version", version=f"r1kit {r1kit.__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    init = _command(commands, "init", actions.init, "print a recipe file to edit: r1kit init r1 --model NAME > r1.toml")
    init.add_argument("recipe", metavar="RECIPE", help="for example r1, sft, or package.module:function")
    _add_inputs(init)
    _add_hardware(init)
    run = _command(commands, "run", actions.run, "run a recipe; finished stages are not run again")
    _add_run(run)
    _add_controls(run)
    _add_execution(run)
    _add_bench(commands)
    plan = _command(commands, "plan", actions.show_plan, "show what `run` would do, stage by stage, and why")
    _add_run(plan)
    _add_controls(plan)
    plan.add_argument("--hardware", metavar="NAME", help="choose sizes and estimate tokens, memory and hours: h100 ...")
    measure_help = "measure the models here for at most a minute: hours are of this machine, memory of --hardware"
    plan.add_argument("--measure", action="store_true", help=measure_help)
    plan.add_argument("--devices", type=int, metavar="N", help="number of devices, for cpu of cores (1)")
    preflight_help = "check a recipe with three real steps before it costs anything: status 1 if a check fails"
    preflight = _command(commands, "preflight", actions.preflight, preflight_help)
    _add_run(preflight)  # all options of `run`, so that its line can be repeated
    _add_controls(preflight)
    _add_execution(preflight)
    _add_answering_commands(commands)
    report = _command(commands, "report", actions.report, "show the result of a run")
    report.add_argument("run", metavar="RUN_DIR", type=Path, help="a run's folder, or the folder of all its stages")
    _add_json(report)
    status_help = "show what runs, how far it is, how healthy, and why runs ended"
    status = _command(commands, "status", actions.status, status_help)
    runs_help = "folder of all runs, one run's folder, or one stage's (runs)"
    status.add_argument("runs", metavar="RUNS", nargs="?", type=Path, default=Path("runs"), help=runs_help)
    _add_json(status)
    verify_run_help = "hash every file of a run, or of a copy of it, and name those that are damaged"
    verify_run = _command(commands, "verify-run", actions.verify_run, verify_run_help)
    run_help = "a run's folder, one of its stages, or a folder of runs"
    verify_run.add_argument("run", metavar="RUN", type=Path, help=run_help)
    _add_json(verify_run)
    replay_help = "repeat a step of an RL stage, bit for bit, and show what differs from what was logged"
    replay = _command(commands, "replay", actions.replay, replay_help)
    replay.add_argument("run", metavar="RUN", type=Path, help="a run's folder, or the folder of its RL stage")
    replay.add_argument("--step", type=int, required=True, metavar="N", help="the step, from 1")
    replay.add_argument("--stage", default="", metavar="NAME", help="the RL stage, if the run has several")
    _add_json(replay)
    bisect_help = "name the first stage, step and tensor at which two runs part, and how their settings differ"
    bisect = _command(commands, "bisect", actions.bisect, bisect_help)
    for name in ("one", "other"):
        bisect.add_argument(name, metavar=f"RUN_{'A' if name == 'one' else 'B'}", type=Path, help="a run or a stage")
    _add_json(bisect)
    doctor_help = "say whether runs are broken, in which way, by which figures, and what helps: status 1 for a fault"
    doctor = _command(commands, "doctor", actions.doctor, doctor_help)
    doctor.add_argument("run", metavar="RUN", type=Path, help="a run's folder, a stage's, or that of all runs")
    _add_json(doctor)
    watch = _command(commands, "watch", actions.watch, "see runs in the browser while they run, and afterwards")
    runs_help = "folder of all runs, or one run's folder (runs)"
    watch.add_argument("runs", metavar="RUNS", nargs="?", type=Path, default=Path("runs"), help=runs_help)
    watch.add_argument("--port", type=int, default=8766, help="port to serve at; 0 picks a free one (8766)")
    browser = watch.add_mutually_exclusive_group()
    browser.add_argument("--open", action="store_true", default=True, help="open the page in the browser (the default)")
    browser.add_argument("--no-browser", dest="open", action="store_false", help="only print the address")
    _add_review(_command(commands, "review", actions.review, "read, edit, accept or reject samples in the browser"))
    _add_export_commands(commands)
    models = _command(commands, "models", actions.models, "list the models known by name, or what a model's turns are")
    turns_help = "show what a model's prompts open, what ends a completion, and what SFT teaches"
    models.add_argument("models", metavar="MODEL", nargs="*", help=turns_help)
    models.add_argument("--format", metavar="plain|chat|FILE", help=FORMAT_HELP)
    _add_json(models)
    _add_data_commands(commands)
    _add_judging_commands(commands)
    sandbox = commands.add_parser("sandbox", help="where untrusted programs run")
    sandbox_commands = sandbox.add_subparsers(metavar="COMMAND", required=True)
    check_text = "show which sandbox this machine has, and test what it enforces"
    _add_json(_command(sandbox_commands, "check", actions.check_sandbox, check_text))
    serve = _command(sandbox_commands, "serve", actions.serve_sandbox, "run programs for other machines, over HTTP")
    _add_address(serve, 8190)
    token_help = "environment variable with the token that clients must send (R1KIT_SANDBOX_TOKEN)"
    serve.add_argument("--token-variable", default="R1KIT_SANDBOX_TOKEN", metavar="NAME", help=token_help)
    return top


def _command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text.replace("%%", "%"))
    command.set_defaults(command=function)
    command.add_argument("--debug", action="store_true", help="show the traceback of any error")
    return command


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print the result as JSON")


def _add_settings(command: argparse.ArgumentParser, metavar: str, text: str) -> None:
    text = f"{text}; may be repeated"
    command.add_argument(
        "--set", dest="settings", action="append", default=[], metavar=metavar, type=setting, help=text
    )


def _add_run(command: argparse.ArgumentParser, recipe: str = "") -> None:
    """`recipe`: the one that runs if none is named."""
    recipe_help = "for example r1-zero, a recipe file, or package.module:function"
    optional: dict[str, Any] = {"nargs": "?", "default": recipe} if recipe else {}
    command.add_argument(
        "recipe", metavar="RECIPE", help=f"{recipe_help} ({recipe})" if recipe else recipe_help, **optional
    )
    _add_inputs(command)
    rehearsal_help = "walk all stages in minutes: smallest sizes, a random model of the same architecture"
    command.add_argument("--rehearse", action="store_true", help=rehearsal_help)
    _add_settings(command, "STAGE.FIELD=VALUE", "change a setting, for example rl.optimizer.learning_rate=1e-4")
    command.add_argument("--until", metavar="STAGE", help="run the stages up to this one, in the order of `plan`")
    command.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of all runs (runs)")
    command.add_argument("--seed", type=int, help="seed of all random numbers (0)")
    _add_json(command)


def _add_controls(command: argparse.ArgumentParser) -> None:
    text = "train an RL stage again by chance, for form alone ..., and split its gain: random,format,shuffled,majority"
    command.add_argument("--controls", metavar="[STAGE:]ARM,...", type=names, default=[], help=text)


def _add_execution(command: argparse.ArgumentParser) -> None:
    """What running needs and a plan does not."""
    jobs_help = "stages side by side, which share the cores (for the tiny model on a CPU as many as cores, otherwise 1)"
    command.add_argument("--jobs", type=int, metavar="N", help=jobs_help)
    devices_help = "devices of this machine that share each training stage; without GPUs, processes (1)"
    command.add_argument("--devices", type=int, metavar="N", help=devices_help)
    on_help = "run the stages on a Ray cluster: ray for the one here or in RAY_ADDRESS, or ray://HOST:PORT"
    command.add_argument("--on", metavar="ray[://HOST:PORT]", help=on_help)
    track_help = "show the run in a tracker: trackio, tensorboard, wandb, mlflow; a list with commas, or repeated"
    command.add_argument("--track", action="extend", default=[], metavar="NAME", type=names, help=track_help)
    verify_help = "hash every file of finished stages first; without it, only those whose size or time has changed"
    command.add_argument("--verify", action="store_true", help=verify_help)
    _add_hardware(command)


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser("bench", help="compare ways to train").add_subparsers(metavar="COMMAND", required=True)
    text = "train with each algorithm from several seeds, and show which of them differ"
    algorithms = _command(bench, "algorithms", actions.bench_algorithms, text)
    _add_run(algorithms, recipe="r1-zero")
    presets_help = "presets, also with fields: grpo,dr_grpo,grpo+kl_coef=0.1; the first is compared with all others"
    algorithms.add_argument("--presets", metavar="A,B,...", type=names, default=[], help=presets_help)
    algorithms.add_argument("--seeds", type=int, default=5, metavar="N", help="models per algorithm (5)")
    algorithms.add_argument("--stage", default="", help="the RL stage (default: zero, or the only one)")
    _add_execution(algorithms)


def _add_inputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scale", help="how large to run, for example tiny, or package.module:SCALE")
    command.add_argument("--model", help="a known model's name, a folder or a hub id (default: the scale's own)")
    command.add_argument("--student", metavar="MODEL", help="the smaller model that learns from the result")
    command.add_argument("--teacher", metavar="MODEL", help="for distill and v3: the model that writes, instead of R1")
    data_help = "data for one role of the recipe, for example problems=mine.jsonl or eval=gsm8k; may be repeated"
    command.add_argument(
        "--data", action="append", default=[], metavar="ROLE=NAME|FILE|JSON", type=role, help=data_help
    )
    _add_allow_code(command)


def _add_allow_code(command: argparse.ArgumentParser) -> None:
    code_help = "run the Python code in the folder of this model (read it first); may be repeated"
    command.add_argument("--allow-code", action="append", default=[], metavar="MODEL", help=code_help)


def _add_hardware(command: argparse.ArgumentParser) -> None:
    command.add_argument("--hardware", metavar="NAME", help="choose sizes for this device (default: this machine's)")


def _add_data_commands(commands: Any) -> None:
    data = commands.add_parser("data", help="work with data files").add_subparsers(metavar="COMMAND", required=True)
    list_help = "list the public sets known by name: what they hold, their licences, and whether they are here"
    _add_json(_command(data, "list", actions.list_data, list_help))
    check_help = "show the first prompts and references of a data file, and every fault with row and field"
    check = _command(data, "check", actions.check_data, check_help)
    check.add_argument("file", metavar="FILE", type=Path)
    _add_columns(check, "prompt=q,answer=a")
    check.add_argument("--verifier", metavar="NAME", help="judge all rows with this one, for example number")
    _add_json(check)
    show_help = "show rows as a model's tokens: prompts, trained tokens (coloured, or in «»), and ends of turns"
    show = _command(data, "show", actions.show_data, show_help)
    show.add_argument("file", metavar="FILE", type=Path)
    show.add_argument("--model", required=True, help="a known model's name, a model folder or a hub id")
    show.add_argument("--format", metavar="plain|chat|FILE", help=FORMAT_HELP)
    _add_columns(show, "prompt=q,completion=a")
    show.add_argument("--rows", type=int, default=3, metavar="N", help="the first N rows (3)")
    _add_json(show)


def _add_answering_commands(commands: Any) -> None:
    measure = _command(commands, "eval", actions.evaluate, "measure a model on a task, with 95 %% intervals")
    measure.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    measure.add_argument("--task", required=True, metavar="NAME|FILE", help="a known task's name or a data file")
    _add_problems(measure)
    _add_sampling(measure, temperature=0.0)
    measure.add_argument("--compare", metavar="MODEL", help="a second model, for a paired test on the same problems")
    cases_help = (
        "correct the accuracy for the verifier's errors on these labelled cases: a verifier's name, or your own"
    )
    measure.add_argument("--cases", metavar="NAME|FILE.jsonl", help=cases_help)
    measure.add_argument("--out", type=Path, metavar="DIR", help="keep completions.jsonl and results.json here")
    _add_json(measure)
    generate = _command(commands, "generate", actions.generate, "sample completions for a prompt, task or file")
    generate.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    source = generate.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt", metavar="TEXT", help="one prompt")
    source.add_argument("--task", metavar="NAME", help="a known task's name")
    source.add_argument("file", metavar="FILE", nargs="?", type=Path, help="JSONL or Parquet with a prompt column")
    _add_problems(generate)
    _add_sampling(generate, temperature=1.0)
    generate.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write rows here; a repeated call resumes")
    serve = _command(commands, "serve", actions.serve, "serve a model to OpenAI's clients, over HTTP")
    serve.add_argument("model", metavar="MODEL", help="a known model's name, a model folder or a hub id")
    serve.add_argument("--name", default="", help="what clients call the model (default: MODEL)")
    _add_address(serve, 8000)
    key_help = "key that clients must send (default: the environment variable R1KIT_API_KEY)"
    serve.add_argument("--api-key", default="", metavar="KEY", help=key_help)
    _add_allow_code(serve)
    serve.add_argument("--queue", type=int, default=512, metavar="N", help="completions that may wait (512)")
    serve.add_argument("--format", metavar="plain|chat|FILE", help=FORMAT_HELP)
    serve.add_argument("--engine", metavar="JSON|FILE", type=engine, help='such as {"max_rows": 64, "device": "cpu"}')
    chat = _command(commands, "chat", actions.chat, "talk to a model")
    chat.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    _add_sampling(chat, temperature=0.6)


def _add_columns(command: argparse.ArgumentParser, example: str) -> None:
    text = f"our names of the file's columns, for example {example} (docs/guides/data.md)"
    command.add_argument("--columns", metavar="OURS=THEIRS,...", type=columns, default={}, help=text)


def _add_problems(command: argparse.ArgumentParser) -> None:
    _add_columns(command, "prompt=q,answer=a")
    command.add_argument("--split", default="test", help="which problems of the task (test)")
    command.add_argument("--limit", type=int, metavar="N", help="only the first N problems")
    command.add_argument("--samples", type=int, default=1, metavar="K", help="completions per problem (1)")


def _add_sampling(command: argparse.ArgumentParser, *, temperature: float) -> None:
    command.add_argument("--temperature", type=float, default=temperature, help=f"0 is greedy ({temperature:g})")
    command.add_argument("--max-tokens", type=int, default=512, metavar="N", help="longest completion (512)")
    command.add_argument("--format", metavar="plain|chat|FILE", help=FORMAT_HELP)
    command.add_argument("--engine", metavar="URL|MODULE:CLASS|JSON|FILE", type=engine, help=ENGINE_HELP)
    command.add_argument("--seed", type=int, default=0, help="seed of the sampling (0)")
    _add_allow_code(command)


def _add_review(command: argparse.ArgumentParser) -> None:
    command.add_argument("queue", metavar="QUEUE", type=Path, help="a queue's file, or the folder of a review stage")
    import_help = "add samples; creates the queue if needed"
    command.add_argument("--import", dest="rows", metavar="FILE.jsonl", type=Path, help=import_help)
    double_help = "share of the samples that two reviewers get, 0 to 1 (0)"
    command.add_argument("--double", metavar="SHARE", type=float, help=double_help)
    lease_help = "how long a sample is reserved for a reviewer (15)"
    command.add_argument("--lease", metavar="MINUTES", type=float, help=lease_help)
    command.add_argument("--auto-accept", action="store_true", help="accept all pending samples, without a page")
    command.add_argument("--export", metavar="FILE.jsonl", type=Path, help="write the accepted samples, without a page")
    command.add_argument("--rejected", metavar="FILE.jsonl", type=Path, help="with --export: also write rejected ones")
    command.add_argument("--reviewer", default="", metavar="NAME", help="your name (default: the page asks)")
    _add_address(command, 8765)


def _add_export_commands(commands: Any) -> None:
    export_help = "write a model for other programs, run it there, and compare its answers"
    export = _command(commands, "export", actions.export, export_help)
    export.add_argument("model", metavar="MODEL", help=EXPORTED_HELP)
    to_help = "a folder for transformers and the hub, a GGUF file, one with Ollama's Modelfile, or a LoRA adapter"
    export.add_argument("--to", required=True, choices=("hub-folder", "gguf", "ollama", "adapter"), help=to_help)
    export.add_argument("--quant", choices=("f16", "q8_0"), default="f16", help="precision of a GGUF file (f16)")
    _add_proof(export)
    push = _command(
        commands, "push", actions.push, "export a model with a model card and upload it, private by default"
    )
    push.add_argument("model", metavar="MODEL", help=EXPORTED_HELP)
    push.add_argument("repository", metavar="OWNER/NAME", help="the repository on the hub; created if needed")
    push.add_argument(
        "--to", choices=("hub-folder", "adapter"), default="hub-folder", help="what is uploaded (hub-folder)"
    )
    push.add_argument("--public", action="store_true", help="everybody may see a new repository")
    push.add_argument("--dry-run", action="store_true", help="write the folder, and upload nothing")
    _add_proof(push)


def _add_proof(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, metavar="FOLDER", help="the export's folder (default: MODEL-TARGET)")
    command.add_argument("--format", metavar="plain|chat|FILE", help=FORMAT_HELP)
    prompts_help = "how many prompts the trained model and the export both answer (16)"
    command.add_argument("--prompts", type=int, default=16, metavar="N", help=prompts_help)
    no_proof_help = "do not run the export; its record says so"
    _add_allow_code(command)
    command.add_argument("--no-proof", dest="proof", action="store_false", help=no_proof_help)
    _add_json(command)


def _add_address(command: argparse.ArgumentParser, port: int) -> None:
    command.add_argument("--host", default="127.0.0.1", help="address to serve at (127.0.0.1: only this machine)")
    command.add_argument("--port", type=int, default=port, help=f"port to serve at; 0 picks a free one ({port})")


def _add_judging_commands(commands: Any) -> None:
    verify = _command(commands, "verify", actions.verify, "judge answers, or measure how often a verifier is wrong")
    verify.add_argument("file", metavar="FILE", nargs="?", type=Path, help="rows with prediction and answer")
    verifier_help = "for example math; with --conformance also package.module:function"
    verify.add_argument("--verifier", metavar="NAME", help=verifier_help)
    _add_columns(verify, "prediction=output,answer=gold")
    verify.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write the rows here and print the counts")
    verify.add_argument("--conformance", action="store_true", help="run labelled cases and print error rates")
    verify.add_argument("--cases", metavar="NAME|FILE.jsonl", help="with --conformance: whose cases, or your own")
    _add_json(verify)
    score = _command(commands, "score", actions.score, "compute the rewards of completions, part by part")
    score.add_argument("file", metavar="FILE", type=Path, help="rows with completion and the rewards' columns")
    score.add_argument("--rewards", required=True, metavar="A,B", help="names, dotted paths, or a JSON list of specs")
    set_help = "set a reward's option or weight, for example cosine_scaled.max_len=500"
    _add_settings(score, "NAME.OPTION=VALUE", set_help)
    score.add_argument("--out", type=Path, metavar="FILE.jsonl", help="write the rows here and print the means")
    _add_json(score)


def setting(text: str) -> tuple[str, Any]:
    """`"rl.steps=9"` -> `("rl.steps", "9")`; lists, objects and null are read as JSON."""
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")) or "." not in path:
        raise argparse.ArgumentTypeError(f"{text!r} is not STAGE.FIELD=VALUE, as in rl.optimizer.learning_rate=1e-4")
    return path, _json_value(path, value)


def names(text: str) -> list[str]:
    """`"trackio,wandb"` -> `["trackio", "wandb"]`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def role(text: str) -> tuple[str, Any]:
    """`"problems=mine.jsonl"` -> `("problems", "mine.jsonl")`; lists and objects are read as JSON."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not ROLE=DATA, as in problems=mine.jsonl or eval=gsm8k")
    return name, _json_value(name, value)


def _json_value(path: str, value: str) -> Any:
    if value[:1] not in ("[", "{") and value != "null":
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{path}: {value!r} looks like JSON but is not: {error}") from None


def columns(text: str) -> dict[str, str]:
    """A mapping from our names to a file's: `"prompt=q,answer=a"`."""
    from r1kit.data.columns import parse_columns  # imports pydantic, so only now

    try:
        parsed: dict[str, str] = parse_columns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return parsed


def engine(text: str) -> dict[str, Any]:
    """Engine settings from a server's address, the dotted path of a class, JSON, or the path of a JSON file."""
    if text.startswith(("http://", "https://")):
        return {"kind": "openai", "base_url": text}
    module, colon, name = text.partition(":")
    if colon and all(part.isidentifier() for part in (*module.split("."), name)):
        return {"kind": "custom", "path": text}
    try:
        values = json.loads(text if text.lstrip().startswith("{") else read_bounded(Path(text)).removeprefix("\ufeff"))
    except OSError as error:
        expected = "expected an address, module:Class, JSON or a file"
        reason = f"as a file: {error.strerror or error}"
        raise argparse.ArgumentTypeError(f"{text!r} is not an engine: {expected} ({reason})") from None
    except StoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise argparse.ArgumentTypeError(f"{text!r} holds {values!r:.60}: expected a JSON object of engine settings")
    return values
