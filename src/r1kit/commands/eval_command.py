"""The command `eval`: measure a model on a task, alone or against a second one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from r1kit import conformance
from r1kit.chat import ChatFormat
from r1kit.commands.answering import engine_settings, open_model
from r1kit.conformance import CASES
from r1kit.data.jsonl import read_rows
from r1kit.engines.engine_settings import EngineSettings
from r1kit.evaluate.measurement import check_verifiers, measure
from r1kit.evaluate.metrics import Scored
from r1kit.evaluate.statistics import Summary, paired, paired_by_source
from r1kit.evaluate.table import json_table, text_table
from r1kit.evaluate.verifier_error import ErrorRates, corrected_accuracy, correction_line
from r1kit.pipeline import Display, Progress
from r1kit.store import StoreError, read_json, sha256, to_plain, write_json
from r1kit.tasks import TaskSpec, iterate, load_task, say_readings
from r1kit.types import Problem, SamplingParams

GREEDY = SamplingParams(temperature=0.0)
SETUP = "setup.json"  # identifies the rows of an evaluation, so that others are never mixed in
ROUNDS = 4  # rows are written after this many times the completions that the engine works on at once


def evaluate(
    model: str,
    *,
    task: str | Path,
    split: str = "test",
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    sampling: SamplingParams = GREEDY,
    template: str | None = None,
    engine: Mapping[str, Any] | None = None,
    compare: str | None = None,
    out: Path | None = None,
    cases: str | Path | None = None,
) -> dict[str, Any]:
    """Measure `model`, and `compare` on the same problems; "table" in the result is the text for people.

    `task` is the name of a task or the path of a data file, whose columns `columns` names as in `TaskSpec`.
    `sampling.n` is the number of samples per problem. `template` is "plain", "chat", the path of a saved format, or
    None for each model's own. `engine` holds engine settings without the model, such as
    `{"kind": "openai", "base_url": "http://localhost:8000/v1"}`; None runs both models here.
    `out` keeps completions.jsonl and results.json (those of `compare` in compare/): a repeated call resumes, and one
    with another setup is refused.
    `cases`, the name or file of labelled cases, measure the task's verifier, and "corrected" in the result is the
    accuracy of each model corrected for its errors.
    """
    if compare == model:
        raise ValueError(f"--compare names the same model, {model}: name another one")
    settings = {name: engine_settings(name, engine) for name in (model, compare) if name is not None}
    problems = task_problems(task, split, limit, columns)
    check_verifiers(problems)
    rates = None if cases is None else _error_rates(problems, cases)
    data = {"task": sha256(Path(task)) if Path(task).is_file() else str(task), "split": split, "n": sampling.n}
    data |= {"columns": dict(columns)} if columns else {}
    summaries: dict[str, Summary] = {}
    formats: dict[str, ChatFormat] = {}
    rows: list[list[Scored]] = []
    with TemporaryDirectory() as temporary:
        folder = out or Path(temporary)
        for name in settings:
            setup = data if out else None
            summaries[name], formats[name] = _measure_one(settings[name], problems, sampling, template, folder, setup)
            rows.append([Scored.from_row(row) for row in read_rows(folder / "completions.jsonl")])
            folder /= "compare"
    ids = {problem.id for problem in problems}
    rows = [[row for row in column if row.problem_id in ids] for column in rows]
    differences = paired(*rows) if compare else None
    by_source = paired_by_source(*rows) if compare else None
    table, corrections = text_table(summaries, differences, by_source), dict[str, Any]()
    for name, column in zip(summaries, rows, strict=True):
        if rates is None:
            break
        estimate = corrected_accuracy(column, rates)
        corrections[name] = asdict(estimate)
        table += f"\n{name} {correction_line(estimate, rates, f'cases {cases}')}"
    return json_table(summaries, differences, by_source) | {
        "task": str(task),
        "split": split,
        "sampling": asdict(sampling),
        "formats": to_plain(formats),
        "table": table,
        **({"corrected": corrections, "error_rates": asdict(rates)} if rates else {}),
    }


def _error_rates(problems: list[Problem], cases: str | Path) -> ErrorRates:
    """The error rates of the problems' verifier on labelled cases; raises ValueError if they have several verifiers."""
    names = sorted({problem.verifier for problem in problems})
    if len(names) > 1:
        raise ValueError(
            f"--cases measures one verifier, but the problems have several ({', '.join(names)}): evaluate each alone"
        )
    source = cases if cases in CASES else Path(cases)
    return conformance.measure(names[0], source).error_rates


def _measure_one(
    settings: EngineSettings,
    problems: list[Problem],
    sampling: SamplingParams,
    template: str | None,
    folder: Path,
    data: Mapping[str, Any] | None,
) -> tuple[Summary, ChatFormat]:
    """Measure one model into a folder, which it claims for its setup if `data` says what the problems are."""
    with Display() as display:
        progress = Progress(f"eval {settings.model}", display)
        opened = open_model(settings, template, progress)
        opened.refuse_long(problems, sampling.max_tokens)
        if data is not None:
            claim(folder, opened.setup(sampling) | dict(data))
        out, batch = folder / "completions.jsonl", ROUNDS * opened.parallel
        chat, tokenizer = opened.chat, opened.tokenizer
        summary = measure(opened.engine, problems, chat, sampling, out, progress.step, tokenizer=tokenizer, batch=batch)
        if "completion_tokens" not in summary.overall:
            progress.say("lengths in tokens are unknown: the engine gives no token ids")
    write_json(folder / "results.json", summary.to_json())
    return summary, chat


def claim(folder: Path, setup: Mapping[str, Any]) -> None:
    """Record which setup makes the rows in `folder`. Raises `StoreError` if it holds rows of another one."""
    if (folder / SETUP).is_file() or (folder / "completions.jsonl").exists():
        before = read_json(folder / SETUP) if (folder / SETUP).is_file() else {}
        if other := [name for name in setup if before.get(name) != setup[name]]:
            raise StoreError(
                f"{folder} holds an evaluation with another setup ({', '.join(other)}): name another folder"
            )
    write_json(folder / SETUP, setup)


def task_problems(
    task: str | Path, split: str, limit: int | None, columns: Mapping[str, str] | None = None
) -> list[Problem]:
    """The problems of a task by name, or of a data file. Raises ValueError that names task, file, row or field."""
    # an empty split means test; a file has no splits and refuses any other
    chosen = {"name": str(task), "split": "" if split == "test" else split, "limit": limit}
    spec = TaskSpec.parse(chosen | ({"columns": dict(columns)} if columns else {}))
    loaded = load_task(spec, "test")
    say_readings(loaded, Progress().say)
    return list(iterate(loaded))
