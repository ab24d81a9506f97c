"""Rows per second of curation, step by step, and its memory.

    python benchmarks/curate.py [--rows 100000] [--words 60] [--workers 1]

Writes benchmarks/results/curate.json. The rows are generated. A twentieth of them are planted faults (exact and
near-duplicates, pieces of evaluation problems, loops, mixed languages), so the number found has a known target.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from r1kit.curate import CurateSettings, Curation, MixSettings, curate, decontaminate, duplicates, mix, ngrams, quality
from r1kit.curate.curation import make_judge
from r1kit.curate.facts import PIECE_BYTES
from r1kit.curate.record import from_row, view
from r1kit.data.jsonl import lines, parsed
from r1kit.types import Problem

PLANTED = ("exact", "near", "contaminated", "loop", "mixed")
FOUND_BY = {
    "exact": ("exact duplicates",),
    "near": ("near-duplicates (response, within problem)", "near-duplicates (both, within numbers)"),
    "contaminated": ("decontamination",),
    "loop": ("repetition",),
    "mixed": ("mixed_languages",),
}
SETTINGS = {"quality": {}, "balance": {"per_problem": 4, "shares": [0.3, 0.3, 0.2, 0.2], "size": 10**9}}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def vocabulary(size: int = 5000) -> list[str]:
    rng = random.Random("vocabulary")
    return ["".join(rng.choices(LETTERS, k=rng.randint(2, 10))) for _ in range(size)]


def problems(known: Sequence[str], count: int = 5000) -> list[Problem]:
    """An evaluation set of questions of 40 words."""
    rng = random.Random("problems")
    return [Problem(id=f"exam/{n}", prompt=" ".join(rng.choices(known, k=40)), answer="4") for n in range(count)]


def made_rows(count: int, size: int, known: Sequence[str], exam: Sequence[Problem]) -> Iterator[dict[str, Any]]:
    """Rows with `size` words of reasoning. Every 20th is planted; its id begins with the kind."""
    last: dict[str, Any] = {}
    for number in range(count):
        rng = random.Random(number)
        kind = PLANTED[number // 20 % len(PLANTED)] if number % 20 == 19 else "plain"
        question = f"What is {' '.join(rng.choices(known, k=20))} {number}?"
        reasoning = sentences(rng, known, size)
        if kind == "loop":
            reasoning += " and so we start again" * 40
        elif kind == "mixed":
            reasoning += "".join(f" 然后我们算{word}" for word in rng.choices(known, k=size))
        elif kind == "contaminated":
            question = f"{question} {exam[number % len(exam)].prompt}"
        row = {
            "id": f"{kind}/{number}",
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": f"<think>{reasoning}</think> <answer>{number}</answer>"},
            ],
            "problem_id": f"p{number // 4}",
            "source": "made",
            "language": "en",
            "answer": str(number),
            "scores": {"accuracy": 1.0, "reasoning": 0.8, "language": 1.0, "format": 1.0},
            "pass_rate": rng.random(),
        }
        if kind in ("exact", "near"):
            row |= {"messages": last["messages"], "problem_id": last["problem_id"]}
            row["scores"] = {**row["scores"], "reasoning": 0.7}  # lower than the original's, which is the one to keep
        if kind == "near":
            text = last["messages"][1]["content"].replace("</think>", f" {rng.choice(known)}.</think>", 1)
            row["messages"] = [last["messages"][0], {"role": "assistant", "content": text}]
        yield row
        last = row


def sentences(rng: random.Random, known: Sequence[str], size: int) -> str:
    words = rng.choices(known, k=size)
    return ". ".join(" ".join(words[start : start + 10]) for start in range(0, size, 10)) + "."


def per_step(file: Path, exam: Sequence[Problem], count: int) -> dict[str, float]:
    """CPU microseconds per row of each step, over the first `count` rows; shared work is a step of its own."""
    settings = CurateSettings.parse(SETTINGS)
    judge = make_judge(settings, decontaminate.build({"exam": exam}, settings.decontamination))
    scored, index = judge.quality, judge.index
    assert scored and index
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        start = time.thread_time()
        result = work(*arguments)
        spent[name] += time.thread_time() - start
        return result

    for block in ngrams.grouped(islice(lines(file), count), lambda line: line.length, PIECE_BYTES):
        samples = [timed("parse and check", lambda line: from_row(parsed(line, file)), line) for line in block]
        timed("words", ngrams.prepare, [turn.content for sample in samples for turn in sample.messages])
        for sample in samples:
            parts_view = timed("take apart", view, sample)
            for name, look in judge.filters.items():
                timed(name, look, parts_view)
            parts = timed("quality", quality.parts_of, sample)
            timed("quality", quality.composite, parts, scored)
        timed("decontamination", index.find_each, samples)
        for near in judge.near:
            timed(f"signatures ({near.text})", duplicates.sketches, samples, near)
    return {name: 1e6 * seconds / count for name, seconds in spent.items()}


def whole(file: Path, out: Path, exam: Sequence[Problem], workers: int) -> tuple[Curation, dict[str, float]]:
    """One curation, and the seconds of its phases: judging rows, selecting by facts, writing."""
    marks: dict[str, float] = {}
    start = time.perf_counter()

    def mark(phase: str, rows: int) -> None:
        marks.setdefault(f"first {phase}", time.perf_counter())
        marks[phase] = time.perf_counter()

    done = curate(
        [file], out, CurateSettings.parse(SETTINGS), evaluation={"exam": exam}, progress=mark, workers=workers
    )
    end = time.perf_counter()
    judged, selected = marks["judge"] - start, marks.get("first write", end) - marks["judge"]
    return done, {"judge": judged, "select": selected, "write and report": end - start - judged - selected}


def recall(done: Curation) -> dict[str, dict[str, int]]:
    """By kind of planted row: how many there are, how many the right step dropped, how many plain rows it dropped."""
    counts = {kind: {"planted": 0, "found": 0, "plain_dropped": 0} for kind in PLANTED}
    for path in (done.kept_file, done.dropped_file):
        with open(path, encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                kind, step = row["id"].partition("/")[0], row.get("dropped", {}).get("step")
                for planted in PLANTED:
                    right = step in FOUND_BY[planted]
                    counts[planted]["planted"] += kind == planted
                    counts[planted]["found"] += kind == planted and right
                    counts[planted]["plain_dropped"] += kind == "plain" and right
    return counts


def measure(rows: int, size: int, workers: int, folder: Path) -> dict[str, Any]:
    known = vocabulary()
    exam = problems(known)
    file = folder / "rows.jsonl"
    with open(file, "w", encoding="utf-8") as out:
        for row in made_rows(rows, size, known, exam):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    steps = per_step(file, exam, min(rows, 5000))
    before, cpu = peak_mb(), time.process_time()
    done, phases = whole(file, folder / "out", exam, workers)
    cpu = time.process_time() - cpu
    after = peak_mb()
    start = time.perf_counter()
    mix({"reasoning": [done.kept_file]}, folder / "mixed.jsonl", MixSettings(ratios={"reasoning": 1.0}))
    phases["mix"] = time.perf_counter() - start
    seconds = sum(phases.values()) - phases["mix"]
    return {
        "rows": rows,
        "megabytes": file.stat().st_size / 1e6,
        "workers": workers,
        "rows_per_s": rows / seconds,
        "cpu_s": cpu,  # of this process: less than the seconds if other processes use the machine
        "seconds": phases,
        "peak_mb": after,
        "worker_peak_mb": peak_mb(resource.RUSAGE_CHILDREN) if workers > 1 else None,  # of the largest
        "peak_mb_before": before,
        "bytes_per_row": 1e6 * (after - before) / rows,
        "microseconds_per_row": steps,
        "found": recall(done),
        "funnel": [step.to_json() | {"examples": []} for step in done.funnel],
        "host": {"cores": os.cpu_count(), "python": sys.version.split()[0], "numpy": np.__version__},
    }


def peak_mb(who: int = resource.RUSAGE_SELF) -> float:
    """The largest resident set so far; Linux counts it in kilobytes."""
    return resource.getrusage(who).ru_maxrss * 1024 / 1e6


def show(result: dict[str, Any]) -> None:
    print(f"{result['rows']} rows, {result['megabytes']:.0f} MB, {result['workers']} worker(s)")
    for name, microseconds in result["microseconds_per_row"].items():
        print(f"  {name:24} {microseconds:8.1f} µs/row {1e6 / max(microseconds, 1e-3):12,.0f} rows/s")
    for name, seconds in result["seconds"].items():
        print(f"  phase {name:18} {seconds:8.1f} s      {result['rows'] / max(seconds, 1e-9):12,.0f} rows/s")
    for kind, counts in result["found"].items():
        print(
            f"  planted {kind:14} {counts['found']} of {counts['planted']} found, "
            f"{counts['plain_dropped']} plain rows dropped by the same step"
        )
    size = result["megabytes"] / result["rows"]
    print(
        f"total {result['rows_per_s']:,.0f} rows/s, {result['rows_per_s'] * size:.1f} MB/s, {result['cpu_s']:.1f} s "
        f"of CPU time; peak {result['peak_mb']:.0f} MB, {result['bytes_per_row']:.0f} bytes per row"
        + (f"; each worker {result['worker_peak_mb']:.0f} MB" if result["worker_peak_mb"] else "")
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=60, help="words of reasoning in a row")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="r1kit-curate-"))
    try:
        result = measure(options.rows, options.words, options.workers, folder)
    finally:
        shutil.rmtree(folder)
    show(result)
    options.out.mkdir(parents=True, exist_ok=True)
    name = "curate.json" if options.words == 60 else f"curate-{options.words}-words.json"
    (options.out / name).write_text(json.dumps(result, indent=1) + "\n")
    print(options.out / name)


if __name__ == "__main__":
    main()
