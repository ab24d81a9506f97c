"""The checks of a recipe before it runs: each stage's data and settings, and three real steps of those that can train.

A stage whose inputs other stages have yet to write is checked as far as its settings allow; it checks the rest by
itself when it starts (`stages.shared.preflight`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1kit.chat import ChatFormat
from r1kit.cores import cpu_count
from r1kit.evaluate.table import align
from r1kit.pipeline import Context, Output, PlanRow, Progress, Recipe, Stage, plan
from r1kit.pipeline.sharing import require_shareable
from r1kit.recipes.estimate import Estimate, estimates, model_of
from r1kit.recipes.hardware import HARDWARE
from r1kit.recipes.measure import this_hardware
from r1kit.rewards import build
from r1kit.rewards.registry import MODELLED
from r1kit.stages.evaluate import EvaluateSettings
from r1kit.stages.rl import RLSettings
from r1kit.stages.shared.first_steps import first_steps
from r1kit.stages.shared.preflight import PROBLEMS, reward_lines
from r1kit.store import scratch_folder
from r1kit.tasks import load_tasks
from r1kit.terminal import printable

if TYPE_CHECKING:
    from r1kit.models.load import Policy
    from r1kit.train.preflight.lines import Line

CAN_START = "settings, data and prompts"
LATER = "waits for {}: the stage checks its model by itself when it starts"
SHARED = "was checked on one device, and will share {devices}"
SHARED_LATER = "waits for {}: it makes no checks on {devices} devices, so repeat this command when they are done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A stage with its lines; `note` says what was left for later."""

    stage: str
    lines: tuple[Line, ...]
    note: str = ""


def preflight(
    recipe: Recipe, runs: Path, until: str | None = None, say: Callable[[str], object] = lambda text: None
) -> list[Checked]:
    """Check the stages that are not done. `say` hears which one is being checked."""
    from r1kit.train.preflight.lines import line

    rows = plan(recipe, runs, until, fetch=True)
    done = {row.stage.name for row in rows if row.status == "done"}
    costs, no_costs = costs_of(recipe)
    runs.mkdir(parents=True, exist_ok=True)
    checked = []
    for row in rows:
        if row.status == "done" or not (row.stage.kind.check or row.stage.kind.curves):
            continue
        say(row.stage.name)
        waiting = dict.fromkeys(parent.name for parent in row.stage.parents if parent.name not in done)
        try:
            require_shareable(row.stage, recipe.devices)
            cost = costs.get(row.stage.name, no_costs)
            lines = _without_inputs(row.stage) if waiting else _with_inputs(row, runs, cost)
            lines += _evaluated(row.stage, recipe.stages)
        except ValueError as error:
            lines = [line(CAN_START, str(error), False, "correct the settings or the data")]
        note = LATER.format(", ".join(waiting)) if waiting else ""
        if recipe.devices > 1 and row.stage.kind.shards:
            note = (SHARED_LATER if waiting else SHARED).format(", ".join(waiting), devices=recipe.devices)
        if lines:
            checked.append(Checked(stage=row.stage.name, lines=tuple(lines), note=note))
    return checked


def _with_inputs(row: PlanRow, runs: Path, cost: Estimate | str) -> list[Line]:
    """A stage that could start now; its steps run on one device."""
    from r1kit.train.preflight.lines import line

    stage = row.stage
    context = Context(
        stage=stage.name, settings=stage.settings, folder=row.folder, paths=row.paths, progress=Progress(stage.name)
    )
    if stage.kind.check is not None:
        stage.kind.check(context)
    lines = [line(CAN_START, "the stage can start", True, "")]
    if not stage.kind.curves:
        return lines
    with scratch_folder(runs, "preflight") as scratch:
        steps, metrics = first_steps(stage.kind, context, scratch)
    return [*lines, *steps, *_samples(metrics), *_time_and_memory(cost)]


def _without_inputs(stage: Stage) -> list[Line]:
    """A stage that waits for another one: prompts, references and rewards, with the tokenizer of the first model."""
    source, settings = model_of(stage), stage.settings
    if not isinstance(settings, RLSettings) or source is None or source.fetch is not None:
        return []
    from r1kit.models.load import outline
    from r1kit.train.preflight.lines import same_random_numbers
    from r1kit.train.preflight.prompts import turn_line
    from r1kit.train.rl.collect import Draws

    rules = [spec for spec in settings.rewards if spec.name not in MODELLED]
    policy = outline(str(source.path))
    lines = [turn_line(settings.chat, policy), *_inherited(stage, settings.chat, policy)]
    if rules:
        with same_random_numbers():
            scorer = build(rules)
            task = load_tasks(settings.tasks, training=True, nested_columns=scorer.has_own)
            problems = Draws(task, settings.seed).next(min(PROBLEMS, len(task)))
            lines += reward_lines(settings, scorer, problems, policy.tokenizer)
    return lines


