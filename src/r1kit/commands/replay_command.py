"""The command `replay`: repeat a step of an RL stage from its checkpoints, and compare it with what was logged."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from r1kit.content import require_sealed
from r1kit.data.jsonl import read_rows
from r1kit.data.step_rows import FILE, SAMPLED, UNITS, UPDATED, Difference, first_difference, read_steps, sharing_of
from r1kit.pipeline import Context, Display, Kind, Progress, Stage
from r1kit.pipeline.launcher import run_on_ranks
from r1kit.pipeline.sharing import require_devices
from r1kit.report.live.places import children, is_stage, with_name
from r1kit.report.recorded import RecordedStage, log_damage
from r1kit.settings import SettingsError
from r1kit.stages.on_policy import ON_POLICY
from r1kit.stages.rl import RL
from r1kit.store import StoreError, scratch_folder, to_plain
from r1kit.terminal import printable, shortened
from r1kit.train.checkpoints import by_step, step_of

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (RL, ON_POLICY)}
QUIET = {"checkpoint_every": 0, "rollouts_every": 1, "samples_every": 0, "audit_share": 0.0}  # none changes a weight
SHOWN = ("reward/mean", "optim/loss", "optim/grad_norm", "policy/entropy", "completion/length_mean")
EXCERPT = 200  # characters of a completion


def replay(path: Path, step: int, stage: str = "", say: Callable[[str], None] = print) -> dict[str, Any]:
    """Repeat a step; `ok` says whether everything in it has the hashes that were logged.

    Starts at the nearest checkpoint before the step, or at the beginning, and compares every step on the way. The run's
    folder is only read. Raises ValueError for a step or a stage that was not logged.
    """
    recorded = RecordedStage.read(find_stage(path, stage))
    if recorded.kind not in KINDS:
        raise ValueError(
            f"{recorded.folder} is of the kind {recorded.kind!r}: only {' and '.join(KINDS)} stages can be replayed"
        )
    logged = read_steps(recorded.folder)
    if step < 1 or step not in logged:
        steps = [each for each in logged if each > 0]  # 0 are the weights before the first step
        known = (
            f"steps {min(steps)} to {max(steps)}"
            if steps
            else "no steps: none has finished, or an older version of r1kit ran the stage"
        )
        raise ValueError(f"{recorded.folder / FILE} has no step {step}; it has {known}")
    start = _sound_checkpoint(recorded.folder, step, say)
    first = 1 + (step_of(start) if start else 0)
    if len(shared := {sharing_of(logged[each]) for each in logged if first <= each <= step}) > 1:
        numbers = " and ".join(map(str, sorted(shared)))
        raise ValueError(
            f"up to step {step}, {recorded.folder.name} ran on {numbers} devices since the checkpoint before it, and a "
            "replay can share its work in one way only: replay a step after a later checkpoint, or one before"
        )
    for damaged in log_damage(recorded.folder):
        say(damaged)
    for change in recorded.changes_since():
        say(f"changed since the run: {change}")
    with scratch_folder(Path(tempfile.gettempdir()), "r1kit-replay") as scratch:
        folder = scratch / recorded.folder.name
        run_again(recorded, folder, start, step, logged[step])
        repeated = read_steps(folder)
        if step not in repeated:
            raise StoreError(
                f"the replay stopped after step {max(repeated)} for the reason above: step {step} was not repeated"
            )
        difference = first_difference(logged, repeated, [each for each in sorted(repeated) if each in logged])
        compared = step if difference is None else difference.step
        rows = [
            next((row for row in read_rows(each / "metrics.jsonl", missing_ok=True) if row.get("step") == compared), {})
            for each in (recorded.folder, folder)
        ]
        lines = _lines(logged[compared], difference, rows)
        if difference is not None:
            lines += _completions(recorded.folder, folder, difference)
    begin = f"from the checkpoint of step {first - 1}" if start else "from the beginning"
    head = f"{recorded.folder.name}, step {step}, {begin}: {'the same bits' if difference is None else 'not the same'}"
    result = {"ok": difference is None, "stage": recorded.folder.name, "step": step, "from": first - 1}
    found = None if difference is None else to_plain(asdict(difference))
    return result | {"difference": found, "text": printable("\n".join([head, *lines]))}


def find_stage(path: Path, name: str = "") -> Path:
    """The folder of an RL stage: `path` itself, or the stage `name` of a run. Raises ValueError if it is not clear."""
    path = with_name(path)
    if is_stage(path):
        own = RecordedStage(path, {}).name
        if name not in ("", path.name, own):
            raise ValueError(f"{path} is the stage {own}, and --stage names {name}: name the run's folder")
        return path
    known = [each for each in sorted(children(path)) if (each / FILE).exists() and (each / "rollouts").is_dir()]
    if not known:
        raise ValueError(
            f"{path} has no RL stage with {FILE}: none of its steps has finished, or an older version of r1kit ran it"
        )
    chosen = [each for each in known if name in ("", each.name, RecordedStage(each, {}).name)]
    if len(chosen) != 1:
        names = ", ".join(each.name for each in known)
        raise ValueError(f"name one RL stage of {path} with --stage; these have logged steps: {names}")
    return chosen[0]


def _sound_checkpoint(stage: Path, step: int, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint before `step` that is not damaged; None if there is none. Damaged ones are said."""
    for checkpoint in reversed(by_step(stage)):
        if step_of(checkpoint) < step:
            try:
                require_sealed(checkpoint)
            except StoreError as error:
                say(f"{error}; the replay starts from an earlier checkpoint")
            else:
                return checkpoint
    return None


