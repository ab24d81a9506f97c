"""How the rows of a data set are laid out: the columns of prompt and reference, and those that may stay unused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from r1kit.data.columns import is_empty, lookup, telling
from r1kit.tasks.references import Several, reference

Row = Mapping[str, Any]
LANGUAGE = re.compile(r"[a-z]{2,3}(-\w+)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """How the rows of a data set are laid out. Dotted columns are nested: `reward_model.ground_truth`.

    Rows of this shape have the columns `prompt`, `answer`, `choices`, `wrong` and `needs`, and an answer that `looks`
    right. Every other column that tells something (`columns.TELLING`) must be one of `reads`, which are used if they
    are there, or of `explains`, which are rightly unused (None: all). Otherwise the row is of another shape. `check`
    raises `DataError` for a row of this shape that cannot be judged. `ask`, `hold` and `work` build prompt, reference
    and worked solution from the whole row. Otherwise the prompt columns are joined by `joint`, and `parse` reads the
    answer. Rewards do not see the columns that it `drops`, which would fill the memory.
    """

    name: str
    prompt: tuple[str, ...]
    answer: str
    explains: tuple[str, ...] | None = ()
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    drops: tuple[str, ...] = ()
    twins: tuple[tuple[str, str], ...] = ()  # pairs of columns that hold the same, so either may count
    looks: Callable[[str], bool] | None = None
    check: Callable[[Row], None] | None = None
    ask: Callable[[Row], str] | None = None
    hold: Callable[[Row], str] | None = None
    work: Callable[[Row], str] | None = None
    parse: Callable[[Any], str] = reference
    joint: str = " "
    system: str | None = None  # None: a system message in the prompt opens it; "": it is left out; or a column
    several: Several = ""
    verifier: str = ""  # "": as the form of the answer says, `math` for text and numbers
    language: str = "en"
    verifier_column: str = ""
    language_column: str = ""
    source_column: str = ""
    choices: str = ""  # the column of the options; they become part of the prompt, and the answer a letter
    first: int | None = None  # whether numbers of options count from 0 or 1
    by_label: bool = False  # whether answers are labels, never texts of options
    wrong: tuple[str, ...] = ()  # columns of wrong options; `answer` is the right one
    solution: Callable[[Any], str] | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that all rows of this shape have."""
        named = (*self.prompt, self.answer, self.choices, *self.wrong, *self.needs)
        return tuple(dict.fromkeys(filter(None, named)))

    def fits(self, sample: Row) -> bool:
        """Whether a row has this shape."""
        columns = (*self.columns, self.language_column or self.answer)
        if any(is_empty(lookup(sample, column)) for column in columns) or self.unexplained(sample):
            return False
        return self.looks is None or self.looks(str(lookup(sample, self.answer)))

    def unexplained(self, row: Row) -> list[str]:
        """The columns of a row that tell something, and that this shape neither reads nor explains."""
        if self.explains is None:
            return []
        twins = [column for pair in self.twins for column in pair]
        read = {column.partition(".")[0] for column in self.columns} | {*self.reads, *self.explains, *twins}
        return [column for column in telling(row) if column not in read]

    def reading(self, columns: Iterable[str]) -> str:
        """In words, how rows with these columns are read."""
        options = [self.choices] if self.choices else [self.answer, *self.wrong] if self.wrong else []
        prompt = " and ".join([*self.prompt, *([self.system] if self.system else [])])
        answer = " and ".join([self.answer, *self.needs] if self.hold else [self.answer])
        labels = (self.system or "", self.verifier_column, self.language_column, self.source_column)
        unused = set(columns) - {column.partition(".")[0] for column in (*self.columns, *self.reads, *labels)}
        parts = [
            f"prompt: {prompt}" + (f" with the options of {', '.join(options)}" if options else ""),
            f"reference: {answer}" + {"any": " (any of a list)", "all": " (all of a list)", "": ""}[self.several],
            f"options count from {self.first}" if self.first is not None else "",
            f"unused: {', '.join(sorted(unused)) or 'none'}",
        ]
        return "; ".join(filter(None, parts))


def relabelled(schema: Schema, verifier: str | None, language: str | None) -> Schema:
    """The schema with one verifier or language for all rows, whatever the columns say."""
    if verifier:
        schema = replace(schema, verifier=verifier, verifier_column="")
    return replace(schema, language=language, language_column="") if language else schema


def is_language(value: Any) -> bool:
    """Whether a value looks like an ISO 639 code."""
    return isinstance(value, str) and LANGUAGE.fullmatch(value) is not None
