"""From rows of samples to a training set: filters, quality, decontamination, duplicates and balance.

There are two passes over the rows. The first judges each row alone and stores facts, from which duplicates and balance
are decided. The second writes `kept.jsonl` and `dropped.jsonl` in the order of the rows. A killed run resumes and gives
the same files bit for bit.
"""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from r1kit import store
from r1kit.curate import decontaminate, filters, funnel, quality, selection
from r1kit.curate.balance import BalanceSettings
from r1kit.curate.decontaminate import DecontaminationSettings, Index
from r1kit.curate.duplicates import NearDuplicates
from r1kit.curate.facts import DECONTAMINATION, QUALITY, ROWS, Facts, Judge
from r1kit.curate.filters import FilterSpec
from r1kit.curate.filters.protocol import excerpt
from r1kit.curate.funnel import Drop, Example, FunnelStep
from r1kit.curate.quality import QualitySettings
from r1kit.curate.selection import Decisions
from r1kit.data.jsonl import ReplayWriter, Rereader, encoded, parse_json
from r1kit.settings import Settings
from r1kit.types import Problem

KEPT_FILE, DROPPED_FILE, REPORT_FILE, WORK = "kept.jsonl", "dropped.jsonl", "curation.json", "work"
FORMAT = 2  # of the facts: a folder with another format starts again

# The paper's filters (section 2.3.3), and those for samples that are useless for any purpose.
DEFAULT_FILTERS = (
    "truncated",
    "too_long",
    "not_in_format",
    "code_blocks",
    "long_paragraphs",
    "unreadable",
    "mixed_languages",
    "wrong_language",
    "repetition",
)


class CurateSettings(Settings):
    """The steps from samples to a training set, in the order of the fields."""

    skip_invalid: bool = Field(default=False, description="drop rows that cannot be read; else stop at the first")
    filters: tuple[FilterSpec, ...] = tuple(FilterSpec(name=name) for name in DEFAULT_FILTERS)
    quality: QualitySettings | None = Field(default=None, description="the composite score; null: not computed")
    decontamination: DecontaminationSettings = DecontaminationSettings()
    near_duplicates: tuple[NearDuplicates, ...] = (
        NearDuplicates(within="problem", text="response"),
        NearDuplicates(within="numbers", text="both"),
    )
    balance: BalanceSettings = BalanceSettings()
    examples: int = Field(default=3, ge=0, description="example rows in the funnel, per reason")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        titles = [spec.title for spec in self.filters]
        titles += [ROWS, QUALITY, DECONTAMINATION, *selection.step_names(self.near_duplicates, self.balance)]
        twice = next((title for title in titles if titles.count(title) > 1), None)
        if twice is not None:
            raise ValueError(f"two steps are called {twice!r}: give each filter of that name its own label")
        if self.balance.choose == "diverse" and "response" not in [search.text for search in self.near_duplicates]:
            raise ValueError(
                "balance.choose 'diverse' needs a near_duplicates entry with text 'response' to compare by"
            )
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """The result, which `curation.json` stores too.

    `decontamination` has one entry per evaluation set: its size in the index, the number of rows that hit it, examples.
    """

    folder: Path
    rows: int
    kept: int
    funnel: tuple[FunnelStep, ...]
    decontamination: tuple[Mapping[str, Any], ...]

    @property
    def kept_file(self) -> Path:
        return self.folder / KEPT_FILE

    @property
    def dropped_file(self) -> Path:
        return self.folder / DROPPED_FILE


