"""Requests for RL from public files or one's own: `requests:dolly`, `harmful:mine.jsonl`.

Their replies, labels and pairs stay unread: reward models judge the policy's own replies.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.data.conversations import conversation, preference
from r1kit.data.errors import DataError
from r1kit.data.rows import numbered_rows
from r1kit.tasks.base import Listed
from r1kit.tasks.public_files import FILES, fetched, local_file
from r1kit.tasks.public_sets import find_local
from r1kit.tasks.sources.source import Source, arranged
from r1kit.types import Message, Problem
from r1kit.verifiers.language import main_language

if TYPE_CHECKING:
    from r1kit.tasks.task_spec import TaskSpec

KINDS = {"requests": "general", "harmful": "harmful"}  # the last part of a problem's source, by which rewards choose


class RequestSource(Source):
    """The first question of every row, each once. For training only, because no rule can judge the replies."""

    kind = "requests"
    ignores = ("columns", "verifier", "calculations", "data", "options")

    def claims(self, name: str) -> bool:
        return name.partition(":")[0] in KINDS and ":" in name

    def load(self, spec: TaskSpec, split: str) -> Listed:
        kind, _, name = spec.name.partition(":")
        if split != "train":
            raise DataError("wrong type", f"{spec.name} is for training: no rule can judge the replies to requests")
        path = local_file(name) or fetched(FILES[name])
        questions, skipped = dict[str, None](), list[DataError]()
        for number, row in numbered_rows(path):
            try:
                if isinstance(row, DataError):
                    raise row
                questions.setdefault(first_question(row))
            except DataError as error:
                error = error.at(str(path), number)
                if not (spec.skip_invalid or name in FILES):
                    raise error from None
                skipped.append(error)
        if not questions:
            first = f"; the first: {skipped[0]}" if skipped else ""
            raise DataError("empty file", f"no row holds a request{first}", str(path))
        source = f"{kind}/{KINDS[kind]}"
        problems = tuple(
            Problem(
                id=f"{source}/{index}",
                prompt=text,
                answer="",
                verifier="",
                language=spec.language or main_language(text)[0] or "",
                source=source,
            )
            for index, text in enumerate(questions)
        )
        return arranged(Listed(name=source, problems=problems, skipped=tuple(skipped)), spec)

    def files(self, spec: TaskSpec) -> list[Path]:
        """A file of one's own, or one of the data folder: downloaded ones are the same on every machine."""
        name = spec.name.partition(":")[2]
        local_file(name)  # refuses what must not be trained on
        path = find_local(FILES[name].local) if name in FILES else Path(name).expanduser()
        return [] if path is None else [path]


def first_question(row: dict[str, Any]) -> str:
    """The first turn of the user in a conversation, a pair, or a row with a question alone."""
    turns: tuple[Message, ...]
    if row.get("chosen") is not None:
        turns = preference(row).prompt
    elif isinstance(text := next((row[name] for name in ("prompt", "question") if row.get(name)), None), str):
        turns = (Message(role="user", content=text),)
    else:
        turns = conversation(row).messages
    question = next((turn.content.strip() for turn in turns if turn.role == "user"), "")
    if not question:
        raise DataError("empty prompt", "there is no question: expected a user's turn with text")
    return question
