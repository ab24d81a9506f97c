"""What the commands `eval`, `generate`, `chat`, `models` and `data check` do, free of argument parsing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from r1kit.chat import ChatFormat
from r1kit.commands.opened import MAX_ROWS, Opened, open_model
from r1kit.commands.talk import chat
from r1kit.data.errors import DataError, encodable
from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.data.rows import numbered_rows
from r1kit.evaluate.metrics import Scored
from r1kit.evaluate.statistics import Summary, paired, paired_by_source
from r1kit.evaluate.table import json_table, text_table
from r1kit.models.known import KNOWN, ModelError, parameters_in, resolve
from r1kit.pipeline import Progress
from r1kit.stages.evaluate import measure
from r1kit.store import StoreError, combine, read_json, sha256, to_plain, write_json
from r1kit.tasks import TaskSpec, check_file, iterate, load_file, load_task
from r1kit.tasks.schemas import PROMPTS, Schema
from r1kit.types import Problem, SamplingParams
from r1kit.verifiers import find

__all__ = ["chat", "check_data", "evaluate", "generate", "models"]

GREEDY = SamplingParams(temperature=0.0)
SETUP = "setup.json"  # what made an evaluation's rows: others must not be mixed with them


def evaluate(
    model: str,
    *,
    task: str | Path,
    split: str = "test",
    limit: int | None = None,
    sampling: SamplingParams = GREEDY,
    template: str | None = None,
    compare: str | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Measure `model`, and `compare` on the same problems; the result's "table" is the text for people.

    `task` is a name or a data file's path, `sampling.n` the samples a problem; `template` is "plain", "chat", the path
    of a saved format, or None for each model's own. With `out`, completions.jsonl and results.json are kept there
    (those of `compare` in compare/), a repeated call goes on, and one with another setup is refused.
    """
    if compare == model:
        raise ValueError(f"the model to compare is {model} itself: name another one")
    for name in filter(None, (model, compare)):
        resolve(name)  # both are there, before the first is measured
    problems = problems_of(task, split, limit)
    for name in {problem.verifier for problem in problems}:
        find(name)
    found: dict[str, Summary] = {}
    rows: list[list[Scored]] = []
    formats: dict[str, ChatFormat] = {}
    with TemporaryDirectory() as temporary:
        place = out or Path(temporary)
        for name, folder in [(model, place), *([(compare, place / "compare")] if compare else [])]:
            with Progress(f"eval {name}") as progress:
                opened = open_model(name, template, progress)
                opened.refuse_long(problems, sampling.max_tokens)
                if out is not None:
                    data = sha256(Path(task)) if Path(task).is_file() else str(task)
                    claim(folder, opened.setup(sampling) | {"task": data, "split": split, "n": sampling.n})
                file = folder / "completions.jsonl"
                found[name] = measure(opened.engine, problems, opened.chat, sampling, file, progress.step)
            write_json(folder / "results.json", found[name].to_json())
            wanted = {problem.id for problem in problems}
            rows.append([Scored.from_row(row) for row in read_rows(file) if row["problem_id"] in wanted])
            formats[name] = opened.settings
    differences = paired(*rows) if compare else None
    by_source = paired_by_source(*rows) if compare else None
    return json_table(found, differences, by_source) | {
        "task": str(task),
        "split": split,
        "sampling": asdict(sampling),
        "formats": to_plain(formats),
        "table": text_table(found, differences, by_source),
    }


def claim(folder: Path, setup: dict[str, Any]) -> None:
    """Say what is going to make the rows in `folder`; raises `StoreError` where something else made those it has."""
    if (folder / SETUP).is_file() or (folder / "completions.jsonl").exists():
        before = read_json(folder / SETUP) if (folder / SETUP).is_file() else {}
        if other := [name for name in setup if before.get(name) != setup[name]]:
            raise StoreError(f"{folder} holds an evaluation with other {', '.join(other)}: name another folder")
    write_json(folder / SETUP, setup)


def problems_of(task: str | Path, split: str, limit: int | None) -> list[Problem]:
    """The problems of a task by name or of a file; raises ValueError that names task, file, row or field."""
    # an empty split is `test` too, and says nothing to a file, which has no splits
    asked = {"name": str(task), "split": "" if split == "test" else split, "limit": limit}
    return list(iterate(load_task(TaskSpec.parse(asked), "test")))