def curate(
    files: Sequence[Path],
    folder: Path,
    settings: CurateSettings | None = None,
    *,
    evaluation: Mapping[str, Iterable[Problem]] | None = None,
    progress: Callable[[str, int], None] | None = None,
    workers: int = 1,
) -> Curation:
    """Curate the rows of `files` (JSONL, as `record.from_row` reads them) into `folder`.

    `evaluation` are the sets that must not leak into training; `decontaminate.evaluation_sets` loads them from task
    specs. `progress` receives the phase ("judge", "write") and the number of rows done. `workers` processes judge the
    rows; their number does not change the result. Finished work is not repeated, but other settings, sets or rows start
    again. Raises `DataError` with file, row and field for a bad row, unless `skip_invalid` is set.
    """
    settings = settings or CurateSettings()
    index = decontaminate.build(evaluation, settings.decontamination) if evaluation else None
    hashes = {f"{number} {file.name}": store.sha256(file) for number, file in enumerate(files)}
    hashes |= {"settings": settings.model_dump_json(), "format": str(FORMAT), "index": index.digest() if index else ""}
    fingerprint = store.combine(hashes)
    say = progress or (lambda phase, rows: None)
    if (finished := _resume(folder, fingerprint)) is not None:
        return finished
    facts = Facts(folder / WORK, files)
    for rows in facts.collect(functools.partial(make_judge, settings, index), workers):
        say("judge", rows)
    steps = make_judge(settings, index).steps
    steps += selection.step_names(settings.near_duplicates, settings.balance)
    decisions = selection.decide(facts, steps, settings.near_duplicates, settings.balance)
    with Rereader(files) as reader:
        work = _Work(facts, decisions, settings, reader)
        for rows in work.write(folder):
            say("write", rows)
        report = work.report(index)
    content = {name: store.sha256(folder / name) for name in (KEPT_FILE, DROPPED_FILE)}
    store.write_json(folder / REPORT_FILE, {"fingerprint": fingerprint, **report, "content": content})
    shutil.rmtree(folder / WORK)
    return _read(folder, report)


def make_judge(settings: CurateSettings, index: Index | None) -> Judge:
    """The judge of single rows that the settings describe."""
    return Judge(
        filters=filters.build(settings.filters),
        quality=settings.quality,
        index=index,
        near=settings.near_duplicates,
        skip_invalid=settings.skip_invalid,
    )


class _Work:
    """The second pass, and the report."""

    def __init__(self, facts: Facts, decisions: Decisions, settings: CurateSettings, reader: Rereader) -> None:
        self.facts, self.decisions, self.settings, self.reader = facts, decisions, settings, reader
        self.places = [facts.column(name) for name in ("file", "offset", "length")]
        self.quality = facts.column("quality")
        self.first_global = decisions.steps.index(selection.SAME_ID)
        self.partner_id = functools.lru_cache(maxsize=4096)(lambda row: str(self.row(row).get("id", "")))

    def line(self, row: int) -> bytes:
        file, offset, length = (int(column[row]) for column in self.places)
        return self.reader.read(file, offset, length)

    def row(self, row: int) -> dict[str, Any]:
        value: dict[str, Any] = parse_json(self.line(row))
        return value

    def why(self, row: int) -> dict[str, str]:
        """Step, reason and detail for a row that a later step dropped."""
        partner = int(self.decisions.partner[row])
        partner_id = self.partner_id(partner) if partner >= 0 else ""
        rejection = self.decisions.why(row, self.settings.balance, partner_id)
        step = self.decisions.steps[self.decisions.step[row]]
        return {"step": step, "reason": rejection.reason, "detail": rejection.detail}

    def write(self, folder: Path) -> Iterator[int]:
        """Write both files in the order of the rows; yields the number of written rows now and then."""
        drops = self.facts.dropped()
        with closing(ReplayWriter(folder / KEPT_FILE)) as kept, closing(ReplayWriter(folder / DROPPED_FILE)) as dropped:
            for row, step in enumerate(self.decisions.step.tolist()):
                first_pass = next(drops)[1] if 0 <= step < self.first_global else None
                (kept if step < 0 else dropped).put(functools.partial(self._output, row, first_pass))
                if row % 2000 == 1999:
                    yield row + 1
            kept.finish()
            dropped.finish()

    def _output(self, row: int, first_pass: Mapping[str, Any] | None) -> bytes:
        """A row's line in its file; `first_pass` is the reason if the first pass dropped it."""
        line = self.line(row)
        if self.decisions.step[row] < 0:
            if self.settings.quality is None:
                return line if line.endswith(b"\n") else line + b"\n"
            kept = parse_json(line)
            kept["scores"] = {**(kept.get("scores") or {}), quality.PART: float(self.quality[row])}
            return encoded(kept)
        drop = first_pass or self.why(row)
        reason = {name: drop[name] for name in ("step", "reason", "detail", "example") if drop.get(name)}
        if first_pass and first_pass["step"] == ROWS and first_pass["reason"].startswith("invalid"):
            return encoded({"raw": line[:2000].rstrip(b"\r\n").decode("utf-8", "replace"), "dropped": reason})
        return encoded({**parse_json(line), "dropped": reason})

    def report(self, index: Index | None) -> dict[str, Any]:
        """The content of `curation.json`."""
        steps, counted = self.decisions.steps, self.decisions.step
        early = (Drop(drop["step"], drop["reason"], row) for row, drop in self.facts.dropped())
        late = (
            Drop(steps[counted[row]], self.decisions.why(row, self.settings.balance, "").reason, row)
            for row in np.flatnonzero(counted >= self.first_global).tolist()
        )
        table, example_drops = funnel.count(steps, len(counted), chain(early, late), self.settings.examples)
        wanted = {drop.row for drop in example_drops}
        details = {row: detail for row, detail in self.facts.dropped() if row in wanted}
        examples = []
        for drop in example_drops:
            if (first_pass := details.get(drop.row)) is not None:
                names = {name: first_pass[name] for name in ("id", "problem_id", "detail")}
                text = first_pass.get("example") or ""
            else:
                row = self.row(drop.row)
                names = {
                    "id": row["id"],
                    "problem_id": row.get("problem_id") or "",
                    "detail": self.why(drop.row)["detail"],
                }
                text = excerpt(row["messages"][-1]["content"])
            examples.append((drop.step, Example(**names, reason=drop.reason, text=text)))
        table = [
            replace(step, examples=tuple(example for name, example in examples if name == step.name)) for step in table
        ]
        return {
            "rows": len(counted),
            "kept": int((counted < 0).sum()),
            "funnel": [step.to_json() for step in table],
            "decontamination": self._hits(index, table) if index else [],
            "settings": self.settings.model_dump(mode="json"),
            "files": [str(file) for file in self.facts.files],
        }

    def _hits(self, index: Index, table: Sequence[FunnelStep]) -> list[dict[str, Any]]:
        """Per evaluation set: its size in the index, the rows that hit it (one can hit several), and examples."""
        step = next(step for step in table if step.name == DECONTAMINATION)
        rows = Counter(name for _, drop in self.facts.dropped() for name in drop.get("found_in", ()))
        examples = {name: [asdict(row) for row in step.examples if row.reason == f"in {name}"] for name in rows}
        return [
            {
                **described,
                "rows": rows[described["set"]],
                "share": rows[described["set"]] / step.rows_in if step.rows_in else 0.0,
                "examples": examples.get(described["set"], []),
            }
            for described in index.sets
        ]


