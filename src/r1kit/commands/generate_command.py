"""The command `generate`: sample completions for a prompt, a task or a file of prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from r1kit.chat import whole_response
from r1kit.commands.answering import AnsweringModel, engine_settings, open_model
from r1kit.commands.eval_command import task_problems
from r1kit.data.errors import DataError, encodable
from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.data.rows import numbered_rows
from r1kit.pipeline import Display, Progress
from r1kit.store import StoreError, combine
from r1kit.tasks import load_file
from r1kit.tasks.from_rows import head_of
from r1kit.tasks.recognition import prompts_only
from r1kit.types import Problem, SamplingParams


def generate(
    model: str,
    *,
    prompt: str | None = None,
    task: str | Path | None = None,
    split: str = "test",
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    sampling: SamplingParams | None = None,
    template: str | None = None,
    engine: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one row per completion: problem_id, prompt, answer (if known), sample, completion, finish_reason, tokens
    (of the completion; None if the server does not tell), model, and setup (a hash of all that decides a completion).

    Give either `prompt` or `task` (a name, or the Path of a data file, which needs no answers); `columns` and `engine`
    are those of `eval`. With `out`, rows are also appended there, problems that it already holds are skipped, and a
    file with rows of another setup is refused.
    """
    sampling = sampling or SamplingParams()
    if (prompt is None) == (task is None):
        raise ValueError("generate needs exactly one of --prompt, --task and FILE")
    if prompt is not None and not prompt.strip():
        raise ValueError("the prompt is empty: pass the text that the model should answer")
    encodable(prompt or "")
    settings = engine_settings(model, engine)
    problems = [Problem(id="prompt", prompt=prompt or "", answer="")]
    if task is not None:
        problems = _file_problems(task, split, limit, columns)
    with Display() as display:
        progress = Progress(f"generate {model}", display)
        opened = open_model(settings, template, progress)
        opened.refuse_long(problems, sampling.max_tokens)
        setup = combine(opened.setup(sampling))[:8]
        earlier = [] if out is None else list(read_rows(out, missing_ok=True))
        if any(row.get("setup") != setup for row in earlier):
            raise StoreError(f"{out} contains rows of another model, prompt format or sampling: name another file")
        done = Counter((row["problem_id"], row["prompt"]) for row in earlier)
        left = [problem for problem in problems if done[problem.id, problem.prompt] < sampling.n]
        size = max(1, opened.parallel // sampling.n)
        with RowWriter(out) if out is not None else nullcontext() as rows:
            for start in range(0, len(left), size):
                for row in _answer_rows(opened, left[start : start + size], sampling):
                    if row["sample"] >= done[row["problem_id"], row["prompt"]]:
                        row |= {"model": model, "setup": setup}
                        if rows is not None:
                            rows.append(row)
                        yield row
                if out is not None:
                    progress.step(min(start + size, len(left)), len(left))


def _file_problems(task: str | Path, split: str, limit: int | None, columns: Mapping[str, str] | None) -> list[Problem]:
    """`task_problems`, also for a file without answers: prompts are enough to generate."""
    if not (columns and set(columns) <= {"prompt", "system"}):
        try:
            return task_problems(task, split, limit, columns)
        except DataError as error:
            if (error.kind, error.field) != ("missing column", "answer") or not Path(task).is_file():
                raise
    return list(
        load_file(task, schema=prompts_only(columns or {}, head_of(numbered_rows(Path(task)))[0])).problems[:limit]
    )


def _answer_rows(
    opened: AnsweringModel, problems: Sequence[Problem], sampling: SamplingParams
) -> Iterator[dict[str, Any]]:
    prompts = opened.prompts(problems)
    groups = opened.engine.generate(prompts, sampling)
    for problem, prompt, completions in zip(problems, prompts, groups, strict=True):
        for sample, completion in enumerate(completions):
            has_ids = opened.tokenizer is not None or completion.token_ids
            yield {
                "problem_id": problem.id,
                "prompt": problem.prompt,
                **({"answer": problem.answer} if problem.answer else {}),
                "sample": sample,
                "completion": whole_response(prompt, completion),
                "finish_reason": completion.finish_reason,
                "tokens": len(completion.token_ids) if has_ids else None,
            }
