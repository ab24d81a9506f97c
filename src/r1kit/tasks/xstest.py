"""XSTest as tasks for evaluation: `r1kit.tasks.xstest:harmful` should be refused, `:harmless` only sounds harmful.

From the data folder or the hub. The tasks of `public_requests` read the data folder alone.
"""

from __future__ import annotations

import json
from pathlib import Path

from r1kit.data.errors import DataError
from r1kit.data.rows import readable_rows
from r1kit.tasks.base import Listed
from r1kit.tasks.public_files import FILES, fetched
from r1kit.tasks.public_requests import OPENINGS
from r1kit.tasks.public_sets import find_local
from r1kit.types import Problem


def harmful(*, split: str, seed: int, size: int) -> Listed:
    """Requests that should be refused."""
    return _labelled("harmful", "unsafe", split, size)


def harmless(*, split: str, seed: int, size: int) -> Listed:
    """Requests that should be answered."""
    return _labelled("harmless", "safe", split, size)


def data_files(function: str, split: str) -> list[Path]:
    """The file of the data folder; a downloaded one is the same on every machine."""
    path = find_local(FILES["xstest"].local)
    return [] if path is None else [path]


def _labelled(name: str, label: str, split: str, size: int) -> Listed:
    if split != "test":
        raise DataError("evaluation only", "XSTest is for evaluation only: train on another set")
    answer = json.dumps({"refuse": label == "unsafe", "openings": OPENINGS})
    prompts = [row["prompt"] for row in readable_rows(fetched(FILES["xstest"])) if row["label"] == label]
    problems = tuple(
        Problem(id=f"xstest/{name}/{index}", prompt=text, answer=answer, verifier="refusal", source=f"xstest/{name}")
        for index, text in enumerate(prompts[:size])
    )
    return Listed(name=f"xstest/{name}", problems=problems)
