"""The requests of a stage: problems of tasks and rows of instruction files, streamed from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from r1kit.collect.prompting import Request
from r1kit.curate.ngrams import stable_hash
from r1kit.data.conversations import COLUMNS, conversation
from r1kit.data.errors import DataError
from r1kit.data.rows import numbered_rows, stem
from r1kit.tasks import Task, TaskSpec, load_task
from r1kit.tasks.task_spec import joined, refuse_benchmark
from r1kit.types import Message, Problem
from r1kit.verifiers.language import main_language

QUESTIONS = ("prompt", "question", "instruction", "problem")  # columns for a request without a reply


class Requests:
    """All requests of a stage, in order, each once.

    Tasks contribute their training split; benchmarks are refused. `files` are instruction files by name, with rows of
    messages, of a prompt and a response (the reference), or of a prompt alone.
    """

    def __init__(self, tasks: Sequence[TaskSpec], files: Mapping[str, Path]) -> None:
        for spec in (*tasks, *(TaskSpec(name=str(path.absolute())) for path in files.values())):
            refuse_benchmark(spec)
        loaded = [load_task(spec, "train") for spec in tasks]
        self.task: Task | None = joined(loaded) if len(loaded) > 1 else loaded[0] if loaded else None
        self.files = {name or stem(path): path for name, path in files.items()}
        if self.task is None and not self.files:
            raise ValueError("there are no requests: name tasks, or give an input 'requests' (or requests/NAME)")

    def check(self, look: Callable[[Request], None] = lambda request: None) -> int:
        """Read every request once and return their number; `look` can refuse one by raising.

        Raises `DataError` for a row that is not a request and for an id that occurs twice.
        """
        seen: set[int] = set()
        for count, request in enumerate(self.starting_at(0)):
            look(request)
            seen.add(stable_hash(request.problem.id))
            if len(seen) <= count:
                reason = f"the id {request.problem.id} occurs twice: samples of the two would be mixed up"
                raise DataError("duplicate problem", reason)
        if not seen:
            raise ValueError("there are no requests: the tasks and files are empty")
        return len(seen)

    def starting_at(self, first: int) -> Iterator[Request]:
        """The requests from index `first` on."""
        size = len(self.task) if self.task is not None else 0
        for index in range(first, size):
            assert self.task is not None  # size is 0 without a task
            yield Request(problem=self.task[index])
        rows = ((name, path, *row) for name, path in self.files.items() for row in numbered_rows(path))
        for name, path, number, row in islice(rows, max(0, first - size), None):
            if isinstance(row, DataError):
                raise row
            try:
                yield request(row, name, number)
            except DataError as error:
                raise error.at(str(path), number) from None

    def batches(self, size: int, skip: int) -> Iterator[list[Request]]:
        """All requests from batch `skip` on; the batches are the same in every attempt."""
        rest = self.starting_at(size * skip)
        while batch := list(islice(rest, size)):
            yield batch


def request(row: Mapping[str, Any], source: str, number: int) -> Request:
    """A row of an instruction file as a request: the last user turn is the question, the reply to it the reference.

    Uses the row's `id`, `language`, `source` and `hard` (whether it needs thought) if it has them. Raises `DataError`
    for a row without a question.
    """
    question = next((row[name] for name in QUESTIONS if row.get(name) is not None), None)
    columns = (("messages",), ("conversations",), *COLUMNS)
    if any(all(row.get(name) is not None for name in names) for names in columns):
        turns = conversation(row).messages
    elif isinstance(question, str):
        turns = (Message(role="user", content=question),)
    elif isinstance(question, list):
        turns = conversation({"messages": question}).messages
    else:
        expected = f"expected messages, or one of {', '.join(QUESTIONS)}"
        raise DataError("missing field", f"the row has {', '.join(row)}: {expected}")
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=-1)
    if last < 0 or not turns[last].content.strip():
        raise DataError("missing field", "there is no question: expected a user's turn with text")
    reply = turns[last + 1].content if last + 1 < len(turns) else ""
    text, hard = turns[last].content, row.get("hard")
    if not (hard is None or isinstance(hard, bool)):
        raise DataError("wrong type", f"the value is {hard!r:.40}: expected true, false or null", field="hard")
    name = number if row.get("id") in (None, "") else row["id"]
    problem = Problem(
        id=f"{source}/{name}",
        prompt=text,
        answer=reply,
        verifier="",
        language=str(row.get("language") or main_language(text)[0] or ""),
        source=str(row.get("source") or source),
    )
    return Request(problem=problem, history=turns[:last], hard=hard)
