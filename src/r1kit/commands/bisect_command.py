"""The command `bisect`: the first stage, step and tensor at which two runs part."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from r1kit.data.jsonl import read_rows
from r1kit.data.step_rows import SAMPLED, first_difference, read_steps
from r1kit.report.folders import stage_name
from r1kit.report.live.places import ROW_FILES, find_runs, is_stage, with_name
from r1kit.report.live.stage_state import States
from r1kit.report.page import flat
from r1kit.report.recorded import RecordedStage, differences, log_damage
from r1kit.store import StoreError
from r1kit.terminal import printable, shortened

NOT_COMPARED = ("made_by",)  # columns of rows that name a folder
NOT_MEASURED = ("time/", "audit/")  # metrics that differ between two runs of the same bits


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two runs part. `step` is None for rows of a file, and `tensor` is then the file with the row's number."""

    stage: str
    step: int | None
    tensor: str
    detail: str


def bisect(one: Path, other: Path) -> dict[str, Any]:
    """Compare two runs, or two stages, in the order of their work.

    `ok` if they do not part, by logs that both have and that are as they were written. Raises ValueError for a folder
    without a run, or for two runs that share no stage.
    """
    stages, others = _stages(one), _stages(other)
    shared = [name for name in stages if name in others]
    if not shared:
        raise ValueError(f"{one} and {other} have no stage of the same name: {', '.join(stages)}; {', '.join(others)}")
    same, empty, unshared = list[str](), list[str](), [name for name in [*stages, *others] if name not in shared]
    parting, notes, damaged = None, list[str](), list[str]()
    for name in shared:
        both = stages[name], others[name]
        damaged += [line for folder in both for line in log_damage(folder)]
        parting = part(name, *both)
        if isinstance(parting, Parting):
            break
        (same if parting else empty).append(name)
        notes += _lengths(name, *both)
    lines = [f"the same: {', '.join(same)}"] if same else []
    if isinstance(parting, Parting):
        lines += [
            f"{parting.stage} differs at {parting.detail}",
            *_causes(stages[parting.stage], others[parting.stage]),
        ]
    elif same:
        lines += ["the runs do not differ in anything that they recorded"]
    lines += [*damaged, *notes]
    if empty:
        lines.append(f"not compared, because the runs have no steps, metrics or rows in common: {', '.join(empty)}")
    lines += [f"only in one of them: {', '.join(unshared)}"] if unshared else []
    facts = asdict(parting) if isinstance(parting, Parting) else None
    is_ok = facts is None and bool(same) and not damaged
    return {"ok": is_ok, "same": same, "not_compared": empty, "parting": facts, "text": printable("\n".join(lines))}


def _stages(path: Path) -> dict[str, Path]:
    """Stage folders by name, in the order of the plan."""
    path = with_name(path)
    if is_stage(path):
        return {stage_name(path): path}
    runs = find_runs(path)
    if len(runs) != 1:
        raise ValueError(f"{path} contains {len(runs)} runs: name the folder of one run or one stage")
    [run] = runs.values()
    found = {stage.name: run / stage.id for stage in States().run(run).stages}
    return {name: folder for name, folder in found.items() if is_stage(folder)}


def part(name: str, one: Path, other: Path) -> Parting | bool:
    """Where two folders of a stage part: by the hashes of its steps, or else by its metrics and its rows.

    True if they do not, and False if they have nothing that can be compared.
    """
    steps, others = read_steps(one), read_steps(other)
    shared = sorted(steps.keys() & others.keys())
    if not shared:
        found = [_metrics_part(name, one, other), _rows_part(name, one, other)]
        return next((each for each in found if isinstance(each, Parting)), any(found))
    difference = first_difference(steps, others, shared)
    if difference is None:
        return True
    before = SAMPLED[: SAMPLED.index(difference.tensor)] if difference.tensor in SAMPLED else SAMPLED
    same = [tensor for tensor in before if tensor in steps[difference.step]]
    note = f" ({', '.join(same)} of the step are the same)" if same else ""
    return Parting(name, difference.step, difference.tensor, f"{difference}{note}")


def _lengths(name: str, one: Path, other: Path) -> list[str]:
    """What could not be compared because one of the two has fewer steps."""
    steps = {stage: read for stage in (one, other) if (read := read_steps(stage))}
    if len(steps) < 2:
        return []
    ends = {stage: max(read) for stage, read in steps.items()}
    last, longer = min(ends.values()), max(ends, key=ends.__getitem__)
    lost = sorted(step for step in steps[one].keys() ^ steps[other].keys() if step <= last)
    notes = [f"{name}: {len(lost)} steps up to {last} are in only one of the two, first {lost[0]}"] if lost else []
    if ends[longer] > last:
        notes.append(f"{name} was compared up to step {last}: only {longer} continues, to step {ends[longer]}")
    return notes


def _metrics_part(name: str, one: Path, other: Path) -> Parting | bool:
    compared = False
    rows = [
        {row.get("step"): row for row in read_rows(each / "metrics.jsonl", missing_ok=True)} for each in (one, other)
    ]
    for step in sorted(step for step in rows[0] if isinstance(step, int) and step in rows[1]):
        mine, theirs = rows[0][step], rows[1][step]
        metrics = [key for key in mine if key in theirs and not key.startswith(NOT_MEASURED)]
        if differing := [key for key in metrics if mine[key] != theirs[key]]:
            detail = "; ".join(f"{key} {mine[key]!r} -> {theirs[key]!r}" for key in differing[:4])
            return Parting(name, step, differing[0], f"step {step}: {detail}")
        compared = compared or len(metrics) > 1  # beside the step
    return compared


def _rows_part(name: str, one: Path, other: Path) -> Parting | bool:
    files = [file for file in ROW_FILES if (one / file).exists() and (other / file).exists()]
    for file in files:
        for number, (mine, theirs) in enumerate(zip_longest(read_rows(one / file), read_rows(other / file)), 1):
            if mine is None or theirs is None:
                return Parting(name, None, f"{file}:{number}", f"{file}, row {number}, which only one of the runs has")
            compared = [key for key in {**mine, **theirs} if key not in NOT_COMPARED]
            columns = [key for key in compared if mine.get(key) != theirs.get(key)]
            if columns:
                values = f"{shortened(str(mine.get(columns[0])), 100)} -> {shortened(str(theirs.get(columns[0])), 100)}"
                return Parting(name, None, f"{file}:{number}", f"{file}, row {number}, {', '.join(columns)}: {values}")
    return bool(files)


def _causes(one: Path, other: Path) -> list[str]:
    """How settings, version, commit, packages and inputs of the stage differ."""
    try:
        both = RecordedStage.read(one), RecordedStage.read(other)
    except StoreError as error:
        return [f"  settings cannot be compared: {error}"]
    inputs = [each.facts.get("inputs") or {} for each in both]
    compared = {
        "setting ": [dict(flat(each.facts.get("settings") or {})) for each in both],
        "": [{"code version": each.facts.get("version"), **each.surroundings} for each in both],
        "input ": [{name: source["fingerprint"][:12] for name, source in each.items()} for each in inputs],
    }
    causes = [f"  {kind}{line}" for kind, pair in compared.items() for line in differences(*pair)]
    same = "  settings, commit, versions and inputs are the same: look for code that changed without a commit"
    return causes or [same]
