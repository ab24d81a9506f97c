"""`r1kit data check FILE`: all faults of a file of problems, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1kit.data.errors import DataError
from r1kit.data.rows import NumberedRow, numbered_rows
from r1kit.tasks.from_rows import problem_of, recognise
from r1kit.tasks.schemas import Schema, mapped

LISTED_PER_KIND = 50  # of a million faulty rows, all are counted and fifty are listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The state of a file. `problems` counts usable rows, `counts` all faults by kind; `issues` lists the first ones.

    Repeated prompts are listed as issues, but do not make a file unusable.
    """

    file: str
    rows: int
    problems: int
    schema: str | None
    counts: Mapping[str, int]
    issues: tuple[DataError, ...]

    @property
    def ok(self) -> bool:
        """Whether the file loads without faults."""
        return self.problems > 0 and not any(kind != "duplicate prompt" for kind in self.counts)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        sizes = {"rows": self.rows, "problems": self.problems, "schema": self.schema, "counts": dict(self.counts)}
        return {"file": self.file, "ok": self.ok, **sizes, "issues": [issue.as_dict() for issue in self.issues]}


def check_file(path: str | Path, columns: Mapping[str, str] | None = None) -> Report:
    """Check every row of a JSONL, JSON or Parquet file; the report includes faults of the file itself.

    Raises `DataError` only for an invalid `columns` mapping.
    """
    path = Path(path).expanduser()
    return FileCheck(str(path), mapped(columns) if columns else None).run(path)


class FileCheck:
    """One pass over a file."""

    def __init__(self, file: str, schema: Schema | None) -> None:
        self.file, self.schema = file, schema
        self.rows = self.problems = 0
        self.counts: Counter[str] = Counter()
        self.issues: list[DataError] = []
        self.first_seen: dict[str, int] = {}

    def run(self, path: Path) -> Report:
        """The report on a file."""
        rows = self.counted(numbered_rows(path))
        try:
            schema, all_rows = (self.schema, rows) if self.schema else recognise(rows, self.file)
            self.schema = schema
            for number, row in all_rows:
                self.check_row(number, row, schema)
        except DataError as error:
            self.note(error)
            self.finish(rows)
        return Report(
            file=self.file,
            rows=self.rows,
            problems=self.problems,
            schema=self.schema.name if self.schema else None,
            counts=dict(self.counts),
            issues=tuple(self.issues),
        )

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

    def check_row(self, number: int, row: dict[str, Any] | DataError, schema: Schema) -> None:
        """Note the faults of one row."""
        try:
            problem = problem_of(row, schema, name="check", file=self.file, number=number)
        except DataError as error:
            self.note(error)
            return
        self.problems += 1
        first = self.first_seen.setdefault(" ".join(problem.prompt.split()), number)
        if first != number:
            reason = f"the prompt repeats row {first}'s"
            self.note(DataError("duplicate prompt", reason, self.file, number, schema.prompt[0]))

    def note(self, error: DataError) -> None:
        """Count a fault, and list it if it is among the first of its kind."""
        self.counts[error.kind] += 1
        if self.counts[error.kind] <= LISTED_PER_KIND:
            self.issues.append(error)
