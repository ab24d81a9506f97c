"""Rows per second of each step from files to training batches, at several sizes, and the exponent in rows.

    python benchmarks/data_steps.py [--rows 1000 10000 100000] [--tokenizer MODEL_FOLDER]

Writes benchmarks/results/data_steps.json. The rows are those of curate.py, with 60 words of reasoning. `collect` is the
stage `generate` without a model: requests become rated samples on disk. `review` fills a queue, decides every sample
and exports them. `pack` packs all rows at once; a stage packs those of one update.

The exponent is the slope of the logarithm of processor seconds over that of rows: 1 is linear. Other work on the
machine matters little for processor time; rows per second are by the wall clock, on all cores (only tokenising uses
several).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from curate import made_rows, peak_mb, problems, vocabulary

from r1kit.chat import ChatFormat, end_ids
from r1kit.collect.loops import Generation, sample_all
from r1kit.collect.rating import Rater
from r1kit.collect.requests import Requests
from r1kit.collect.responses import ReferenceResponses, ResponseSettings
from r1kit.curate import MixSettings, curate, mix
from r1kit.data.conversations import conversation
from r1kit.data.journal import Journal
from r1kit.data.jsonl import read_rows
from r1kit.data.prepare import ConversationSettings, Reading, conversation_samples
from r1kit.data.tokens import TokenFile
from r1kit.pipeline import Progress
from r1kit.review.queue import ReviewQueue
from r1kit.stages.preferences import PreferencesSettings, candidates
from r1kit.tiny.tokenizer import make as tiny_tokenizer
from r1kit.train.packing import pack

Step = Callable[[Path, Path], Any]  # from a file of rows, into an empty folder


def steps(tokenizer: Any) -> dict[str, Step]:
    """The steps by name, in an order in which each finds what it needs."""
    settings = ConversationSettings()
    make = conversation_samples(settings, ChatFormat(system=""), tokenizer, end_ids(tokenizer), limit=1_000_000)

    def collect(file: Path, folder: Path) -> None:
        with Journal(folder / "samples.jsonl") as journal:
            source = ReferenceResponses()
            generation = Generation("collect", ResponseSettings(prompting="reference", samples=1), source, Rater())
            sample_all(generation, Requests((), {"rows": file}), journal, Progress())

    def review(file: Path, folder: Path) -> None:
        with ReviewQueue.create(folder / "queue.db", read_rows(file)) as queue:
            queue.auto_accept()
            queue.export(folder / "kept.jsonl")

    return {
        "curate": lambda file, folder: curate([file], folder),
        "mix": lambda file, folder: mix({"made": [file]}, folder / "mixed.jsonl", MixSettings(ratios={"made": 1.0})),
        "collect": collect,
        "preference pairs": lambda file, folder: sum(map(len, candidates([file], PreferencesSettings()))),
        "review": review,
        "tokenise": lambda file, folder: Reading(settings, conversation, make).tokenise([file], folder / "tokens"),
        "pack": lambda file, folder: pack(TokenFile(folder.parent / "tokenise" / "tokens"), 8192),
    }


def measure(rows: int, tokenizer: Any) -> dict[str, dict[str, float]]:
    """Seconds of each step over `rows` rows, of the processor and by the wall clock."""
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="r1kit-steps-") as name:
        folder, known = Path(name), vocabulary()
        file = folder / "rows.jsonl"
        with open(file, "w", encoding="utf-8") as out:
            out.writelines(
                json.dumps(row, ensure_ascii=False) + "\n" for row in made_rows(rows, 60, known, problems(known))
            )
        for step, work in steps(tokenizer).items():
            (folder / step).mkdir()
            start, cpu = time.perf_counter(), time.process_time()
            work(file, folder / step)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            seconds[step] = {"wall": wall, "processor": cpu}
            speed = f"{1e6 * cpu / rows:8.0f} µs of processor time per row {rows / wall:10,.0f} rows/s"
            print(f"{rows:8,} {step:18} {speed}", flush=True)
    return seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--tokenizer", metavar="MODEL_FOLDER", help="the package's tiny tokenizer if left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    tokenizer = tiny_tokenizer()
    if options.tokenizer:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    seconds = {rows: measure(rows, tokenizer) for rows in options.rows}
    exponents = {}
    if len(options.rows) > 1:
        for step in seconds[options.rows[0]]:
            points = [(rows, of_steps[step]["processor"]) for rows, of_steps in seconds.items()]
            exponents[step] = float(np.polyfit(*np.log(points).T, 1)[0])
            print(f"{step:18} exponent {exponents[step]:.2f}")
    host = {"cores": os.cpu_count(), "python": sys.version.split()[0], "numpy": np.__version__}
    result = {"seconds": seconds, "exponents": exponents, "peak_mb": peak_mb(), "host": host}
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "data_steps.json"
    file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"peak {result['peak_mb']:.0f} MB; {file}")


if __name__ == "__main__":
    main()
