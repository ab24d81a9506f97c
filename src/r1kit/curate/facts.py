"""The first pass over the rows: filters, quality and decontamination, and the facts that later steps need.

A row becomes a fact of about 500 bytes (hashes, lengths, scores, signatures). Facts are stored in chunks of 2,000 rows:
a stopped run continues after the last chunk, and the steps that compare rows read facts only.
"""

from __future__ import annotations

import io
import json
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from r1kit import store
from r1kit.curate import decontaminate, duplicates, ngrams, quality
from r1kit.curate.decontaminate import Index
from r1kit.curate.duplicates import NearDuplicates
from r1kit.curate.filters.protocol import Filter, Rejection, excerpt
from r1kit.curate.quality import QualitySettings
from r1kit.curate.record import CuratedSample, from_row, view
from r1kit.data.errors import DataError
from r1kit.data.jsonl import MAX_ROW_BYTES, Line, lines, parsed, read_rows

ROWS = "rows"  # the first step of every funnel: rows that are readable and not empty
QUALITY, DECONTAMINATION = "quality", "decontamination"
CHUNK_ROWS = 2000
PIECE_BYTES = 2**18  # of rows that each step takes at once
KEPT = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """All steps that judge single rows, in order."""

    filters: Mapping[str, Filter]
    quality: QualitySettings | None
    index: Index | None
    near: tuple[NearDuplicates, ...]
    skip_invalid: bool

    @property
    def steps(self) -> list[str]:
        """The names of the steps, in order."""
        scored = [QUALITY] if self.quality else []
        return [ROWS, *self.filters, *scored, *([DECONTAMINATION] if self.index else [])]

    def layout(self) -> np.dtype[Any]:
        """The columns of a fact; `step` is the step that dropped the row, or `KEPT`."""
        columns: list[Any] = [
            ("file", "u2"),
            ("number", "u4"),
            ("offset", "i8"),
            ("length", "u4"),
            ("step", "i2"),
            ("chars", "u4"),
            ("id", "u8"),
            ("problem", "u8"),
            ("content", "u8"),
            ("quality", "f8"),
            ("pass_rate", "f4"),
        ]
        for number, search in enumerate(self.near):
            bands, _ = duplicates.shape(search.threshold)
            columns += [
                (f"group{number}", "u8"),
                (f"bands{number}", "u4", (bands,)),
                (f"signature{number}", "u1", (duplicates.VALUES,)),
            ]
        return np.dtype(columns)


Batch = Sequence[tuple[int, Line]]  # each with the number of its file
Judged = tuple[NDArray[Any], list[dict[str, Any]]]


def judge_batch(judge: Judge, files: Sequence[Path], batch: Batch) -> Judged:
    """The facts of some rows, and a record for each dropped one."""
    facts = np.zeros(len(batch), dtype=judge.layout())
    facts["step"], facts["quality"], facts["pass_rate"] = KEPT, np.nan, np.nan
    facts["file"] = [file for file, _ in batch]
    for name in ("number", "offset", "length"):
        facts[name] = [getattr(line, name) for _, line in batch]
    drops: list[dict[str, Any]] = []
    for places in ngrams.grouped(range(len(batch)), lambda place: batch[place][1].length, PIECE_BYTES):
        drops += _judge_piece(judge, files, {place: batch[place] for place in places}, facts)
    return facts, drops


def _judge_piece(
    judge: Judge, files: Sequence[Path], piece: Mapping[int, tuple[int, Line]], facts: NDArray[Any]
) -> list[dict[str, Any]]:
    """Fill in the facts of rows, by their place in `facts`; a record for each dropped one, in their order.

    Each step takes all the rows that are left.
    """
    samples: dict[int, CuratedSample] = {}
    errors: dict[int, DataError] = {}
    rejected: dict[int, tuple[str, Rejection]] = {}
    for place, (file, line) in piece.items():
        try:
            samples[place] = from_row(parsed(line, files[file], MAX_ROW_BYTES))
        except DataError as error:
            errors[place] = error
    turns = (turn.content for sample in samples.values() for turn in sample.messages)
    ngrams.prepare(chain((sample.question_with_history for sample in samples.values()), turns))
    for place, sample in samples.items():
        try:
            if (decision := _judge_sample(judge, sample, facts[place])) is not None:
                rejected[place] = decision
        except DataError as error:
            errors[place] = error
    if errors and not judge.skip_invalid:
        file, line = piece[first := min(errors)]
        raise errors[first].at(str(files[file]), line.number)
    for place, invalid in errors.items():
        rejected[place] = ROWS, Rejection(reason=f"invalid: {invalid.kind}", detail=invalid.reason)
    left = [place for place in samples if place not in rejected]
    if judge.index:
        hits = judge.index.find_each([samples[place] for place in left])
        for place, rejection in zip(left, map(decontaminate.rejection, hits), strict=True):
            if rejection is not None:
                rejected[place] = DECONTAMINATION, rejection
        left = [place for place in left if place not in rejected]
    if left:
        _describe(judge, left, [samples[place] for place in left], facts)
    drops = []
    for place in sorted(rejected):
        step, rejection = rejected[place]
        facts["step"][place] = judge.steps.index(step)
        readable = place not in errors
        names = {name: getattr(samples[place], name) if readable else "" for name in ("id", "problem_id")}
        drops.append({"row": place, "step": step, **asdict(rejection), **names})
    return drops


