"""`r1kit data check FILE`: the first prompts and references of a file, and all its faults, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from r1kit.data.errors import DataError, shown
from r1kit.data.rows import NumberedRow, numbered_rows
from r1kit.tasks.check_items import Item, Reader, conversation_reader, problem_reader
from r1kit.tasks.from_rows import head_of
from r1kit.tasks.mapping import mapped
from r1kit.tasks.recognition import sample_of
from r1kit.verifiers import STRUCTURED, THINKING, find, verify_all
from r1kit.verifiers.alternatives import alternatives
from r1kit.verifiers.math.equivalence import are_words
from r1kit.verifiers.number import of_reference

LISTED_PER_KIND = 50  # of a million faulty rows, all are counted and fifty are listed
PREVIEWED = 3  # the first usable rows that are shown
NOTES = {"duplicate prompt", "words as mathematics"}  # are listed, but do not make a file unusable
BATCH = 256  # rows whose references the verifiers see at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state of a file. `problems` counts usable rows, `counts` all faults by kind; `issues` lists the first ones.

    `reading` says how the columns were understood, and `first` what the first rows become.
    """

    file: str
    rows: int
    problems: int
    schema: str | None
    reading: str
    first: tuple[Item, ...]
    counts: Mapping[str, int]
    issues: tuple[DataError, ...]

    @property
    def ok(self) -> bool:
        """Whether the file loads without faults."""
        return self.problems > 0 and self.counts.keys() <= NOTES

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        sizes = {"rows": self.rows, "problems": self.problems, "schema": self.schema, "reading": self.reading}
        first = [{"row": item.row, **item.fields} for item in self.first]
        faults = {"counts": dict(self.counts), "issues": [issue.as_dict() for issue in self.issues]}
        return {"file": self.file, "ok": self.ok, **sizes, "first": first, **faults}


def check_file(path: str | Path, columns: Mapping[str, str] | None = None, verifier: str | None = None) -> Report:
    """Check every row of a JSONL, JSON or Parquet file; the report includes faults of the file itself.

    `columns` and `verifier` are those of `TaskSpec`. Raises `ValueError` only if they are invalid.
    """
    path = Path(path).expanduser()
    return FileCheck(str(path), columns, verifier).run(path)


def is_same(verifier: str, first: str, second: str) -> bool:
    """Whether the verifier accepts one of two references as an answer where the other is the reference."""
    pairs = [(answer, second) for answer in alternatives(first)] + [(answer, first) for answer in alternatives(second)]
    responses = [f"<answer>{answer}</answer>" for answer, _ in pairs]
    return any(verdict.correct for verdict in verify_all(verifier, responses, [reference for _, reference in pairs]))


class FileCheck:
    """One pass over a file."""

    def __init__(self, file: str, columns: Mapping[str, str] | None, verifier: str | None) -> None:
        if verifier:
            find(verifier)
        if columns and not conversation_reader({}, columns):
            mapped(columns)
        self.file, self.columns, self.verifier = file, columns, verifier
        self.reader: Reader | None = None
        self.rows = self.problems = 0
        self.counts: Counter[str] = Counter()
        self.issues: list[DataError] = []
        self.first: list[Item] = []
        self.first_seen: dict[str, tuple[int, str]] = {}

    def run(self, path: Path) -> Report:
        """The report on a file."""
        rows = self.counted(numbered_rows(path))
        try:
            head, all_rows = head_of(rows)
            self.reader = self.recognise(head)
            while batch := list(islice(all_rows, BATCH)):
                items = [item for number, row in batch if (item := self.read(number, row, self.reader))]
                self.ask_verifiers(items)
        except DataError as error:
            self.note(error)
            self.finish(rows)
        return Report(
            file=self.file,
            rows=self.rows,
            problems=self.problems,
            schema=self.reader.name if self.reader else None,
            reading=self.reader.reading if self.reader else "",
            first=tuple(self.first),
            counts=dict(self.counts),
            issues=tuple(self.issues),
        )

    def recognise(self, head: list[dict[str, Any]]) -> Reader:
        """The reader of problems; that of conversations or pairs if the rows or the mapping are no problems."""
        reader = conversation_reader(sample_of(head), self.columns)
        if self.columns and reader:
            return reader
        try:
            return problem_reader(head, self.file, self.columns, self.verifier)
        except DataError as error:
            if reader is None or error.kind != "missing column":
                raise
            return reader

    def counted(self, rows: Iterable[NumberedRow]) -> Iterator[NumberedRow]:
        """The same rows, counted."""
        for row in rows:
            self.rows += 1
            yield row

    def finish(self, rows: Iterator[NumberedRow]) -> None:
        """Count the rows after a fault that ended the check."""
        try:
            for _ in rows:
                pass
        except DataError as error:
            self.note(error)

    def read(self, number: int, row: dict[str, Any] | DataError, reader: Reader) -> Item | None:
        """A row as its reader understands it; None if it has a fault."""
        try:
            if isinstance(row, DataError):
                raise row
            item = reader.convert(row, number)
        except DataError as error:
            self.note(error if error.row else error.at(self.file, number))
            return None
        self.problems += 1
        if len(self.first) < PREVIEWED:
            self.first.append(item)
        first, answer = self.first_seen.setdefault(" ".join(item.prompt.split()), (number, item.answer))
        if first != number:
            self.note_repeated(item, first, answer)
        return item

    def note_repeated(self, item: Item, first: int, answer: str) -> None:
        """Note a prompt that row `first` has too.

        Two references of one prompt contradict each other, unless the verifier accepts one for the other (1/2, 0.5) or
        they are JSON (tests, instructions). Conversations may answer a prompt in several ways.
        """
        kind, reason = "duplicate prompt", f"the prompt repeats row {first}'s"
        verifier = item.verifier.removesuffix(THINKING)
        compares = verifier not in ("", *STRUCTURED)
        if answer != item.answer and not (compares and is_same(verifier, answer, item.answer)):
            reason += ", with another answer"
            if compares:
                kind = "contradictory answer"
                reason += f": {shown(item.answer)}, not {shown(answer)}; keep one of the rows"
        self.note(DataError(kind, reason, self.file, item.row, item.field))

    def ask_verifiers(self, items: list[Item]) -> None:
        """Note the references that their verifiers cannot use: even an empty response gets no verdict."""
        for name in {item.verifier for item in items} - {""}:
            chosen = [item for item in items if item.verifier == name]
            verdicts = verify_all(name, [""] * len(chosen), [item.answer for item in chosen])
            for item, verdict in zip(chosen, verdicts, strict=True):
                if verdict.correct is None:
                    self.problems -= 1
                    reason = f"the verifier {name} cannot use it: {verdict.detail}"
                    self.note(DataError("unusable reference", reason, self.file, item.row, item.answer_field))
                elif name.removesuffix(THINKING) == "math" and are_words(item.answer):
                    is_number = of_reference(item.answer) is not None and not any(map(str.isdigit, item.answer))
                    better = "number" if is_number else "exact"  # twelve apples; New York, June 20
                    reason = f"{shown(item.answer)} cannot be read as mathematics: the verifier math compares its words"
                    reason += f"; {better} fits better (--verifier {better}, if it fits all rows, or a column verifier)"
                    self.note(DataError("words as mathematics", reason, self.file, item.row, item.answer_field))

    def note(self, error: DataError) -> None:
        """Count a fault, and list it if it is among the first of its kind."""
        self.counts[error.kind] += 1
        if self.counts[error.kind] <= LISTED_PER_KIND:
            self.issues.append(error)
