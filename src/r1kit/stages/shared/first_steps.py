"""The first three steps of a training stage at its smallest sizes, straight and resumed, in a scratch folder."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.data.jsonl import RowWriter, read_rows
from r1kit.data.rows import readable_rows
from r1kit.engines.stage_policy import FILE as COMPUTE_DTYPE
from r1kit.pipeline import Context, Display, Kind, Progress
from r1kit.settings import Settings
from r1kit.stages.shared.preflight import FILE
from r1kit.stages.shared.probe import ProbeSettings
from r1kit.store import read_json
from r1kit.train import checkpoints
from r1kit.train.losses.policy_settings import GRPOSettings

if TYPE_CHECKING:
    from r1kit.train.preflight.lines import Line

STEPS, ROWS, LOOKED_AT = 3, 4, 200  # updates; rows of each; rows of a data file among which the shortest are taken
# The largest values; smaller ones stay.
LARGEST = {
    "steps": STEPS,
    "prompts_per_step": 2,
    "group_size": 4,
    "minibatches": 2,
    "epochs": 1,
    "batch_size": ROWS,
    "documents_per_step": ROWS,
    "max_tokens": 48,
    "max_rows": 64,
}
FIXED: dict[str, Any] = {
    "checkpoint_every": 2,
    "rollouts_every": 1,
    "samples_every": 0,
    "audit_share": 0.0,
    "patience": 0,
    "probe_every": 0,
    "validation_share": 0.0,
    "validation_every": 0,
    "probe": ProbeSettings(),
    "preflight": "stop",
}
RESUMED = "three steps, resumed"


def shortened(settings: Settings, *, samples: bool) -> Settings:
    """The settings for three small steps. `samples`: the stage samples, and max_tokens is that of a completion."""
    changes = {name: value for name, value in FIXED.items() if name in type(settings).model_fields}
    for name, most in LARGEST.items():
        value = getattr(settings, name, None)
        if isinstance(value, int) and value > most and (samples or name != "max_tokens"):
            changes[name] = most
    algorithm = getattr(settings, "algorithm", None)
    if isinstance(algorithm, GRPOSettings) and algorithm.baseline == "pass_at_k":
        changes["group_size"] = algorithm.pass_k + 1
    if tasks := getattr(settings, "tasks", ()):
        limit = 16 * ROWS if samples else STEPS * ROWS
        changes["tasks"] = tuple(spec.replace(limit=min(limit, spec.limit or limit)) for spec in tasks)
    return settings.replace(**changes)


def first_steps(kind: Kind, context: Context, scratch: Path) -> tuple[list[Line], list[dict[str, Any]]]:
    """The stage's own checks, whether its first steps run, and whether resumed ones end in the same bits.

    Returns these lines, and the metrics of the steps. `context` is that of the real run, whose folder stays untouched.
    """
    from r1kit.train.first_batch import OutOfMemoryError
    from r1kit.train.preflight.lines import Line, PreflightError, line

    straight = scratch / "straight"
    samples = hasattr(context.settings, "group_size")
    short = replace(
        context,
        settings=shortened(context.settings, samples=samples),
        folder=straight,
        paths=few_rows(context.paths, scratch),
        progress=Progress(display=Display(io.StringIO())),
    )
    straight.mkdir(parents=True)
    fault: list[Line] = []
    try:
        kind.run(short)
    except PreflightError:
        pass  # its lines are in the file
    except OutOfMemoryError as error:
        fault = [line("longest row", str(error), False, "")]
    except (ValueError, FloatingPointError, RuntimeError) as error:
        fault = [line("first steps", str(error), False, "the stage would stop here")]
    lines = [Line(**row) for row in read_json(straight / FILE)] if (straight / FILE).exists() else []
    rows = list(read_rows(straight / "metrics.jsonl", missing_ok=True))
    if fault or any(each.verdict == "fails" for each in lines):
        return [*lines, *fault], rows
    if len(rows) > 1 and (saved := checkpoints.by_step(straight)):
        resume(kind, replace(short, folder=scratch / "resumed"), saved[0])
        lines.append(resumed_line(straight, scratch / "resumed", checkpoints.step_of(saved[0]), len(rows)))
    return lines, rows


def few_rows(paths: Mapping[str, Path], scratch: Path) -> dict[str, Path]:
    """The inputs, with the shortest of the first rows of each data file, and nothing held out."""
    few = {name: path for name, path in paths.items() if not name.startswith("validation")}
    data = {name: path for name, path in few.items() if name.split("/")[0] == "data"}
    count = -(-STEPS * ROWS // max(1, len(data)))
    for number, (name, path) in enumerate(data.items()):
        rows = sorted(islice(readable_rows(path), LOOKED_AT), key=lambda row: len(str(row)))
        few[name] = scratch / f"rows-{number}.jsonl"
        with RowWriter(few[name]) as file:
            for row in rows[:count]:
                file.append(row)
    return few


def resume(kind: Kind, context: Context, checkpoint: Path) -> None:
    """Run a stage from another folder's checkpoint."""
    shutil.copytree(checkpoint, context.folder / "checkpoints" / checkpoint.name)
    for name in ("metrics.jsonl", COMPUTE_DTYPE):  # a stage measures its data type once, and a resumed one keeps it
        if (file := checkpoint.parents[1] / name).exists():
            shutil.copy(file, context.folder)
    kind.run(context)


def resumed_line(straight: Path, resumed: Path, step: int, steps: int) -> Line:
    """Whether both folders hold the same weights and metrics; `unclear` if there was no gradient to resume with."""
    from r1kit.train.preflight.lines import line, unclear

    files = sorted(path.relative_to(straight) for path in (straight / "model").glob("*.safetensors"))
    different = [path.name for path in files if (straight / path).read_bytes() != (resumed / path).read_bytes()]
    rows = [
        [
            {name: value for name, value in row.items() if not name.startswith("time/")}
            for row in read_rows(folder / "metrics.jsonl")
        ]
        for folder in (straight, resumed)
    ]
    pairs = zip(*rows, strict=False)
    metric = next((name for first, second in pairs for name in first if first[name] != second.get(name)), "")
    faults = [*different, *([f"the metric {metric}"] if metric else [])]
    same = f"resumed after step {step} of {steps}: the same weights and metrics, bit for bit"
    if not faults and not any(row.get("optim/grad_norm", 1.0) for row in rows[0][:step]):
        return unclear(RESUMED, f"the same bits, but the first {step} steps had no gradient: rewards were equal")
    remedy = "a resumed run gives another result: state outside of the checkpoint (a reward or task that counts?)"
    return line(RESUMED, f"{', '.join(faults)} differ" if faults else same, not faults, remedy)