def _judge_sample(judge: Judge, sample: CuratedSample, fact: Any) -> tuple[str, Rejection] | None:
    """The first filter that rejects the sample, or the quality, and the reason."""
    empty = next((name for name in ("question", "response") if not getattr(sample, name).strip("\0 \t\r\n")), None)
    if empty:
        return ROWS, Rejection(reason=f"empty {empty}")
    parsed_response = view(sample)
    for name, rule in judge.filters.items():
        rejection = rule(parsed_response)
        if rejection is not None:
            return name, rejection
    if judge.quality:
        parts = quality.parts_of(sample)
        score = quality.composite(parts, judge.quality)
        fact["quality"] = np.nan if score is None else score
        rejection = quality.judge(score, parts, judge.quality)
        if rejection is not None:
            return QUALITY, replace(rejection, example=excerpt(sample.response))
    return None


def _describe(judge: Judge, places: list[int], samples: Sequence[CuratedSample], facts: NDArray[Any]) -> None:
    """Fill in the facts that the steps which compare rows need."""
    for place, sample in zip(places, samples, strict=True):
        fact = facts[place]
        fact["id"] = ngrams.stable_hash(sample.id)
        fact["problem"] = ngrams.stable_hash(sample.problem_id) if sample.problem_id else 0
        both = f"{' '.join(sample.question_with_history.split())}\n{' '.join(sample.response.split())}"
        fact["content"] = ngrams.stable_hash(both)
        fact["chars"] = len(sample.response)
        fact["pass_rate"] = np.nan if sample.pass_rate is None else sample.pass_rate
        if np.isnan(fact["quality"]) and (score := sample.scores.get(quality.PART)) is not None:
            fact["quality"] = score
    for number, search in enumerate(judge.near):
        for name, values in zip(("group", "bands", "signature"), duplicates.sketches(samples, search), strict=True):
            facts[f"{name}{number}"][places] = values


def _judged(
    make: Callable[[], Judge], workers: int, files: Sequence[Path], batches: Iterator[Batch]
) -> Iterator[Judged]:
    """All batches in order; each of several workers has two batches in flight."""
    if workers == 1:
        judge = make()
        yield from (judge_batch(judge, files, batch) for batch in batches)
        return
    context = multiprocessing.get_context("spawn")  # a fork would not copy the threads of this process
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(make,)) as pool:
        waiting: deque[Future[Judged]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(_judge_in_worker, files, batch))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker_judge: list[Judge] = []  # the judge of a worker process


def _start(make: Callable[[], Judge]) -> None:
    _worker_judge.append(make())


def _judge_in_worker(files: Sequence[Path], batch: Batch) -> Judged:
    return judge_batch(_worker_judge[0], files, batch)


class Facts:
    """The facts of all rows, in a folder of chunks."""

    def __init__(self, folder: Path, files: Sequence[Path]) -> None:
        self.folder, self.files = folder, files

    def chunks(self) -> list[Path]:
        """The finished chunks, in order; each has a file of dropped rows beside it."""
        return sorted(self.folder.glob("facts-*.npy"))

    def column(self, name: str) -> NDArray[Any]:
        """One column over all rows."""
        pieces = [np.load(path, mmap_mode="r")[name].copy() for path in self.chunks()]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int64)

    def dropped(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(row, reason and example) for each row that the first pass dropped, in order."""
        for path in self.chunks():
            for drop in read_rows(_drops(path)):
                yield drop.pop("row"), drop

    def collect(self, make: Callable[[], Judge], workers: int) -> Iterator[int]:
        """Judge all rows that are in no chunk yet; yields the number of judged rows after each chunk.

        `make` builds the judge. Each of several `workers` calls it, so it must be picklable.
        """
        done = self.chunks()
        rows = sum(len(np.load(path, mmap_mode="r")) for path in done)
        first, start = 0, {"offset": 0, "number": 0}
        if done:
            last = np.load(done[-1], mmap_mode="r")[-1]
            first, start = (
                int(last["file"]),
                {"offset": int(last["offset"] + last["length"]), "number": int(last["number"])},
            )
        rest = (
            (file, line)
            for file in range(first, len(self.files))
            for line in lines(self.files[file], **(start if file == first else {}))
        )
        batches = iter(lambda: list(islice(rest, CHUNK_ROWS)), [])
        for number, (facts, drops) in enumerate(_judged(make, workers, self.files, batches), start=len(done)):
            path = self.folder / f"facts-{number:06}.npy"
            numbered = [{**drop, "row": rows + drop["row"]} for drop in drops]
            store.write_text(_drops(path), "".join(json.dumps(drop, ensure_ascii=False) + "\n" for drop in numbered))
            buffer = io.BytesIO()
            np.save(buffer, facts)
            store.write_bytes(path, buffer.getvalue())  # written last: it marks the chunk as done
            rows += len(facts)
            yield rows


def _drops(chunk: Path) -> Path:
    return chunk.with_suffix(".dropped.jsonl")