def _resume(folder: Path, fingerprint: str) -> Curation | None:
    """The finished result, or None and a work folder from which everything of other settings, sets or rows is gone."""
    path, name = folder / REPORT_FILE, folder / WORK / "fingerprint.txt"
    report = store.read_object(path) if path.exists() else {}
    has_files = (folder / KEPT_FILE).exists() and (folder / DROPPED_FILE).exists()
    if report.get("fingerprint") == fingerprint and has_files:
        for file, digest in (report.get("content") or {}).items():  # an older version recorded none
            if store.sha256(folder / file) != digest:
                again = f"restore it, or delete {path}, and the rows are curated again"
                raise store.StoreError(f"{folder / file} is damaged: it is not as it was written; {again}")
        shutil.rmtree(folder / WORK, ignore_errors=True)  # a kill just before the end leaves it
        return _read(folder, report)
    if not name.exists() or name.read_text() != fingerprint:
        shutil.rmtree(folder / WORK, ignore_errors=True)
        for file in (REPORT_FILE, KEPT_FILE, DROPPED_FILE, f"{KEPT_FILE}.part", f"{DROPPED_FILE}.part"):
            (folder / file).unlink(missing_ok=True)
        store.write_text(name, fingerprint)
    return None


def _read(folder: Path, report: Mapping[str, Any]) -> Curation:
    """The result that `curation.json` holds."""
    funnel_steps = []
    for row in report["funnel"]:
        facts = {name: row[name] for name in ("name", "rows_in", "rows_out", "reasons")}
        examples = tuple(Example(**example) for example in row["examples"])
        funnel_steps.append(FunnelStep(**facts, examples=examples))
    return Curation(
        folder=folder,
        rows=report["rows"],
        kept=report["kept"],
        funnel=tuple(funnel_steps),
        decontamination=tuple(report["decontamination"]),
    )
