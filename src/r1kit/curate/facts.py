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
from itertools import islice
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
from r1kit.data.jsonl import Line, lines, parsed, read_rows

ROWS = "rows"  # the first step of every funnel: rows that are readable and not empty
QUALITY, DECONTAMINATION = "quality", "decontamination"
CHUNK_ROWS = 2000
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


def judge_row(judge: Judge, line: Line, path: Path, fact: Any) -> dict[str, Any] | None:
    """Fill in the fact of a row; returns the reason and an example if it is dropped, else None."""
    fact["step"], fact["quality"], fact["pass_rate"] = KEPT, np.nan, np.nan
    fact["number"], fact["offset"], fact["length"] = line.number, line.offset, line.length
    try:
        sample = from_row(parsed(line, path), file=str(path), number=line.number)
        step, rejection = _judge_sample(judge, sample, fact)
    except DataError as error:
        error = error.at(str(path), line.number)
        if not judge.skip_invalid:
            raise error from None
        fact["step"] = 0
        return {"step": ROWS, "reason": f"invalid: {error.kind}", "detail": error.reason, "id": "", "problem_id": ""}
    if rejection is None:
        return None
    fact["step"] = judge.steps.index(step)
    return {"step": step, **asdict(rejection), "id": sample.id, "problem_id": sample.problem_id}


def _judge_sample(judge: Judge, sample: CuratedSample, fact: Any) -> tuple[str, Rejection | None]:
    """The first step that rejects the sample, and the reason; if there is none, the fact is complete."""
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
    if judge.index and (rejection := decontaminate.rejection(judge.index.find(sample))) is not None:
        return DECONTAMINATION, rejection
    fact["id"] = ngrams.stable_hash(sample.id)
    fact["problem"] = ngrams.stable_hash(sample.problem_id) if sample.problem_id else 0
    both = f"{' '.join(sample.question_with_history.split())}\n{' '.join(sample.response.split())}"
    fact["content"] = ngrams.stable_hash(both)
    fact["chars"] = len(sample.response)
    fact["pass_rate"] = np.nan if sample.pass_rate is None else sample.pass_rate
    if np.isnan(fact["quality"]) and (score := sample.scores.get(quality.PART)) is not None:
        fact["quality"] = score
    for number, search in enumerate(judge.near):
        group, bands, signature = duplicates.sketch(sample, search)
        fact[f"group{number}"], fact[f"bands{number}"], fact[f"signature{number}"] = group, bands, signature
    return "", None


Batch = Sequence[tuple[int, Line]]  # each with the number of its file
Judged = tuple[NDArray[Any], list[dict[str, Any]]]


def judge_batch(judge: Judge, files: Sequence[Path], batch: Batch) -> Judged:
    """The facts of some rows, and a record for each dropped one."""
    facts = np.zeros(len(batch), dtype=judge.layout())
    drops = []
    for place, (file, line) in enumerate(batch):
        facts[place]["file"] = file
        drop = judge_row(judge, line, files[file], facts[place])
        if drop is not None:
            drops.append({"row": place, **drop})
    return facts, drops


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
