"""What the commands `eval`, `generate`, `chat`, `models` and `data check` do, free of argument parsing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from r1kit.types import SamplingParams


def evaluate(
    model: str, *, task: str, split: str, limit: int | None, sampling: SamplingParams, template: str,
    compare: str | None, out: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Measure `model`, and `compare` on the same problems; the result's "table" is the text for people.

    `task` is a name or a data file's path, `template` is "plain" or "chat", `sampling.n` the samples a problem. With
    `out`, completions.jsonl and results.json are kept there.
    """
    raise NotImplementedError


def generate(
    model: str, *, prompt: str | None, task: str | Path | None, split: str, limit: int | None,
    sampling: SamplingParams, template: str, out: Path | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield one row for each completion, with at least "problem_id", "prompt", "sample" and "completion".

    Exactly one of `prompt` and `task` (a name, or a data file's Path) is given. With `out`, rows are appended there as
    they are made, problems already in it are skipped, and only new rows are yielded.
    """
    raise NotImplementedError


def chat(model: str, *, sampling: SamplingParams, template: str) -> None:
    """Answer each line of stdin until it ends."""
    raise NotImplementedError


def models() -> list[dict[str, str]]:
    """The models known by name, one row each, with the same columns in each."""
    from r1kit.models.known import KNOWN

    columns = ("name", "parameters", "licence", "about")
    return [{column: str(getattr(model, column)) for column in columns} for model in KNOWN.values()]


def check_data(file: Path) -> dict[str, Any]:
    """What a data file holds (rows, columns, verifiers, languages ...); raises ValueError with file, row and field."""
    raise NotImplementedError
