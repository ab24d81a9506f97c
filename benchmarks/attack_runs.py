"""The whole tiny R1 with kills at random moments, or with disks that fill up, against an undisturbed run.

`python benchmarks/attack_runs.py kills --times 100` and `... disks --times 40` print JSON: attempts, how they ended,
and every file that differs or that a broken attempt left. The exit status is 1 if there is any. Rows are compared
without times. A full disk is a process whose files cannot grow from a random moment on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDS = ("manifest.json", "stage.json", "run.json", "plan.json", "progress.json", "recipe.toml", "log.txt", ".lock")
TIMED = ("time", "speed", "seconds", "memory")  # parts of names of figures that no two runs share
LEFTOVERS = (".tmp-", ".old", ".part")


def command(runs: Path, settings: dict[str, str]) -> list[str]:
    changes = [f"--set={name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "r1kit", "run", "r1", "--scale", "tiny", "--runs", str(runs), "--jobs", "1", *changes]


def smallest() -> dict[str, str]:
    """The settings with which the suite walks through the whole recipe."""
    sys.path.insert(0, str(ROOT / "tests"))
    from test_whole_recipe import SMALLEST

    return dict(SMALLEST) | {f"{stage}.steps": "4" for stage in ("zero", "dev2", "r1")}


def run(
    runs: Path, settings: dict[str, str], kill_after: float | None = None, full_after: float | None = None
) -> tuple[int, str]:
    """One attempt: its exit status and the end of its errors. From `full_after` seconds on no file can grow."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(runs, settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,  # a file could not grow either
        env=environment,
        preexec_fn=_no_signal,
    )
    try:
        _, errors = process.communicate(timeout=kill_after or full_after)
    except subprocess.TimeoutExpired:
        if kill_after:
            process.kill()
        else:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))  # of Linux
        _, errors = process.communicate()
    return process.returncode, errors.decode("utf-8", "replace")[-2000:]


def _no_signal() -> None:
    """A file that cannot grow is an error of the write, as on a full disk, and no signal."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def content(path: Path) -> str:
    """A hash of what a file says, without times."""
    if path.suffix == ".jsonl":
        # of reviewed rows, "at" is the moment of a decision
        names = TIMED if path.name == "metrics.jsonl" else ()
        rows = [_without_times(json.loads(line), names) for line in path.read_text().splitlines()]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _without_times(value: Any, parts: Sequence[str]) -> Any:
    """A row without what is named "at", or has one of the parts in its name."""
    if isinstance(value, list):
        return [_without_times(each, parts) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_times(each, parts)
        for name, each in value.items()
        if name != "at" and not any(part in name for part in parts)
    }


def results(runs: Path) -> dict[str, str]:
    """The contents of all data and weights below a run's stages."""
    kept = (".jsonl", ".safetensors", ".parquet")
    files = [path for path in runs.rglob("*") if path.is_file() and path.suffix in kept]
    return {str(path.relative_to(runs)): content(path) for path in sorted(files) if path.name not in RECORDS}


def leftovers(runs: Path) -> list[str]:
    return sorted(
        str(path.relative_to(runs)) for path in runs.rglob("*") if any(mark in path.name for mark in LEFTOVERS)
    )


def attack(times: int, runs: Path, settings: dict[str, str], trouble: Callable[[], dict[str, float]]) -> Counter[str]:
    """Disturbed attempts until there were so many, in run folders that each end undisturbed."""
    ends: Counter[str] = Counter()
    number = 0
    while sum(ends.values()) < times:
        folder = runs / f"run-{number}"
        while sum(ends.values()) < times:
            status, errors = run(folder, settings, **trouble())
            if status == 0:
                break
            is_full = "File too large" in errors or "No space" in errors
            ends["killed" if status == -signal.SIGKILL else "full" if is_full else f"other: {errors[-300:]}"] += 1
        status, errors = run(folder, settings)
        if status:
            ends[f"did not go on: {errors[-300:]}"] += 1
            break
        number += 1
    return ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["kills", "disks"])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, settings = random.Random(f"attack/{options.kind}/{options.seed}"), smallest()
    with tempfile.TemporaryDirectory() as folder:
        straight, attacked = Path(folder, "straight"), Path(folder, "attacked")
        start = time.perf_counter()
        status, errors = run(straight, settings)
        assert status == 0, errors
        seconds = time.perf_counter() - start
        name = "kill_after" if options.kind == "kills" else "full_after"
        ends = attack(options.times, attacked, settings, lambda: {name: chance.uniform(2.0, max(3.0, seconds / 3))})
        expected = results(straight)
        different, left, num_runs = [], [], 0
        for runs in sorted(attacked.iterdir()):
            found, num_runs = results(runs), num_runs + 1
            changed = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            different += [f"{runs.name}/{name}" for name in changed]
            left += [f"{runs.name}/{name}" for name in leftovers(runs)]
    facts = {"undisturbed_s": round(seconds, 1), "attempts": dict(ends), "runs": num_runs, "files": len(expected)}
    print(json.dumps(facts | {"different": different, "leftovers": left}, indent=2))
    raise SystemExit(bool(different or left or set(ends) - {"killed", "full"}))


if __name__ == "__main__":
    main()