def run_again(
    recorded: RecordedStage, folder: Path, checkpoint: Path | None, step: int, logged: Mapping[str, Any]
) -> None:
    """Train in `folder` from a checkpoint, or from the beginning, up to the step; leaves the hashes of each step.

    With as many threads and devices as the run `logged` for the step, which decide the last bits of sums. Raises
    `SettingsError` for more devices than there are.
    """
    kind, (devices, row_size, shard) = KINDS[recorded.kind], sharing_of(logged)
    try:
        settings = kind.settings.parse(recorded.facts["settings"])
        settings = settings.replace(**QUIET, sequence_devices=row_size, shard=shard)
    except SettingsError as error:
        raise SettingsError(
            f"{recorded.folder} has settings that this version of r1kit does not accept: {error}"
        ) from None
    (folder / "checkpoints").mkdir(parents=True)
    if (dtype := recorded.folder / "compute_dtype.json").exists():
        shutil.copy(dtype, folder)
    if checkpoint is not None:
        (folder / "checkpoints" / checkpoint.name).symlink_to(checkpoint.resolve())
    context = Context(
        stage=recorded.name,
        settings=settings,
        folder=folder,
        paths=recorded.paths(),
        progress=Progress("replay"),
        until=step,
        devices=devices,
    )
    from r1kit.models.devices import computing_with

    require_devices([Stage(recorded.name, kind, settings)], devices)
    with computing_with(int(logged.get("threads", 0)) * devices):  # each rank gets its share
        if devices > 1:
            run_on_ranks(kind.run, context, "replay", Display())
        else:
            kind.run(context)


def _lines(logged: Mapping[str, Any], difference: Difference | None, rows: list[dict[str, Any]]) -> list[str]:
    """A line per tensor of the step up to the first that differs, and the metrics, as logged and as measured now."""
    names = (*SAMPLED, *UPDATED)
    same = names if difference is None else names[: names.index(difference.tensor)]
    lines = [f"  {name} ({len(logged[name])}): the same" for name in same if name in logged]
    lines += [f"  {difference}"] if difference is not None else []
    then, now = rows
    for name in SHOWN:
        if name in then and name in now:
            change = "" if then[name] == now[name] else f", now {now[name]!r}"
            lines.append(f"  {name} {then[name]!r}{change}")
    return lines


def _completions(logged: Path, repeated: Path, difference: Difference) -> list[str]:
    """The first completion that differs, as it was logged and as it is now, if the run kept its text."""
    if not difference.places or UNITS[difference.tensor] != "completion":
        return []
    file = f"rollouts/step-{difference.step:06d}.jsonl"
    pairs = zip_longest(*(read_rows(folder / file, missing_ok=True) for folder in (logged, repeated)))
    for place, (then, now) in enumerate(pairs):
        if place == difference.places[0] and then and now:
            names = [name for name in ("completion", "reward", "parts", "advantage") if then.get(name) != now.get(name)]
            changes = [f"    {name}: {_short(then.get(name))} -> {_short(now.get(name))}" for name in names]
            return [f"  problem {then.get('problem_id')}:", *changes]
    return [f"  its text was not stored: {logged / file} does not exist (see rollouts_every)"]


def _short(value: Any) -> str:
    return shortened(str(value), EXCERPT)