def _inherited(stage: Stage, chat: ChatFormat, policy: Policy) -> list[Line]:
    """Prompts are those of the stage that trains the model before."""
    from r1kit.train.preflight.prompts import same_prompts_line

    source = stage.inputs["model"]
    before = getattr(source.stage.settings, "chat", None) if isinstance(source, Output) else None
    if not isinstance(source, Output) or not isinstance(before, ChatFormat):
        return []
    return [same_prompts_line(chat, before, policy.tokenizer, f"in {source.stage.name}")]


def _evaluated(stage: Stage, stages: Sequence[Stage]) -> list[Line]:
    """Evaluations ask the stage's model with the prompts of its training."""
    from r1kit.models.load import outline
    from r1kit.train.preflight.prompts import same_prompts_line

    chat, source = getattr(stage.settings, "chat", None), model_of(stage)
    if not stage.kind.curves or not isinstance(chat, ChatFormat) or source is None or source.fetch is not None:
        return []
    chats = {
        other.name: other.settings.chat
        for other in stages
        if isinstance(other.settings, EvaluateSettings) and stage in other.parents
    }
    tokenizer = outline(str(source.path)).tokenizer if chats else None
    return [
        same_prompts_line(chat, other, tokenizer, f"in {name}", f"prompts of {name}") for name, other in chats.items()
    ]


def _samples(metrics: Sequence[Mapping[str, Any]]) -> list[Line]:
    """Whether the rewards of the first completions differ, and why not."""
    from r1kit.train.preflight.lines import line, unclear

    rows = [row for row in metrics if "groups/zero_variance" in row]
    if not rows:
        return []
    varied = sum(row["groups/zero_variance"] < 1 for row in rows)
    check = "rewards of the first samples"
    if varied:
        return [line(check, f"differ within groups in {varied} of {len(rows)} steps", True, "")]
    if all(row.get("reward/accuracy", 0.0) == 1.0 for row in rows):
        return [unclear(check, "all right: the problems may be too easy to learn from")]
    cut = sum(row["completion/truncated"] for row in rows) / len(rows)
    why = f"{cut:.0%} of these short completions are cut off" if cut > 0.5 else "none of these few answers is right"
    return [unclear(check, f"equal within each group: {why}")]


def _time_and_memory(cost: Estimate | str) -> list[Line]:
    """Hours and memory by the formulas of `plan`; `cost` is a text if they cannot tell, and says why."""
    from r1kit.train.first_batch import free_memory
    from r1kit.train.memory import GIB
    from r1kit.train.preflight.lines import line, unclear

    if isinstance(cost, str):
        return [unclear("time and memory", cost)]
    remedy = "lower tokens_per_batch, max_tokens or max_rows, or use a smaller model (docs/guides/memory.md)"
    needed, free = f"{cost.memory_gib:.1f} GiB by the formulas", free_memory(HARDWARE[this_hardware()].device) / GIB
    hours = f"about {cost.hours:.1g} hours for {cost.tokens:,} tokens; plan --measure measures them"
    memory = line("memory", needed, cost.memory_gib <= free, remedy, f"{free:.1f} GiB are free")
    return [line("time", hours, True, ""), memory]


def costs_of(recipe: Recipe) -> tuple[dict[str, Estimate], str]:
    """An estimate of each stage on this machine, and why a stage has none."""
    try:
        hardware = this_hardware()
        workers = cpu_count() if hardware == "cpu" else 1
        return estimates(recipe, hardware, workers), "the formulas do not know the stage"
    except ValueError as error:  # an unknown device or model; or the data cannot be read, which is a line of its stage
        return {}, f"cannot be estimated: {error}"


def as_text(checked: Sequence[Checked]) -> str:
    """A table of all lines, and below it the remedies of those that fail."""
    head = ["stage", "check", "value", "limit", "verdict"]
    rows = [[each.stage, line.check, line.value, line.limit, line.verdict] for each in checked for line in each.lines]
    failing = [(each.stage, line) for each in checked for line in each.lines if line.verdict == "fails"]
    remedies = [f"{stage}: {line.check}: {line.remedy}" for stage, line in failing]
    notes = [f"{each.stage} {each.note}" for each in checked if each.note]
    verdict = f"{len(failing)} of {len(rows)} checks fail" if failing else f"no check of {len(rows)} fails"
    return printable("\n".join([align([head, *rows]), "", *notes, *remedies, verdict]))
