"""Damages the files of a run one at a time, runs the recipe again, and says how each was met.

    python benchmarks/damaged_files.py [--out results]

A small run of seven stages on the tiny base model is finished, and its copies are damaged: a flipped bit (also with
size and time as before), a cut file, a lost row, an empty file, a missing file, JSON of another shape. The stage that
reads the file is then run again. `refused`: an error of r1kit's that names the file; `repaired`: the run said so and
gave the same results. Anything else is a failure: silence, a traceback, other results. `r1kit verify-run` must find
the damage of every finished stage. About five minutes on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from r1kit.cli import USER_ERRORS
from r1kit.commands.verify_run_command import verify_run
from r1kit.pipeline import execute
from watched_run import RL_SETTINGS, recipe


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped bit": flip,
    "another digit": lambda content: content.replace(b"0", b"1", 1),
    "flipped bit, same time": flip,
    "cut in half": lambda content: content[: len(content) // 2],
    "row lost": lambda content: b"".join(content.splitlines(keepends=True)[1:]),
    "empty": lambda content: b"",
    "missing": lambda content: None,
    "a list": lambda content: b"[1]",
    "an empty object": lambda content: b"{}",
}
WHOLE = ("flipped bit", "flipped bit, same time", "cut in half", "empty", "missing")


@dataclass(frozen=True)
class Case:
    """`file` of a stage is damaged, and `again` (a stage's name) is done again; `midway` keeps what it had written."""

    stage: str
    file: str
    change: str
    again: str
    midway: bool = False


def cases() -> Iterator[Case]:
    for stage, file, again in (
        ("zero", "model/model.safetensors", "rejection"),
        ("zero", "model/config.json", "rejection"),
        ("rejection", "kept.jsonl", "review"),
        ("review", "kept.jsonl", "mix"),
        ("mix", "mixed.jsonl", "sft"),
        ("sft", "model/model.safetensors", "r1"),
        ("sft", "model/tokenizer.json", "r1"),
        ("r1", "model/model.safetensors", "eval-r1"),
    ):
        changes = (*WHOLE[:3], "row lost", *WHOLE[3:]) if file.endswith("jsonl") else WHOLE
        yield from (Case(stage, file, change, again) for change in changes)
    for change in ("flipped bit", "cut in half", "empty", "a list", "an empty object"):
        yield Case("r1", "manifest.json", change, "eval-r1")
    for file in ("policy.safetensors", "optimizer.pt", "state.json", "checksums.json"):
        yield Case("zero", f"checkpoints/step-000003/{file}", "flipped bit", "zero", midway=True)
    for change in ("cut in half", "missing"):
        yield Case("zero", "checkpoints/step-000003/optimizer.pt", change, "zero", midway=True)
    for file in ("metrics.jsonl", "step_hashes.jsonl"):
        yield Case("zero", file, "another digit", "zero", midway=True)
    for file, change in (("samples.jsonl", "row lost"), ("samples.jsonl", "flipped bit"), ("kept.jsonl", "row lost")):
        yield Case("rejection", file, change, "rejection", midway=True)
    for file in ("samples.jsonl.state.json", "curation.json"):
        yield Case("rejection", file, "a list", "rejection", midway=True)
    yield Case("review", "review.db", "empty", "review", midway=True)
    yield Case("sft", "tokens/train/token_ids.bin", "flipped bit", "sft", midway=True)
    yield Case("mix", "mixed.jsonl", "row lost", "mix", midway=True)
    for change in ("row lost", "flipped bit"):
        yield Case("eval-r1", "completions.jsonl", change, "eval-r1", midway=True)


def meet(case: Case, sound: Path, scratch: Path) -> str:
    """How a run of the damaged copy ended."""
    runs = scratch / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    shutil.copytree(sound, runs)
    (again,) = (runs / "small").glob(f"{case.again}-????????")
    (stage,) = (runs / "small").glob(f"{case.stage}-????????")
    if case.midway:
        (again / "manifest.json").unlink()
    else:
        shutil.rmtree(again)
    damage(stage / case.file, case.change)
    if not case.midway and verify_run(runs)["ok"]:
        return "silent in verify-run"
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            execute(recipe(), runs, verify=case.change.endswith("same time"))
        except USER_ERRORS as error:
            names = (Path(case.file).name, Path(case.file).parent.name)
            return "refused" if any(name and name in str(error) for name in names) else f"unclear: {error}"
        except Exception as error:
            return f"traceback: {type(error).__name__}: {error}"
    if different := differing(sound, runs):
        return f"other results: {different[0]}"
    return "repaired" if "damaged" in said.getvalue() else "silent"


def damage(file: Path, change: str) -> None:
    times, content = file.stat(), CHANGES[change](file.read_bytes())
    if content is None:
        file.unlink()
        return
    file.write_bytes(content)
    if change.endswith("same time"):
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def differing(sound: Path, runs: Path) -> list[str]:
    """The weights and answers that differ between two runs."""
    files = [*sound.glob("small/*/model/model.safetensors"), *sound.glob("small/*/results.json")]
    return [str(file) for file in files if file.read_bytes() != (runs / file.relative_to(sound)).read_bytes()]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    RL_SETTINGS["checkpoint_every"] = 1
    rows = []
    with tempfile.TemporaryDirectory(prefix="r1kit-damage-") as folder:
        sound = Path(folder) / "sound"
        execute(recipe(), sound)
        for number, case in enumerate(cases(), 1):
            outcome = meet(case, sound, Path(folder))
            rows.append({"stage": case.stage, "file": case.file, "change": case.change, "outcome": outcome})
            print(f"{number}: {case.stage}/{case.file}, {case.change}: {outcome}", flush=True)
    counts = Counter(row["outcome"] if row["outcome"] in ("refused", "repaired") else "failed" for row in rows)
    ends = ", ".join(f"{counts[name]} {name}" for name in ("refused", "repaired", "failed"))
    print(f"{len(rows)} damaged files: {ends}")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "damaged_files.json"
    file.write_text(json.dumps({"files": len(rows), **counts, "cases": rows}, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