def questions_of(task: str | Path, split: str, limit: int | None) -> list[Problem]:
    """`problems_of`, also for a file without answers: to generate, prompts are enough."""
    try:
        return problems_of(task, split, limit)
    except DataError as error:
        if (error.kind, error.field) != ("missing column", "answer") or not Path(task).is_file():
            raise
    first = next((row for _, row in numbered_rows(Path(task)) if isinstance(row, dict)), {})
    column = next((name for name in PROMPTS if name in first), PROMPTS[0])
    unanswered = Schema(name="prompts", prompt=(column,), answer=column, parse=lambda _: "")
    return list(load_file(task, schema=unanswered).problems[:limit])


def generate(
    model: str,
    *,
    prompt: str | None = None,
    task: str | Path | None = None,
    split: str = "test",
    limit: int | None = None,
    sampling: SamplingParams | None = None,
    template: str | None = None,
    out: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one row for each completion: problem_id, prompt, answer (where known), sample, completion, finish_reason,
    tokens (of the completion), model, and setup, a hash of all that decides the completion.

    Exactly one of `prompt` and `task` (a name, or a data file's Path) is given. With `out`, rows are appended there as
    they are made, problems already in it are skipped, and only new rows are yielded; rows of another setup are refused.
    """
    sampling = sampling or SamplingParams()
    if (prompt is None) == (task is None):
        raise ValueError("generate takes a prompt or a task: give exactly one of them")
    if prompt is not None and not prompt.strip():
        raise ValueError("the prompt is empty: say what the model is to answer")
    encodable(prompt or "")
    problems = [Problem(id="prompt", prompt=prompt, answer="")] if prompt else questions_of(task or "", split, limit)
    with Progress(f"generate {model}") as progress:
        opened = open_model(model, template, progress)
        opened.refuse_long(problems, sampling.max_tokens)
        setup = combine(opened.setup(sampling))[:8]
        done = samples_in(out, setup) if out is not None else Counter()
        left = [problem for problem in problems if done[problem.id, problem.prompt] < sampling.n]
        size = max(1, MAX_ROWS // sampling.n)  # as many problems as the engine works on at once
        with RowWriter(out) if out is not None else nullcontext() as rows:
            for start in range(0, len(left), size):
                for row in answered(opened, left[start : start + size], sampling):
                    if row["sample"] >= done[row["problem_id"], row["prompt"]]:
                        row |= {"model": model, "setup": setup}
                        if rows is not None:
                            rows.append(row)
                        yield row
                if out is not None:
                    progress.step(min(start + size, len(left)), len(left))


def answered(opened: Opened, problems: Sequence[Problem], sampling: SamplingParams) -> Iterator[dict[str, Any]]:
    """A row for each of `sampling.n` completions of each problem."""
    prompts = [opened.chat.render(problem, opened.policy.tokenizer) for problem in problems]
    for problem, completions in zip(problems, opened.engine.generate(prompts, sampling), strict=True):
        for sample, completion in enumerate(completions):
            known = {"answer": problem.answer} if problem.answer else {}
            yield (
                {"problem_id": problem.id, "prompt": problem.prompt}
                | known
                | {
                    "sample": sample,
                    "completion": opened.chat.complete(completion.text),
                    "finish_reason": completion.finish_reason,
                    "tokens": len(completion.token_ids),
                }
            )


def samples_in(out: Path, setup: str) -> Counter[tuple[str, str]]:
    """How many samples of each (problem_id, prompt) a file has; raises `StoreError` where another setup made them."""
    rows = list(read_rows(out, missing_ok=True))
    if any(row.get("setup") != setup for row in rows):
        raise StoreError(f"{out} holds rows of another model, prompt format or sampling: name another file")
    return Counter((row["problem_id"], row["prompt"]) for row in rows)


def models() -> list[dict[str, str]]:
    """The models known by name, one row each, with the same columns in each."""
    columns = ("name", "parameters", "licence", "about")
    rows = [{column: str(getattr(model, column)) for column in columns} for model in KNOWN.values()]
    return [row | {"parameters": row["parameters"] or shipped_size(row["name"])} for row in rows]


def shipped_size(name: str) -> str:
    """The parameters of a model that comes with the package, counted in its weights: "0.87M"."""
    try:
        return f"{parameters_in(KNOWN[name].folder() / 'model.safetensors') / 1e6:.2f}M"
    except ModelError:
        return "not made"


def check_data(file: Path) -> dict[str, Any]:
    """What a data file holds and everything that is wrong with it, with file, row and field.

    "ok" says whether it loads without a fault, "text" is the report for people; faults raise nothing.
    """
    report = check_file(file)
    head = f"{report.file}: {report.problems} of {report.rows} rows are usable (schema {report.schema or 'unknown'})"
    counts = [f"{count} x {kind}" for kind, count in report.counts.items()]
    return report.as_dict() | {"text": "\n".join([head, *counts, *map(str, report.issues)])}
